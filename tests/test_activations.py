"""Predicted bytes against counted ones: what backward needs, and the peak of a whole step."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from keeping import kept_by, peak_of
from networks import OPTIONS, VARIANTS, tiny, tokens_of
from torch import Tensor
from torch.nn.functional import cross_entropy

from psannlm.config.network import ModelConfig
from psannlm.device import autocast
from psannlm.model import bases
from psannlm.model.activations import saved_bytes, training_memory
from psannlm.model.bases import Respsann, build, cost_of
from psannlm.model.cost import Shape
from psannlm.model.projection import plain_sine
from psannlm.model.saved_activations import SavedActivations, Step
from psannlm.model.transformer import Transformer
from psannlm.train.objective import NextToken

CPU = torch.device("cpu")
SMALL = {"d_model": 32, "n_heads": 4, "d_mlp": 80, "context_length": 40}
MEDIUM = {
    "vocab_size": 1000,
    "context_length": 128,
    "d_model": 128,
    "n_layers": 4,
    "n_heads": 4,
    "d_mlp": 512,
}


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
        with autocast(CPU, precision):
            logits = model(tokens)
        return cross_entropy(logits.flatten(0, 1).float(), targets.flatten())

    return model, loss


def check_saved(config: ModelConfig, shape: Shape, precision: str, variant: str) -> None:
    model, loss = step_of(config, shape, precision, variant)

    predicted = saved_bytes(config, shape, precision=precision, device_type="cpu", variant=variant)

    assert sum(predicted.values()) == kept_by(loss, model)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_bytes_kept_for_backward_are_those_that_torch_counts(options: dict[str, Any]) -> None:
    check_saved(tiny(**SMALL | options), Shape(2, 24), "bf16", "default")


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["default", "plain_sine", "plain_loss"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_they_are_for_every_option_precision_and_path(
    options: dict[str, Any], variant: str
) -> None:
    for precision in ("fp32", "bf16"):
        for grad_checkpoint in (False, True):
            config = tiny(**SMALL | options, grad_checkpoint=grad_checkpoint)
            check_saved(config, Shape(2, 40), precision, variant)


@pytest.mark.slow
@pytest.mark.parametrize("learnable", ["", "frequency", "amplitude", "decay", "amplitude,decay"])
@pytest.mark.parametrize("mode", ["abs", "relu", "none"])
def test_a_plain_sine_keeps_less_of_what_it_does_not_learn(learnable: str, mode: str) -> None:
    names = tuple(filter(None, learnable.split(",")))
    config = tiny(**SMALL, base="waveresnet", learnable=names, decay_mode=mode)
    for precision in ("fp32", "bf16"):
        check_saved(config, Shape(2, 40), precision, "plain_sine")


def check_peak(config: ModelConfig, shape: Shape, precision: str, variant: str) -> None:
    model, loss = step_of(config, shape, precision, variant)

    memory = training_memory(
        config, shape, precision=precision, device_type="cpu", chunk_tokens=64, variant=variant
    )

    counted = peak_of(loss, model)
    assert memory["peak"] == pytest.approx(counted, rel=0.1), (precision, variant)


@pytest.mark.slow
def test_the_peak_of_a_step_is_nearly_that_of_the_allocator() -> None:
    check_peak(ModelConfig(base="respsann", **MEDIUM), Shape(4, 128), "bf16", "default")


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_is_for_every_option_precision_and_path(options: dict[str, Any]) -> None:
    # Few tokens in bf16, whose products are slow where a processor has no instructions for them.
    for precision, shape in (("fp32", Shape(4, 128)), ("bf16", Shape(1, 128))):
        for grad_checkpoint in (False, True):
            config = ModelConfig(**MEDIUM, **options, grad_checkpoint=grad_checkpoint)
            check_peak(config, shape, precision, "default")
        check_peak(config, shape, precision, "plain_loss")
        check_peak(config, shape, precision, "plain_sine")


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 16])
def test_it_is_where_weights_or_tokens_outweigh_the_rest(batch: int) -> None:
    config = ModelConfig(base="respsann", **MEDIUM | {"vocab_size": 9000 // batch})

    check_peak(config, Shape(batch, 64), "fp32", "default")


def memory(config: ModelConfig, **options: Any) -> dict[str, int]:
    choice = {"precision": "bf16", "device_type": "cuda", "chunk_tokens": 16} | options
    return dict(training_memory(config, Shape(4, 24), **choice))


def test_a_breakdown_names_all_parts_and_a_peak_that_holds_the_fixed_ones() -> None:
    found = memory(tiny())

    n_parameters = cost_of(tiny(), Shape(4, 24)).n_parameters
    assert [*found][:4] == ["parameters", "gradients", "optimizer", "logits"]
    assert [*found][-1] == "peak"
    assert found["parameters"] == found["gradients"] == 4 * n_parameters
    assert found["optimizer"] >= 8 * n_parameters
    assert found["peak"] >= found["parameters"] + found["gradients"] + found["optimizer"]
    saved = {f"saved: {k}": n for k, n in saved_of(tiny()).items()}
    assert saved == {name: size for name, size in found.items() if name.startswith("saved: ")}


def saved_of(config: ModelConfig, **options: Any) -> dict[str, int]:
    choice = {"precision": "bf16", "device_type": "cuda"} | options
    return dict(saved_bytes(config, Shape(4, 24), **choice))


def test_a_chunk_of_logits_is_no_larger_than_the_batch() -> None:
    sizes = [memory(tiny(), chunk_tokens=n)["logits"] for n in (24, 48, 96, 192)]

    assert sizes == [sizes[0], 2 * sizes[0], 4 * sizes[0], 4 * sizes[0]]


@pytest.mark.parametrize("base", ["respsann", "sgrpsann", "waveresnet", "transformer"])
def test_checkpointing_lowers_both_what_is_kept_and_the_peak(base: str) -> None:
    options = {"base": base, "n_layers": 6, "d_model": 32, "d_mlp": 128}
    off, on = (tiny(**options, grad_checkpoint=flag) for flag in (False, True))

    assert sum(saved_of(on).values()) < 0.5 * sum(saved_of(off).values())
    assert memory(on)["peak"] < memory(off)["peak"]


class Keeper(Respsann):
    """Respsann that says it keeps something more."""

    @classmethod
    def kept(cls, config: ModelConfig, step: Step, layer: int) -> SavedActivations:
        more = SavedActivations()
        more.kinds["own"] = 10 + layer
        return super().kept(config, step, layer) + more


def test_a_new_base_states_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bases.BASES, "keeper", Keeper)  # type: ignore[arg-type]

    new = saved_of(tiny(base="keeper", n_layers=3))

    assert new == saved_of(tiny(n_layers=3)) | {"own": 10 + 11 + 12}
