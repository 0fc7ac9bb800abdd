"""The memory of one network, measured here in this process."""

from typing import Any

import pytest
import torch

from psannlm.bench import processes
from psannlm.model.cost import Shape, training_bytes
from psannlm.model.saved_activations import Step
from psannlm.model.sine import DampedSine
from psannlm.pages.memory import worker as memory
from psannlm.pages.memory.worker import MemoryTask, Training
from tests.networks import tiny
from tests.synthetic import SMALL_TASK

CPU = torch.device("cpu")
WIDE = {"vocab_size": 50, "d_model": 16, "d_mlp": 48, "context_length": 16}


def task(base: str = "respsann", checkpoint: bool = False, **changes: Any) -> MemoryTask:
    model = tiny(base=base, grad_checkpoint=checkpoint, **WIDE).model_dump()
    values = {"model": model, "variant": "default", "chunk_tokens": 8}
    return MemoryTask(**SMALL_TASK | values | changes)


def measure(**changes: Any) -> dict[str, Any]:
    return memory.measure(task(**changes), "train_step")


def saved(**changes: Any) -> int:
    return Training(task(**changes), CPU).saved().total


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_is_measured_and_memory_of_a_cpu_is_never_called_reserved(precision):
    found = measure(precision=precision)

    assert found["saved_bytes"] == sum(found["saved_kinds"].values()) > 0
    assert len(found["seconds"]) >= 2
    assert all(second > 0 for second in found["seconds"])
    assert 0 < found["loss"] < 10
    assert found["peak_rss_bytes"] >= found["rss_before_bytes"] > 2**20
    assert "peak_reserved_bytes" not in found


def test_the_peak_holds_weights_their_optimizer_and_what_is_saved():
    found = measure()
    parameters = list(Training(task(), CPU).model.parameters())

    held = training_bytes(sum(p.numel() for p in parameters))
    outside = held["parameters"] + held["optimizer"]
    assert found["peak_allocated_bytes"] > outside + found["saved_bytes"]
    # What backward computes on the way is of the size of what is saved.
    assert found["peak_allocated_bytes"] < sum(held.values()) + 3 * found["saved_bytes"]


def test_what_is_not_compared_is_timed_without_waiting_for_steady_steps(monkeypatch):
    monkeypatch.setattr(MemoryTask, "timing_of", None)

    assert len(measure(compared=False, min_steps=3, min_seconds=9.0)["seconds"]) == 3


@pytest.mark.parametrize("base", ["respsann", "transformer"])
def test_checkpointing_saves_less(base):
    assert saved(base=base, checkpoint=True) < 0.6 * saved(base=base)


def test_a_chunked_loss_saves_the_logits():
    chunked, plain = (Training(task(variant=v), CPU).saved() for v in ("default", "plain_loss"))

    logits = {"float32 64x50": 64 * 50 * 4}
    assert logits.items() <= plain.kinds.items()
    assert not logits.keys() & chunked.kinds.keys()
    # Of its own it keeps the gradients of hidden features and head.
    kept = 64 * 16 * 4 + 50 * 16 * 4
    assert plain.total >= chunked.total + logits["float32 64x50"] - kept


def test_a_plain_sine_saves_more_and_computes_the_same():
    fast, plain = (Training(task(variant=v), CPU) for v in ("default", "plain_sine"))

    # At least phase, sine, size and decay of each of the features between the projections.
    assert plain.saved().total > fast.saved().total + 3 * 2 * 64 * 48 * 4
    loss = fast.loss_of(*fast.batch).item()
    assert plain.loss_of(*plain.batch).item() == pytest.approx(loss, rel=1e-6)
    assert any(isinstance(module, DampedSine) for module in fast.model.modules())
    assert saved(base="transformer") == saved(base="transformer", variant="plain_sine")


def test_counting_depends_on_the_task_alone_and_changes_nothing_of_what_is_trained():
    counted, other = Training(task(), CPU), Training(task(), CPU)

    first = counted.saved().kinds
    for training in (counted, other):
        training.step()

    pairs = zip(counted.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert counted.saved().kinds == first


def test_what_cannot_fit_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 2**30)
    monkeypatch.setattr(memory, "training_memory", lambda *a, **o: {"peak": 2**40})
    monkeypatch.setattr(memory, "build", lambda *a, **o: pytest.fail("it was tried"))

    with pytest.raises(MemoryError, match=r"needs at least 1024\.0 GiB \(by construction\)"):
        measure()


def test_a_loss_that_is_not_finite_is_a_failure(monkeypatch):
    def broken(model, *options):
        return lambda tokens, targets: model(tokens).sum() * float("nan")

    monkeypatch.setattr(memory, "NextToken", broken)

    with pytest.raises(ArithmeticError, match=r"loss is nan after \d+ timed steps"):
        measure()


def test_the_prediction_is_asked_for_what_is_measured(monkeypatch):
    monkeypatch.setattr(memory, "training_memory", lambda *asked: asked)
    wanted = task(checkpoint=True, precision="bf16", variant="plain_loss")

    step = Step(Shape(4, 16), "bf16", "cpu", "plain_loss")
    assert memory.predicted(wanted) == (wanted.config, step, 8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_tells_its_peaks(precision):
    found = measure(precision=precision, device="cuda")

    assert found["peak_reserved_bytes"] >= found["peak_allocated_bytes"] > found["saved_bytes"]
    assert found["rss_before_bytes"] is None
