"""Predicted bytes against counted ones: what backward needs, and the peak of a whole step."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import OPTIONS, VARIANTS, tiny, tokens_of
from saved_bytes import peak_of, predicted_bytes, saved_by
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.config.network import ModelConfig
from psannlm.device import autocast
from psannlm.model import saved_activations
from psannlm.model.activations import training_memory
from psannlm.model.bases import BASES, build
from psannlm.model.cost import Shape
from psannlm.model.projection import plain_sine
from psannlm.model.saved_activations import SavedActivations, Step
from psannlm.model.transformer import Transformer
from psannlm.train.objective import NextToken

SMALL = {"d_model": 32, "n_heads": 4, "d_mlp": 80, "context_length": 40}
MEDIUM = {"vocab_size": 1000, "context_length": 128, "n_layers": 4, "n_heads": 4}
MEDIUM |= {"d_model": 128, "d_mlp": 512}


def step_of(
    config: ModelConfig, shape: Shape, precision: str, variant: str, chunk_tokens: int = 64
) -> tuple[Transformer, Callable[[], Tensor]]:
    """A network, and what computes the loss of a batch."""
    model = build(config, seed=0).train()
    if variant == "plain_sine":
        plain_sine(model)
    objective = NextToken(model, precision, chunk_tokens).train()
    tokens, targets = tokens_of(config, *shape), tokens_of(config, *shape, seed=3)

    def loss() -> Tensor:
        if variant != "plain_loss":
            found: Tensor = objective(tokens, targets)
            return found
        with autocast(tokens.device, precision):
            logits = model(tokens)
        return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return model, loss


def check_saved(config: ModelConfig, shape: Shape, precision: str, variant: str) -> None:
    model, loss = step_of(config, shape, precision, variant)

    assert predicted_bytes(config, Step(shape, precision, "cpu", variant)) == saved_by(loss, model)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_saved_bytes_are_those_that_torch_counts(options: dict[str, Any]) -> None:
    check_saved(tiny(**SMALL | options), Shape(2, 24), "bf16", "default")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["default", "plain_sine", "plain_loss"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_saved_bytes_of_every_option_precision_and_path(
    options: dict[str, Any], variant: str
) -> None:
    for precision in ("fp32", "bf16"):
        for grad_checkpoint in (False, True):
            config = tiny(**SMALL | options, grad_checkpoint=grad_checkpoint)
            check_saved(config, Shape(2, 40), precision, variant)


@pytest.mark.slow
@pytest.mark.parametrize(
    "learnable", [(), ("frequency",), ("amplitude",), ("decay",), ("amplitude", "decay")]
)
@pytest.mark.parametrize("mode", ["abs", "relu", "none"])
def test_a_plain_sine_saves_less_of_what_it_does_not_learn(
    learnable: tuple[str, ...], mode: str
) -> None:
    config = tiny(**SMALL, base="waveresnet", learnable=learnable, decay_mode=mode)
    for precision in ("fp32", "bf16"):
        check_saved(config, Shape(2, 40), precision, "plain_sine")


def check_peak(config: ModelConfig, shape: Shape, precision: str, variant: str) -> None:
    model, loss = step_of(config, shape, precision, variant)

    memory = training_memory(config, Step(shape, precision, "cpu", variant), 64)

    assert memory["peak"] == pytest.approx(peak_of(loss, model), rel=0.1), (precision, variant)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_peak_of_every_option_precision_and_path(options: dict[str, Any]) -> None:
    # Few tokens in bf16, whose products are slow where a processor has no instructions for them.
    for precision, shape in (("fp32", Shape(4, 128)), ("bf16", Shape(1, 128))):
        for grad_checkpoint in (False, True):
            config = ModelConfig(**MEDIUM, **options, grad_checkpoint=grad_checkpoint)
            check_peak(config, shape, precision, "default")
        check_peak(config, shape, precision, "plain_loss")
        check_peak(config, shape, precision, "plain_sine")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 16])
def test_peak_where_weights_or_tokens_outweigh_the_rest(batch: int) -> None:
    config = ModelConfig(base="respsann", **MEDIUM | {"vocab_size": 9000 // batch})

    check_peak(config, Shape(batch, 64), "fp32", "default")


ON_CUDA = Step(Shape(4, 24), "bf16", "cuda")


def test_a_chunk_of_logits_is_no_larger_than_the_batch() -> None:
    sizes = [training_memory(tiny(), ON_CUDA, n)["logits"] for n in (24, 48, 96, 192)]

    assert sizes == [sizes[0], 2 * sizes[0], 4 * sizes[0], 4 * sizes[0]]


@pytest.mark.parametrize("base", BASES)
def test_checkpointing_lowers_saved_bytes_and_the_peak(base: str) -> None:
    options = {"base": base, "n_layers": 6, "d_model": 32, "d_mlp": 128}
    off, on = (tiny(**options, grad_checkpoint=flag) for flag in (False, True))

    saved = [predicted_bytes(config, ON_CUDA) for config in (on, off)]
    peaks = [training_memory(config, ON_CUDA, 16)["peak"] for config in (on, off)]

    assert saved[0] < 0.5 * saved[1]
    assert peaks[0] < peaks[1]


@pytest.mark.parametrize(("precision", "bound"), [("fp32", 171.0), ("bf16", 156.0)])
def test_saved_bytes_of_a_medium_network_stay_below_their_bound(
    precision: str, bound: float
) -> None:
    options = {"vocab_size": 32000, "context_length": 512, "d_model": 512, "d_mlp": 2048}
    config = tiny(**options, n_layers=8, n_heads=8)

    assert predicted_bytes(config, Step(Shape(1, 512), precision, "cpu")) / 2**20 <= bound


def walked(parts: list[SavedActivations], working: list[int]) -> int:
    """The peak as a walk finds it: all are held, then the last one works, leaves, and so on."""
    highest, held = 0, sum(part.total for part in parts)
    for part, extra in zip(reversed(parts), reversed(working), strict=True):
        highest = max(highest, held + extra)
        held += part.gradients - part.total
        highest = max(highest, held)
    return highest


def test_the_peak_of_parts_is_that_of_a_walk_through_their_backward(
    generator: torch.Generator,
) -> None:
    for _ in range(200):
        drawn = torch.randint(1, 50, (5, 3), generator=generator).tolist()
        parts = [
            SavedActivations(Counter({"a": size}), extra, gradients)
            for size, extra, gradients in drawn
        ]

        left = ((parts[0] + parts[1]) + parts[2]) + (parts[3] + parts[4])
        right = parts[0] + (parts[1] + (parts[2] + (parts[3] + parts[4])))

        assert left == right
        assert left.peak == walked(parts, [extra for _, extra, _ in drawn])


def test_a_norm_on_its_own_saves_a_copy_on_a_cpu_only() -> None:
    config, shape = tiny(), Shape(3, 5)

    cpu, cuda = (
        saved_activations.norm(config, Step(shape, "fp32", kind)) for kind in ("cpu", "cuda")
    )

    assert cpu.total - cuda.total == 4 * 15 * config.d_model
