"""What one process of memory or throughput measures, run here in this one."""

import dataclasses
import json
import math
from typing import Any

import pytest
import torch

from psannlm.bench import processes, steps
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape, training_bytes
from psannlm.model.saved_activations import Step
from psannlm.model.sine import DampedSine
from psannlm.pages.memory import worker as memory
from psannlm.pages.memory.worker import MemoryTask, Training
from psannlm.pages.throughput import worker as throughput
from psannlm.pages.throughput.worker import Task
from tests.networks import tiny
from tests.synthetic import SMALL_TASK, throughput_config

CPU = torch.device("cpu")
WIDE = {"vocab_size": 50, "d_model": 16, "d_mlp": 48, "context_length": 16}
PRECISIONS = pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])


def task(base: str = "respsann", checkpoint: bool = False, **changes: Any) -> MemoryTask:
    model = tiny(base=base, grad_checkpoint=checkpoint, **WIDE).model_dump()
    values = {"model": model, "variant": "default", "chunk_tokens": 8}
    return MemoryTask(**SMALL_TASK | values | changes)


def measure(**changes: Any) -> dict[str, Any]:
    return memory.measure(task(**changes), "train_step")


def saved(**changes: Any) -> int:
    return Training(task(**changes), CPU).saved().total


def speed_task(base: str = "respsann", vocab_size: int = 64, **changes: Any) -> Task:
    network = throughput_config().network_of(base, vocab_size=vocab_size)
    values = {"model": network.model_dump(), "batch_tokens": 32, "compile": False}
    return Task(**SMALL_TASK | values | {"modes": ("forward", "train_step")} | changes)


def timed(mode: str = "train_step", **changes: Any) -> dict[str, Any]:
    return throughput.measure(speed_task(**changes), mode)


@PRECISIONS
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


@PRECISIONS
@pytest.mark.parametrize("mode", ["forward", "train_step"])
def test_a_mode_is_timed_in_every_precision(mode, precision):
    found = timed(mode, precision=precision)

    assert len(found["seconds"]) >= 2
    assert all(second > 0 for second in found["seconds"])


def test_flops_are_counted_of_one_step_and_of_the_square_product_of_the_ceiling(monkeypatch):
    monkeypatch.setattr(steps, "SIZES", {"cpu": (32,)})
    forward = cost_of(speed_task().config, Shape(2, 16)).model_flops

    assert timed("forward")["flops"] == forward
    assert timed("train_step")["flops"] == 3 * forward
    assert timed("matmul")["flops"] == 2 * 32**3


def test_a_training_step_trains():
    few, many = timed(min_steps=3), timed(min_steps=60)

    # One batch again and again: its loss must fall well below that of a blind guess.
    assert many["loss"] < few["loss"]
    assert many["loss"] < math.log(64) - 0.5


@pytest.mark.parametrize(
    ("measured", "needed"),
    [
        (measure, r"1024\.0 GiB \(by construction\)"),
        (lambda: timed(vocab_size=2**22), r".* \(weights and logits alone\)"),
    ],
)
def test_what_cannot_fit_is_refused_before_it_is_tried(monkeypatch, measured, needed):
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 2**30)
    monkeypatch.setattr(memory, "training_memory", lambda *a, **o: {"peak": 2**40})
    for module in (memory, throughput):
        monkeypatch.setattr(module, "build", lambda *a, **o: pytest.fail("it was tried"))

    with pytest.raises(MemoryError, match=f"needs at least {needed}"):
        measured()


@pytest.mark.parametrize("measured", [measure, timed])
def test_a_loss_that_is_not_finite_is_a_failure(monkeypatch, measured):
    def broken(model, *options):
        return lambda tokens, targets: model(tokens).sum() * float("nan")

    monkeypatch.setattr(memory, "NextToken", broken)
    monkeypatch.setattr(steps, "plain_loss", broken)

    with pytest.raises(ArithmeticError, match=r"loss is nan after \d+ timed steps"):
        measured()


def test_the_prediction_is_asked_for_what_is_measured(monkeypatch):
    monkeypatch.setattr(memory, "training_memory", lambda *asked: asked)
    wanted = task(checkpoint=True, precision="bf16", variant="plain_loss")

    step = Step(Shape(4, 16), "bf16", "cpu", "plain_loss")
    assert memory.predicted(wanted) == (wanted.config, step, 8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compilation_is_timed_apart():
    found = timed("forward", compile=True)

    assert found["compiled"]
    assert (found["graph_breaks"], found["eager"]) == (0, "")
    assert found["frames"] == 1
    assert found["compile_seconds"] > 10 * max(found["seconds"])


def test_a_missing_compiler_leaves_the_row_eager(monkeypatch):
    monkeypatch.setattr(throughput, "missing_compiler", lambda device: "none found")

    found = timed("forward", compile=True)

    assert (found["compiled"], found["eager"]) == (False, "none found")
    assert found["compile_seconds"] is None


@pytest.mark.parametrize("mode", ["forward", "train_step"])
@pytest.mark.parametrize("error", [None, ValueError("no such\noperation")])
def test_a_step_that_ran_eagerly_is_never_called_compiled(mode, error, uncompilable):
    uncompilable(error)

    found = timed(mode, compile=True)

    why = "ValueError: no such" if error else "torch.compile compiled nothing"
    assert found["eager"].endswith(why)
    assert (found["compiled"], found["frames"], found["compile_seconds"]) == (False, 0, None)
    assert len(found["seconds"]) >= 2
    assert (found["loss"] is None) == (mode == "forward")


def test_what_fails_eagerly_too_fails(monkeypatch):
    monkeypatch.setattr(throughput.steps, "finite_loss", lambda *_: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        timed("train_step", compile=True)


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@on_gpu
@PRECISIONS
def test_a_gpu_tells_its_peaks(precision):
    found = measure(precision=precision, device="cuda")

    assert found["peak_reserved_bytes"] >= found["peak_allocated_bytes"] > found["saved_bytes"]
    assert found["rss_before_bytes"] is None


@pytest.mark.gpu
@on_gpu
@PRECISIONS
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("base", ["respsann", "sgrpsann", "waveresnet", "transformer"])
def test_a_gpu_trains_every_base_and_tells_its_memory(base, precision, compiled):
    wanted = speed_task(base=base, device="cuda", precision=precision, compile=compiled)
    found = throughput.measure(wanted, "train_step")

    assert found["compiled"] == compiled
    assert math.isfinite(found["loss"])
    # Weights, gradients and two moments, four bytes each, are there at the peak.
    n_parameters = cost_of(wanted.config, wanted.shape).n_parameters
    assert found["peak_allocated_bytes"] > 16 * n_parameters
    assert found["peak_reserved_bytes"] >= found["peak_allocated_bytes"]


@pytest.mark.gpu
@on_gpu
def test_memory_that_runs_out_on_a_gpu_is_a_row(tmp_path, monkeypatch):
    monkeypatch.setattr("psannlm.bench.worker.stop_when_orphaned", lambda: None)
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 2**60)
    huge = speed_task(device="cuda", batch_tokens=2**26, vocab_size=2**16)
    (tmp_path / "task.json").write_text(json.dumps(dataclasses.asdict(huge)))

    processes.serve(Task, throughput.measure, [tmp_path / "task.json", tmp_path / "result.jsonl"])

    rows = [json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert all(row["reason"].startswith("out of memory") for row in rows)
