"""What the process of one training of a shootout tells, run here in this one."""

import dataclasses
import functools
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from psannlm.bench.processes import ForkServer, run_task
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.pages.shootout import worker as training_worker
from psannlm.pages.shootout.arms import all_arms
from psannlm.pages.shootout.measure import record_of
from psannlm.pages.shootout.plan import Cell, training_of
from psannlm.pages.shootout.records import Score, Setting, TrainingRecord, from_json
from psannlm.pages.shootout.worker import COMPILER, TrainingTask, leak_of, learned, main, measure
from psannlm.train import trainer
from psannlm.train.checkpoint import checkpoints
from psannlm.train.data import read
from psannlm.train.trainer import Trainer
from tests.synthetic_shootout import shootout_config
from tests.twins_network import attend_to_all

TIMES = {
    "train_seconds", "train_tokens_per_s", "overhead_seconds", "peak_rss_bytes",
    "peak_allocated_bytes",
}  # fmt: skip
SHOOTOUT = shootout_config(
    vocab_size=257, tokenizer="bytes", n_layers=1, train_megabytes=0.002,
    validation_megabytes=0.001, batch_tokens=256, pass_tokens=256, checkpoint_steps=3,
)  # fmt: skip
CELL = Cell(all_arms()["respsann"], Setting(0.003, 1.0, 0.02, SHOOTOUT.learnable), 1, final=True)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        cache = tmp_path_factory.mktemp("cache")
        patch.setattr(trainer, "read", functools.partial(read, cache=cache))
        yield


def config_of(arm: str, **changes: Any) -> TrainingConfig:
    config = training_of(dataclasses.replace(CELL, arm=all_arms()[arm]), SHOOTOUT)
    return config.model_copy(update=changes)


def task_of(folder: Path, *, final: bool = True, **changes: Any) -> TrainingTask:
    config = config_of("respsann", **changes).model_dump(mode="json")
    return TrainingTask("k", config, final, 50.0, {}, str(folder / "training"), time.time())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingTask, Any]:
    """A task, and what was found of it."""
    task = task_of(tmp_path_factory.mktemp("finished"))
    return task, measure(task, "training")


def test_all_is_told_that_the_plan_does_not_know_and_makes_a_record(finished) -> None:
    _, found = finished
    names = [field.name for field in dataclasses.fields(TrainingRecord)]

    record = record_of("k", CELL, SHOOTOUT, {"status": "ok", "reason": "", **found})

    assert record.status == "ok"
    assert set(found) == {*names[names.index("n_steps") :]} - {"peak_allocated_bytes"}  # of a GPU
    assert from_json(record.as_json()) == record
    assert record.curve[-1].val_loss == record.val_loss


def test_curve_documents_and_times_are_those_of_the_log(finished) -> None:
    task, found = finished
    speed = pd.read_csv(Path(task.folder, "speed.csv"))
    curve, documents = found["curve"], found["documents"]

    assert [point.step for point in curve] == [4, 8]
    for point in curve:
        assert point.tokens == point.step * 256
        spent = speed["step_seconds"][speed["step"] <= point.step].sum()
        assert point.seconds == pytest.approx(spent, rel=1e-12)
    last = (found["train_tokens"], found["train_seconds"], found["val_loss"])
    assert curve[-1][1:] == last
    assert found["train_seconds"] < speed["elapsed_seconds"].iloc[-1]  # with evaluations
    nats = sum(document.nats for document in documents)
    assert nats == pytest.approx(found["val_loss"] * found["val_tokens"], rel=1e-12)
    assert sum(document.n_tokens for document in documents) == found["val_tokens"]
    assert speed["step_seconds"][0] < found["overhead_seconds"] < 60
    assert found["peak_rss_bytes"] > 100 * 2**20
    assert found["compiled"] is False
    assert found["train_tokens_per_s"] > 0


def test_a_network_that_sees_the_future_leaks_and_a_sound_one_does_not(
    monkeypatch, tmp_path, finished
) -> None:
    attend_to_all(monkeypatch, lambda attention: True)

    found = measure(task_of(tmp_path, epochs=0.25), "training")

    assert finished[1]["leak"] < 1e-12
    assert found["leak"] > 1e-4


def test_a_leak_is_looked_for_in_float64_on_a_whole_context(monkeypatch) -> None:
    config, seen = config_of("respsann"), []

    def noted(model: Transformer, tokens: torch.Tensor) -> float:
        seen.append((model(tokens).dtype, tokens.tolist()))
        return 0.25

    monkeypatch.setattr(training_worker, "leak", noted)
    tokens, model = trainer.read(config).validation, build(config.network, seed=0)

    assert leak_of(model, tokens) == 0.25
    assert seen == [(torch.float64, [tokens.ids[: config.context_length].tolist()])]
    assert model.lm_head.weight.dtype == torch.float32
    assert model.training


def test_logits_that_are_no_number_are_a_failure() -> None:
    config = config_of("respsann")
    model = build(config.network, seed=0)
    with torch.no_grad():
        model.norm.weight.fill_(math.inf)

    with pytest.raises(ArithmeticError, match="a logit of the trained network is not finite"):
        leak_of(model, trainer.read(config).validation)


def test_the_test_split_is_left_alone_unless_the_training_is_compared(
    monkeypatch, tmp_path, finished
) -> None:
    evaluated, evaluate = [], Trainer.evaluate

    def noted(trainer: Trainer, tokens: Any) -> Any:
        evaluated.append(tokens is trainer.data.test)
        return evaluate(trainer, tokens)

    monkeypatch.setattr(Trainer, "evaluate", noted)

    tuned = measure(task_of(tmp_path, final=False), "training")

    assert evaluated == [False, False]
    assert {tuned[f"test_{name}"] for name in ("loss", "top1", "tokens", "bytes")} == {None}
    assert tuned["val_loss"] == finished[1]["val_loss"]
    assert min(finished[1]["test_loss"], finished[1]["test_tokens"]) > 0


def test_learned_parameters_are_told_layer_by_layer() -> None:
    config = config_of("waveresnet").network
    before, after = build(config, seed=1), build(config, seed=1)
    sine = after.blocks[0].mlp.nonlinearity
    spread = torch.linspace(-1, 1, config.d_mlp)
    with torch.no_grad():
        sine.raw_frequency += spread

    rows = list(learned(before, after))

    assert [(row.layer, row.part) for row in rows] == [
        (layer, part)
        for layer in ("0 mlp", "0 wave")
        for part in ("amplitude", "frequency", "decay")
    ]
    found = rows[1]
    values = np.log1p(np.exp(np.log(np.expm1(1)) + spread.numpy()))
    low, high = np.quantile(values, (0.05, 0.95))
    assert found[2:] == pytest.approx((1.0, np.mean(values), low, high), rel=1e-5)


@pytest.mark.parametrize(
    ("arm", "parts"), [("gelu_scaled", ["amplitude", "frequency"]), ("gelu", [])]
)
def test_a_scaled_gelu_tells_its_gains_and_a_plain_one_has_none(arm: str, parts: list[str]) -> None:
    network = build(config_of(arm).network, seed=0)

    assert [row.part for row in learned(network, network)] == parts


def test_a_killed_training_goes_on_and_tells_the_same(monkeypatch, tmp_path, finished) -> None:
    task, step = task_of(tmp_path), Trainer._step

    def killed(trainer: Trainer, number: int) -> None:
        if number == 6:
            raise KeyboardInterrupt
        step(trainer, number)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", killed)
        with pytest.raises(KeyboardInterrupt):
            measure(task, "training")
    assert [path.name for path in checkpoints(Path(task.folder))] == ["step_00000003"]

    found = measure(task, "training")

    again, alone = (
        {name: value for name, value in one.items() if name not in TIMES}
        | {"curve": [point._replace(seconds=0.0) for point in one["curve"]]}
        for one in (found, finished[1])
    )
    assert again == alone


def test_a_training_found_finished_knows_neither_its_overhead_nor_its_peak(finished) -> None:
    task, found = finished

    again = measure(task, "training")

    unknown = ("overhead_seconds", "peak_rss_bytes")
    assert again == {name: value for name, value in found.items() if name not in unknown}


def test_items_are_scored_where_they_are_asked_for(monkeypatch, tmp_path) -> None:
    asked: dict[str, Any] = {}
    score = Score("t", "acc", 0.5, 0.1, 4, 0.25, (1.0, 0.0))

    def evaluate_tasks(model: Any, **options: Any) -> tuple[Score, ...]:
        network, tokenizer, *how = model
        asked.update(options, vocab_size=tokenizer.vocab_size, mode=network.training, how=how)
        return (score,)

    harness = SimpleNamespace(HarnessModel=lambda *told: told, evaluate_tasks=evaluate_tasks)
    monkeypatch.setitem(sys.modules, "psannlm.pages.shootout.lm_eval", harness)
    options = {"tasks": ("t",), "limit": 4, "folder": "somewhere"}
    task = dataclasses.replace(task_of(tmp_path, epochs=0.25), lm_eval=options)

    found = measure(task, "training")

    assert found["scores"] == (score,)
    assert asked == options | {"how": ["fp32", 16], "vocab_size": 257, "mode": False}


def test_a_training_that_diverges_gives_its_reason(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr("psannlm.bench.worker.stop_when_orphaned", lambda: None)
    asked, left = tmp_path / "task.json", tmp_path / "result.jsonl"
    task = task_of(tmp_path, learning_rate=1e30, warmup_fraction=0.0)
    asked.write_text(json.dumps(dataclasses.asdict(task)))

    main([str(asked), str(left)])

    found = json.loads(left.read_text())
    assert (found["mode"], found["status"]) == ("training", "failed")
    assert found["reason"].startswith("DivergenceError: ")


def test_a_configuration_that_is_none_is_refused_by_name(tmp_path) -> None:
    task = TrainingTask("k", {"epochs": "many"}, False, 50.0, {})

    with pytest.raises(ConfigError, match=r"(?s)the task of the training:\n.*seed: missing"):
        measure(task, "training")


@pytest.mark.slow
def test_a_fork_server_that_has_loaded_the_compiler_starts_trainings(tmp_path) -> None:
    task = task_of(tmp_path, epochs=0.25)
    assert task.worker[1:] == ("-m", training_worker.__name__)
    with ForkServer(training_worker.__name__, tmp_path / "cache", loads=COMPILER) as fork_server:
        [found] = run_task(
            task, cache=tmp_path / "cache", timeout_seconds=120, fork_server=fork_server
        )

    assert (found["mode"], found["status"], found["reason"]) == ("training", "ok", "")
    assert found["n_steps"] == found["curve"][-1][0] == 2
    assert found["overhead_seconds"] > 0
