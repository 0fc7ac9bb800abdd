"""What backward needs is counted once, whole, and as the allocator sees it; so is a step's peak."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from psannlm.bench.timing import MARK, _peak, peak_of_second_step, saved_for_backward
from psannlm.device import autocast
from tests.networks import moved, tiny, tokens_of


def test_each_factor_of_a_product_is_kept_but_parameters_are_not_counted():
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5, requires_grad=True)
    layer, x = nn.Linear(4, 6), torch.randn(2, 4)

    with saved_for_backward([]) as product:
        _ = a * b
    with saved_for_backward(layer.parameters()) as linear:
        layer(layer.weight.new_zeros(2, 4) + x)

    assert product.total == 2 * 3 * 5 * 4
    assert product.kinds == {"float32 3x5": 2 * 3 * 5 * 4}
    assert linear.kinds == {"float32 2x4": 2 * 4 * 4}


def test_views_are_one_storage_and_count_as_the_whole_of_it():
    x = torch.randn(8, 10, requires_grad=True).sin()

    with saved_for_backward([x]) as excluded:
        _ = x[:2] * x[2:4]
    with saved_for_backward([]) as saved:
        _ = x[:1] * x[2:4]

    assert excluded.total == 0
    assert saved.kinds == {"float32 2x10": 8 * 10 * 4}


def test_what_is_freed_at_once_does_not_lend_its_address_to_another():
    x = torch.randn(1000, requires_grad=True)

    with saved_for_backward([]) as saved:
        for _ in range(5):
            x.sin().exp()  # dropped at once: the next may come to lie in the same place

    assert saved.total == (1 + 5) * 1000 * 4
    assert all(t.untyped_storage().data_ptr() == place for place, t in saved.storages.items())


def test_gradients_are_those_without_counting():
    x = torch.randn(100, requires_grad=True)

    expected = torch.autograd.grad((x.sin().exp() * x).sum(), x)
    with saved_for_backward([x]):
        counted = (x.sin().exp() * x).sum()

    assert torch.equal(torch.autograd.grad(counted, x)[0], expected[0])


def held_after(forward: Callable[[], Tensor], trace: Path) -> int:
    """Bytes that torch's allocator gave out in `forward` and did not get back within it."""
    with (
        profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record,
        record_function("forward"),
    ):
        result = forward()
    del result
    record.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text())["traceEvents"]
    [mark] = [e for e in events if e["name"] == "forward"]
    return sum(
        e["args"]["Bytes"]
        for e in events
        if e["name"] == "[memory]" and mark["ts"] <= e["ts"] <= mark["ts"] + mark["dur"]
    )


@pytest.mark.parametrize("checkpointed", [False, True], ids=["plain", "checkpointed"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("base", ["respsann", "sgrpsann", "waveresnet", "transformer"])
def test_the_count_is_what_the_allocator_still_holds_after_a_forward_pass(
    base: str, precision: str, checkpointed: bool, tmp_path: Path
):
    config = tiny(base=base, grad_checkpoint=checkpointed)
    model, text = moved(config).train(), tokens_of(config, 2, 16)
    there = {t.untyped_storage().data_ptr() for t in (*model.buffers(), text)}

    def forward() -> Tensor:
        with autocast(text.device, precision):
            logits = model(text)
        return logits.float().square().sum()

    with saved_for_backward(model.parameters()) as saved:
        loss = forward()
    new = sum(
        t.untyped_storage().nbytes()
        for address, t in saved.storages.items()
        if address not in there
    )
    # Each checkpoint keeps the state of the random numbers, which is no tensor of the graph.
    states = config.n_layers * torch.get_rng_state().nbytes if checkpointed else 0

    assert held_after(forward, tmp_path / "trace.json") == new + loss.nbytes + states


def test_the_peak_counts_what_was_built_what_is_kept_and_what_lives_at_one_time():
    def make():
        built, kept = torch.zeros(1000), []
        torch.zeros(10**6)  # dropped before the step

        def step():
            if not kept:
                kept.append(torch.zeros(70))
                torch.zeros(10**6)  # of the first step alone
            a = torch.zeros(2000)
            b = torch.zeros(3000)
            del a
            c = torch.zeros(2500)
            del b, c
            return built

        return step

    # The largest pair is 3000 with 2500, not 2000 with 3000.
    assert peak_of_second_step(make) == 4 * (1000 + 70 + 3000 + 2500)


def test_memory_of_a_backward_pass_is_seen():
    def make():
        x = torch.zeros(1000, requires_grad=True)

        def step():
            x.grad = None
            y = x.exp()  # saved for backward
            y.backward(torch.ones(()).expand(1000))

        return step

    # The parameter, the result, and the gradient by it, which is there before the old one is.
    assert peak_of_second_step(make) == 4 * 3000 + 4


def memory(ts: float, address: int, size: int) -> dict[str, object]:
    return {"name": "[memory]", "ts": ts, "args": {"Addr": address, "Bytes": size}}


@pytest.mark.parametrize(
    ("events", "peak"),
    [
        ([(1, 1, 100), (2, 7, -5000), (12, 3, 40), (15, 3, -40)], 140),
        ([(1, 1, 100), (2, 2, 900), (4, 2, -900), (12, 3, 40), (25, 4, 700)], 140),
        ([(1, 1, 600), (2, 2, 400), (12, 1, -600), (15, 3, 500)], 1000),
    ],
    ids=["freed from before the record", "outside the step", "at its beginning"],
)
def test_only_the_step_counts_and_frees_only_what_was_given_out_on_record(events, peak):
    mark = {"name": MARK, "cat": "user_annotation", "ts": 10.0, "dur": 10.0}

    assert _peak([*(memory(*event) for event in events), mark]) == peak
