"""Shootouts made up for tests: configurations, records of trainings that never ran, run folders."""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from psannlm.config.training import TrainingSettings
from psannlm.evidence.page import RunInfo
from psannlm.evidence.runs import Run
from psannlm.pages.shootout import plan
from psannlm.pages.shootout.arms import arms_of, is_scaled
from psannlm.pages.shootout.gates import NOISY_BOUND, TRAINED_BOUND
from psannlm.pages.shootout.measure import record_of
from psannlm.pages.shootout.page import PAGE
from psannlm.pages.shootout.records import (
    STORE,
    Gate,
    Learned,
    Point,
    Score,
    Setting,
    ShootoutConfig,
    TrainingRecord,
)
from psannlm.pages.shootout.tables import tabulate
from psannlm.train.recorder import Document
from tests import tiny_trainings
from tests.synthetic import executed_notebook, start_manifest

EFFECTS = {  # nats by which an arm's losses differ from those of gelu
    "respsann": -0.12, "sgrpsann": -0.05, "waveresnet": -0.20, "relu_squared": -0.02,
    "swiglu": -0.08, "gelu_scaled": -0.119,
}  # fmt: skip
DOCUMENTS = tuple(20 + 13 * (i * i % 7) for i in range(12))  # tokens of the validation split's
BYTES_PER_TOKEN, TEST_TOKENS, LEAK = 2.5, 800, 1.5e-7
BEST_RATE, BEST_FREQUENCY = 0.003, 2.25
PARTS = ("amplitude", "frequency", "decay")


def shootout_config(**changes: Any) -> ShootoutConfig:
    """A shootout of two layers on the sample text, in the shape of the test networks."""
    values: dict[str, Any] = {
        "vocab_size": 64, "d_mlp": 32, "gate_n_fft": 64, "preset": "cpu",
        "corpus": "datasets/lm/sample.txt", "train_megabytes": 0.05, "validation_megabytes": 0.02,
        "tokenizer": "bpe", "epochs": 1.0, "batch_tokens": 1024, "pass_tokens": 1024,
        "loss_chunk_tokens": 512, "checkpoint_steps": 1000,
        "base": (), "baseline": "gelu", "match": "parameters",
        "learning_rates": (0.001, 0.003), "scaled_learning_rates": (0.003,),
        "scaled_frequencies": (1.0, 2.25), "tuning_seed": 100, "seeds": (0, 1, 2),
        "side_seeds": 2, "ablation": ("respsann",), "scales": (1.0, 2.25, 5.0),
        "scale_arms": ("respsann", "gelu", "gelu_scaled"), "cells_at_once": 0, "scheduler": "",
        "timeout_seconds": 100.0, "with_lm_eval": False,
        "lm_eval_tasks": ("lambada_openai", "hellaswag"), "lm_eval_limit": 256,
        "lm_eval_folder": "",
    }  # fmt: skip
    usual = tiny_trainings.training_config()
    shared = {name: getattr(usual, name) for name in TrainingSettings.model_fields}
    return ShootoutConfig(**shared | values | changes)


def records(
    config: ShootoutConfig,
    *,
    alike: Mapping[str, str] | None = None,
    fails: Callable[[plan.Cell], bool] = lambda cell: False,
) -> list[TrainingRecord]:
    """All trainings of a shootout, tunings first, but for those that fail.

    Arms that are `alike` another give what that one gives, as equal networks do.
    """

    def one(cell: plan.Cell) -> TrainingRecord:
        like = (alike or {}).get(cell.arm.name, cell.arm.name)
        found = {"status": "failed", "reason": "ConfigError: the loss is not finite"}
        if not fails(cell):
            found = {"status": "ok", "reason": "", **_results(cell, config, like)}
        found |= {"started_at": "2026-01-01T00:00:00+00:00", "device": "cpu (a test)"}
        return record_of(plan.key_of(cell, config), cell, config, found)

    tuned = [one(cell) for cell in plan.distinct(plan.tunings(config), config).values()]
    later = plan.distinct(plan.after_tuning(config, plan.choose(config, tuned)), config)
    return [*tuned, *(one(cell) for cell in later.values())]


def final(arm: str, seed: int, val_loss: float | None = None, **changes: Any) -> TrainingRecord:
    """A finished training of an arm; what a comparison does not read is the same in all."""
    values: dict[str, Any] = {
        "key": f"{arm}-{seed}", "arm": arm, "base": "transformer",
        "setting": Setting(0.001, 1.0, 0.02, ()), "seed": seed, "final": True, "status": "ok",
        "reason": "", "started_at": "2026-01-01T00:00:00Z", "device": "cpu", "d_mlp": 32,
        "n_parameters": 1000, "flops_per_token": 6000, "val_loss": val_loss,
    }  # fmt: skip
    return TrainingRecord(**values | changes)


def gates(
    config: ShootoutConfig,
    *,
    same: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
) -> list[Gate]:
    """What the gates found of each arm: the same as another, or refused for a reason."""
    same, refused, found = same or {}, refused or {}, []
    names = [arm.name for arm in arms_of(config)]
    for name in names:
        why, twin = refused.get(name, ""), same.get(name, "")
        nearest = twin or next((other for other in names if other != name), "")
        distance = 0.0 if twin or name in same.values() else 0.8
        leak = 0.5 if why else 2 * LEAK / TRAINED_BOUND * NOISY_BOUND
        found.append(Gate(name, leak, NOISY_BOUND, nearest, distance, twin, why))
    return found


def shootout_run(
    reports: Path,
    *,
    made: Sequence[TrainingRecord] | None = None,
    found: Sequence[Gate] | None = None,
    **changes: Any,
) -> Path:
    """A sealed run folder of a made-up shootout, with changes of its configuration; returns it.

    Its trainings are those of `records`, its gates found what `gates` says, unless they are given.
    """
    config = shootout_config(**changes)
    run = Run.start("benchmarks", start_manifest("shootout", config), reports=reports)
    run.state(corpus={"path": config.corpus, "sha256": "c" * 64})
    left = [*(made or records(config)), *(found or gates(config))]
    info = RunInfo(config, run.manifest, left)
    for name, text in (STORE.texts(left) | PAGE.files(PAGE.tabulate(left, info), info)).items():
        run.write(name, text)
    run.write("shootout.ipynb", nbformat.writes(executed_notebook("Shootout")))
    run.seal("complete")
    return run.folder


def _results(cell: plan.Cell, config: ShootoutConfig, like: str) -> dict[str, Any]:
    """Of a training that ends as one of the arm `like` does."""
    draw = random.Random(f"{like} {cell.seed} {cell.setting}")
    level = 3.0 + EFFECTS.get(like, 0.0) + _of_setting(cell, config)
    level += random.Random(f"seed {cell.seed}").gauss(0, 0.02) + draw.gauss(0, 0.004)
    documents = [
        Document(n * (level + 0.2 * (i % 5 - 2) + draw.gauss(0, 0.01)), n)
        for i, n in enumerate(DOCUMENTS)
    ]
    n_tokens = sum(document.n_tokens for document in documents)
    loss = sum(document.nats for document in documents) / n_tokens
    n_steps = 8 * config.evaluations
    step_seconds = 0.1 * (1 + 0.02 * draw.random())
    found: dict[str, Any] = {
        "n_steps": n_steps,
        "train_tokens": n_steps * config.batch_tokens,
        "train_loss": loss + 0.05,
        "train_seconds": 0.5 + n_steps * step_seconds,
        "train_tokens_per_s": config.batch_tokens / step_seconds,
        "overhead_seconds": 4 + draw.random(),
        "compiled": config.compile,
        "peak_rss_bytes": 2**28 + draw.randrange(2**20),
        "val_loss": loss,
        "val_top1": 0.9 / loss,
        "val_tokens": n_tokens,
        "val_bytes": round(n_tokens * BYTES_PER_TOKEN),
        "leak": LEAK,
        "curve": _curve(config, n_steps, step_seconds, loss),
        "documents": documents,
        "learned": _learned(cell, config, draw),
    }
    if cell.final:
        test = loss + 0.01 + draw.gauss(0, 0.002)
        found |= {"test_loss": test, "test_top1": 0.9 / test, "test_tokens": TEST_TOKENS}
        found["test_bytes"] = round(TEST_TOKENS * BYTES_PER_TOKEN)
        found["scores"] = _scores(config, draw)
    return found


def _of_setting(cell: plan.Cell, config: ShootoutConfig) -> float:
    """Nats that a setting costs against the best one of its arm."""
    setting = cell.setting
    cost = 0.05 * math.log(setting.learning_rate / BEST_RATE) ** 2
    if is_scaled(cell.arm, config):
        cost += 0.2 * math.log(setting.sine_frequency / BEST_FREQUENCY) ** 2
        cost += 0.01 * (len(PARTS) - len(setting.learnable))
    return cost + 0.05 * math.log(setting.init_std / config.init_std) ** 2


def _curve(config: ShootoutConfig, n_steps: int, step_seconds: float, loss: float) -> list[Point]:
    """Losses that fall from that of an untrained network and end at `loss`."""
    start, points = math.log(config.vocab_size), []
    for i in range(1, config.evaluations + 1):
        step = n_steps * i // config.evaluations
        height = (start - loss) * (math.exp(-4 * step / n_steps) - math.exp(-4))
        seconds = 0.5 + step * step_seconds
        points.append(Point(step, step * config.batch_tokens, seconds, loss + height))
    return points


def _learned(cell: plan.Cell, config: ShootoutConfig, draw: random.Random) -> list[Learned]:
    """Of each layer; the damped sine has a decay, the scaled gelu has none."""
    if not is_scaled(cell.arm, config):
        return []
    parts = PARTS[:2] if cell.arm.name == "gelu_scaled" else PARTS
    before = {"amplitude": 1.0, "frequency": cell.setting.sine_frequency, "decay": 0.01}
    rows = []
    for layer, part in itertools.product(range(config.n_layers), parts):
        moved = before[part] * (1 + 0.1 * draw.random())
        rows.append(Learned(f"{layer} mlp", part, before[part], moved, 0.8 * moved, 1.2 * moved))
    return rows


def _scores(config: ShootoutConfig, draw: random.Random) -> list[Score]:
    if not config.with_lm_eval:
        return []
    n, scores = config.lm_eval_limit, []
    for task in config.lm_eval_tasks:
        items = tuple(float(draw.random() < 0.3) for _ in range(n))
        share = sum(items) / n
        error = math.sqrt(share * (1 - share) / (n - 1))
        chance = 0.25 if task == "hellaswag" else None
        scores.append(Score(task, "acc", share, error, n, chance, items))
    return scores


SHOWN = ("respsann", "gelu", "gelu_scaled")
CONFIG = shootout_config(base=SHOWN, scales=(1.0, 2.25), evaluations=4, match="width")
RECORDS = records(CONFIG)


@cache
def shown() -> dict[str, pd.DataFrame]:
    """Three arms with three seeds each, an ablation, two scales."""
    return dict(tabulate([*RECORDS, *gates(CONFIG)], CONFIG))


@cache
def all_failed() -> dict[str, pd.DataFrame]:
    """The same arms, but no training came to its end."""
    failed = records(CONFIG, fails=lambda cell: True)
    return dict(tabulate([*failed, *gates(CONFIG)], CONFIG))


def with_summary(base: str, **changes: Any) -> dict[str, pd.DataFrame]:
    """The same shootout, but for cells of an arm's row in its summary."""
    summary = shown()["summary.csv"].astype(object)
    for name, value in changes.items():
        summary.loc[summary["base"] == base, name] = value
    return {**shown(), "summary.csv": summary}


def shifted(nats: dict[str, float]) -> dict[str, pd.DataFrame]:
    """The same shootout, but for losses of arms that are so many nats per token higher."""
    found = []
    for record in RECORDS:
        more = nats.get(record.arm, 0.0)
        texts = tuple(d._replace(nats=d.nats + more * d.n_tokens) for d in record.documents)
        found.append(replace(record, val_loss=record.val_loss + more, documents=texts))
    return dict(tabulate([*found, *gates(CONFIG)], CONFIG))


def only(*arms: str) -> dict[str, pd.DataFrame]:
    """The same shootout as if it had no other arms, but for what was computed from them."""
    return {
        name: table[table["base"].isin(arms)] if "base" in table else table
        for name, table in shown().items()
    }
