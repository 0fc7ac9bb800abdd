"""What one process measures, run here in this one."""

import dataclasses
import json
import math

import pytest
import torch

from psannlm.bench import ceiling, processes, steps
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.throughput import worker
from psannlm.pages.throughput.worker import Task, measure
from tests.synthetic import SMALL_TASK, throughput_config


def task(base: str = "respsann", vocab_size: int = 64, **changes) -> Task:
    network = throughput_config().network_of(base, vocab_size=vocab_size)
    values = {"model": network.model_dump(), "batch_tokens": 32, "compile": False}
    return Task(**SMALL_TASK | values | {"modes": ("forward", "train_step")} | changes)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("mode", ["forward", "train_step"])
def test_a_mode_is_timed_in_every_precision(mode, precision):
    found = measure(task(precision=precision), mode)

    assert len(found["seconds"]) >= 2
    assert all(second > 0 for second in found["seconds"])


def test_flops_are_those_of_the_network_and_three_times_as_many_in_training():
    forward = cost_of(task().config, Shape(2, 16)).model_flops

    assert measure(task(), "forward")["flops"] == forward
    assert measure(task(), "train_step")["flops"] == 3 * forward


def test_a_training_step_trains():
    few, many = (measure(task(min_steps=n), "train_step") for n in (3, 60))

    # One batch again and again: its loss must fall well below that of a blind guess.
    assert many["loss"] < few["loss"]
    assert many["loss"] < math.log(64) - 0.5


def test_the_ceiling_counts_a_square_product(monkeypatch):
    monkeypatch.setattr(ceiling, "SIZES", {"cpu": (32,)})

    assert measure(task(), "matmul")["flops"] == 2 * 32**3


def test_what_cannot_fit_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 2**20)

    with pytest.raises(MemoryError, match=r"needs at least .* \(weights and logits alone\)"):
        measure(task(vocab_size=10**5), "train_step")


def test_a_loss_that_is_not_finite_is_a_failure(monkeypatch):
    monkeypatch.setattr(steps, "cross_entropy", lambda a, b: a.sum() * float("nan"))

    with pytest.raises(ArithmeticError, match="loss is nan"):
        measure(task(), "train_step")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
def test_compilation_is_timed_apart():
    found = measure(task(compile=True), "forward")

    assert found["compiled"]
    assert found["compile_seconds"] > 10 * max(found["seconds"])


def test_a_missing_compiler_leaves_the_row_eager(monkeypatch):
    monkeypatch.setattr(worker, "missing_compiler", lambda device: "none found")

    found = measure(task(compile=True), "forward")

    assert not found["compiled"]
    assert found["compile_seconds"] is None


on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.gpu
@on_gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("base", ["respsann", "sgrpsann", "waveresnet", "transformer"])
def test_a_gpu_trains_every_base_and_tells_its_memory(base, precision, compiled):
    wanted = task(base=base, device="cuda", precision=precision, compile=compiled)
    found = measure(wanted, "train_step")

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
    huge = task(device="cuda", batch_tokens=2**26, vocab_size=2**16)
    (tmp_path / "task.json").write_text(json.dumps(dataclasses.asdict(huge)))

    processes.serve(Task, measure, [tmp_path / "task.json", tmp_path / "result.jsonl"])

    rows = [json.loads(line) for line in (tmp_path / "result.jsonl").read_text().splitlines()]
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert all(row["reason"].startswith("out of memory") for row in rows)
