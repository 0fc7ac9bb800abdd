"""Every base, with every option, is causal, decodes from its cache as it runs whole, and learns."""

import math
import re
from collections import Counter
from typing import Any

import pytest
import torch
from networks import OPTIONS, VARIANTS, loss_and_gradients, moved, tiny, tokens_of
from saved_bytes import predicted_bytes, saved_by
from torch import Tensor, nn

from psannlm.config.network import ModelConfig
from psannlm.config.schema import ConfigError
from psannlm.model import bases, cost, saved_activations
from psannlm.model.bases import BASES, Block, base_of, build, cost_of
from psannlm.model.cost import Cost, Shape
from psannlm.model.mixers import Rows
from psannlm.model.saved_activations import SavedActivations, Step
from psannlm.train.objective import NextToken

GATE = 64  # points of the gate's transform; lengths below stand on both sides of it


def test_the_variants_cover_every_base() -> None:
    assert {options["base"] for options in OPTIONS.values()} == set(BASES)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_changing_a_token_changes_no_logit_before_it(
    float64: None, options: dict[str, Any]
) -> None:
    config = tiny(**{"gate_n_fft": GATE, "context_length": 130, **options})
    model = moved(config)

    for length in (1, 2, 63, 64, 65, 130):
        # Row t has another token t; the last row has none.
        changed = tokens_of(config, 1, length).repeat(length + 1, 1)
        index = torch.arange(length)
        changed[index, index] = (changed[index, index] + 1) % config.vocab_size

        with torch.no_grad():
            logits = model(changed)

        # By changed token and position of the logit.
        difference = (logits[:-1] - logits[-1]).abs().amax(-1)
        # Before t the same float64 numbers are summed, to logits of size 10.
        assert difference.tril(-1).max() <= 1e-12
        assert difference.diagonal().min() > 1e-6


def in_pieces(model: nn.Module, tokens: Tensor, lengths: tuple[int, ...]) -> Tensor:
    state = model.state()
    return torch.cat([model(piece, state) for piece in tokens.split(lengths, dim=1)], dim=1)


DECODED = {
    **VARIANTS,
    "longer than the gate": {"base": "sgrpsann", "gate_n_fft": GATE, "context_length": 130},
}


@pytest.mark.parametrize("options", DECODED.values(), ids=DECODED)
def test_cached_decoding_equals_the_whole_forward(float64: None, options: dict[str, Any]) -> None:
    config = tiny(**options)
    n = config.context_length
    model, tokens = moved(config), tokens_of(config, 2, n)

    with torch.no_grad():
        whole = model(tokens)
        for lengths in ((5, 1, 1, 7, 1, n - 15), (1,) * n, (1, 2, n - 3)):
            pieces = in_pieces(model, tokens, lengths)

            # Other summation orders in float64, through two layers, at logits of size 10.
            torch.testing.assert_close(pieces, whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
@pytest.mark.parametrize(
    "options",
    [{"base": "waveresnet", "wave": "none"}, {"base": "sgrpsann", "gate_strength": 0.0}],
    ids=["waveresnet", "sgrpsann"],
)
def test_a_base_without_its_own_part_is_a_respsann(options: dict[str, Any], positions: str) -> None:
    other = build(tiny(**options, positions=positions), seed=0).eval()
    plain = build(tiny(base="respsann", positions=positions), seed=1).eval()
    tokens = tokens_of(plain.config, 2, 20)
    assert not torch.equal(plain(tokens), other(tokens))

    shared = {name: other.state_dict()[name] for name in plain.state_dict()}
    plain.load_state_dict(shared)

    assert torch.equal(plain(tokens), other(tokens))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_weights_are_drawn_from_the_seed_alone_and_for_each_layer(options: dict[str, Any]) -> None:
    config, before = tiny(**options, freq_init_std=0.5), torch.get_rng_state()

    first = build(config, seed=0).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(999)
    again, other = (build(config, seed=seed).state_dict() for seed in (0, 1))

    drawn = [name for name, weight in first.items() if weight.dim() == 2 and "mask" not in name]
    assert len(drawn) > 4
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in drawn)
    for name in drawn:
        if name.startswith("blocks.0."):
            assert not torch.equal(first[name], first[name.replace("blocks.0.", "blocks.1.")])


@pytest.mark.parametrize("base", BASES)
def test_bases_start_with_equal_weights_where_they_have_the_same_module(base: str) -> None:
    first, second = (build(tiny(base=name), seed=0).state_dict() for name in ("respsann", base))

    common = first.keys() & second.keys()

    for part in ("embedding", "lm_head", "attention.to_qkv", "attention.out", "mlp.up", "mlp.out"):
        assert any(part in name for name in common)
    assert all(torch.equal(first[name], second[name]) for name in common)


@pytest.mark.parametrize("base", BASES)
def test_initial_weights_have_the_spread_asked_for(base: str) -> None:
    model = build(tiny(base=base, d_model=64, d_mlp=64, n_layers=8, init_std=0.1), seed=0)

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            # What writes to the stream is narrower by 1 / sqrt(2 layers), here 1 / 4.
            expected = 0.1 / 4 if name.endswith(".out") else 0.1
            # A spread from n draws is known to 1 / sqrt(2 n); five of them for about 40 tensors.
            spread = module.weight.std().item()
            bound = 5 / math.sqrt(2 * module.weight.numel())
            assert spread == pytest.approx(expected, rel=bound)
            assert module.bias is None or (module.bias == 0).all()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown base 'resnet', did you mean 'waveresnet'? There are: respsann, "),
        ("zzz", "unknown base 'zzz'. There are: respsann, sgrpsann, waveresnet, transformer"),
    ],
)
def test_an_unknown_base_is_refused_with_the_nearest_name(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        build(tiny(base=name), seed=0)


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_every_parameter_receives_a_gradient(options: dict[str, Any]) -> None:
    config = tiny(**options)

    for model in (moved(config), build(config, seed=0)):
        for name, gradient in loss_and_gradients(model, tokens_of(config, 4, 20))[1].items():
            assert gradient is not None, name
            assert gradient.isfinite().all(), name
            assert (gradient != 0).any(), name


class Shortcut(Block):
    """x += linear(x): a base that exists in this file alone, as a class and a line."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__(config, layer)
        self.linear = nn.Linear(config.d_model, config.d_model, bias=False)

    def forward(self, x: Tensor, past: Rows | None = None, position: int = 0) -> Tensor:
        x = self.attend(x, past, position)
        return x + self.linear(self.mlp_norm(x))

    @classmethod
    def cost(cls, config: ModelConfig, shape: Shape) -> Cost:
        size = config.d_model**2
        own = Cost({"linear": size}, {"linear": 2 * shape.total * size})
        return super().cost(config, shape) + cost.norm(config.d_model) + own

    @classmethod
    def saved(cls, config: ModelConfig, step: Step, layer: int) -> SavedActivations:
        own = SavedActivations(Counter({"linear": step.item * step.n * config.d_model}))
        if step.casts:
            own.kinds["weights cast"] = step.item * config.d_model**2
        return super().saved(config, step, layer) + saved_activations.norm(config, step) + own


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_new_base_learns_decodes_and_states_what_it_costs(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setitem(bases.BASES, "shortcut", Shortcut)  # type: ignore[arg-type]
    config = tiny(base="shortcut", d_model=16)
    model, tokens = moved(config), tokens_of(config, 2, 12)

    assert base_of(config) is Shortcut
    with pytest.raises(ConfigError, match="did you mean 'shortcut'"):
        build(tiny(base="shortcuts"), seed=0)
    pieces = in_pieces(model, tokens, (4, 1, 5, 2))
    # float32 logits of size 10.
    torch.testing.assert_close(pieces, model(tokens), atol=1e-4, rtol=0)
    own = cost_of(config, Shape(2, 6))
    assert own.n_parameters == sum(parameter.numel() for parameter in model.parameters())
    assert own.flops["linear"] == 2 * (2 * 12 * 16 * 16)
    _, gradients = loss_and_gradients(model, tokens)
    assert all(g is not None and g.any() for g in gradients.values())
    objective = NextToken(model, precision, 64).train()
    predicted = predicted_bytes(config, Step(Shape(2, 12), precision, "cpu"))
    assert predicted == saved_by(lambda: objective(tokens, tokens_of(config, 2, 12, seed=3)), model)
