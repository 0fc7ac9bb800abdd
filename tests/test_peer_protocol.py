"""The original's own protocol, on networks whose every number is known."""

from types import SimpleNamespace

import pytest
import torch

from psannlm.config.network import ModelConfig
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.peer import protocol as peer_protocol
from psannlm.pages.peer.ours import Ours
from psannlm.pages.peer.protocol import CHECKS, N_STEPS, N_WARMUP, WIDE, measure
from tests.peers import TOOLS, side_task
from tests.standing_alone import foreign_imports


def wide(context_length: int) -> ModelConfig:
    return ModelConfig(base="respsann", context_length=context_length, **WIDE)


def test_the_network_of_the_throughput_has_the_size_that_the_original_has():
    n_parameters = cost_of(wide(256), Shape(1, 256)).n_parameters
    ends = 2 * WIDE["vocab_size"] * WIDE["d_model"]

    assert n_parameters == pytest.approx(19.5e6, rel=0.005)
    assert ends / n_parameters == pytest.approx(0.84, abs=0.005)


def test_large_batches_cost_what_the_published_speed_leaves_for_a_token():
    flops = sum(
        2 * (4 * 256**2 + 2 * 256 * 1024) + 4 * length * 256
        for length in [CHECKS["GPU-03"].context_length(131_072)] * 4
    )

    assert flops + 2 * 32_000 * 256 == pytest.approx(39.5e6, rel=0.01)


@pytest.mark.parametrize(
    ("batch_tokens", "expected"),
    [(1024, 256), (65_536, 4096), (131_072, 4096), (100, 100), (5000, 256)],
)
def test_the_sanity_throughput_is_that_of_four_short_sequences(batch_tokens, expected):
    assert CHECKS["GPU-03"].context_length(batch_tokens) == expected


def test_checks_of_one_sequence_have_no_other_batch():
    assert CHECKS["GPU-02"].batches([1024, 65_536]) == (13,)
    assert CHECKS["GPU-04"].batches([1024, 65_536]) == (64,)
    assert CHECKS["GPU-03"].batches([1024, 65_536]) == (1024, 65_536)


class Spoken:
    """A network whose loss is read off its only weight, and which notes the clock's steps."""

    def __init__(self) -> None:
        self.n_calls = 0
        self.modes = []

    def network(self, *, checkpointing: bool = False) -> "Spoken":
        return self

    def eval(self) -> "Spoken":
        self.modes.append("eval")
        return self

    def __call__(self, tokens):
        self.n_calls += 1
        assert not torch.is_grad_enabled()
        return torch.zeros(*tokens.shape, 24)


def test_parity_is_the_relative_difference_of_a_loss_that_predicts_its_own_input():
    asked = []

    def next_token_loss(model, tokens, targets, dtype):
        asked.append((torch.equal(tokens, targets), dtype))
        return torch.tensor(4.0 if dtype is None else 3.0)

    tools = SimpleNamespace(
        **vars(TOOLS) | {"saved_worker": SimpleNamespace(next_token_loss=next_token_loss)}
    )

    found = measure(Spoken(), side_task(batch=1, tokens=13), "GPU-02", tools)

    assert found == {"values": {"rel_diff": (0.25, "")}}
    assert asked == [(True, None), (True, torch.bfloat16)]


def test_the_speed_is_that_of_one_window_after_a_warm_up(monkeypatch):
    side = Spoken()
    monkeypatch.setattr(peer_protocol.time, "perf_counter", lambda: float(side.n_calls))

    found = measure(side, side_task(), "GPU-03", TOOLS)

    assert side.n_calls == N_WARMUP + N_STEPS == 25
    assert side.modes == ["eval"]
    assert found["values"]["tokens_per_s"] == (20 * 16 / 20, "")


def test_a_checkpointed_step_keeps_less_than_a_plain_one_and_a_cpu_has_no_peak():
    task = side_task(batch=1, tokens=8)
    side = Ours(task)

    values = measure(side, task, "GPU-04", TOOLS)["values"]

    assert set(values) == set(CHECKS["GPU-04"].measures)
    assert values["max_allocated_mib"] == (None, "only a GPU's allocator tells its peak")
    assert values["max_reserved_mib"][0] is None
    assert values["elapsed_s"][0] > 0
    plain = TOOLS.works.measure(side, task, "saved", TOOLS)["saved_bytes"]
    assert 0 < values["saved_mib"][0] < plain / 2**20


def test_it_needs_torch_alone():
    assert foreign_imports(peer_protocol) == set()
