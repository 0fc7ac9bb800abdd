"""One training of a shootout in its process: `python -m psannlm.pages.shootout.worker TASK OUT`.

Shape letters: T tokens.
"""

import copy
import math
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import torch

from psannlm.bench import processes
from psannlm.checks.networks import leak
from psannlm.config.parse import parse
from psannlm.config.training import TrainingConfig
from psannlm.device import select_device
from psannlm.files import MIB
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.pages.shootout.records import Learned, Point, Score
from psannlm.train import trainer
from psannlm.train.checkpoint import OtherCodeError
from psannlm.train.data import Tokens
from psannlm.train.distributed import Ranks
from psannlm.train.pretrained import HIGH, LOW, nonlinearities
from psannlm.train.trainer import Session

COMPILER = (
    "torch._dynamo.backends.inductor", "torch._dynamo.repro.after_dynamo",
    "torch._inductor.compile_fx", "torch._inductor.codegen.cpp_wrapper_gpu",
    "torch._inductor.codegen.halide", "torch._inductor.codegen.mps",
    "torch.distributed.tensor.experimental", "torch.utils.cpp_extension",
)  # fmt: skip
"""What compiling loads: a fork server that has it spares each compiled training seconds."""

SAME = (
    "n_steps", "train_tokens", "train_loss", "compiled", "frames", "graph_breaks", "eager",
    "val_loss", "val_tokens", "val_bytes", "test_loss", "test_tokens", "test_bytes",
)  # fmt: skip
"""Fields of a record that metrics.json calls alike; those of the test split only if it is read."""


@dataclass(frozen=True)
class TrainingTask:
    """What the process is told."""

    worker: ClassVar[tuple[str, ...]] = (sys.executable, "-m", "psannlm.pages.shootout.worker")
    modes: ClassVar[tuple[str, ...]] = ("training",)

    key: str  # of its record
    config: dict[str, Any]  # fields of a TrainingConfig
    final: bool
    timeout_seconds: float
    lm_eval: dict[str, Any]  # tasks, limit and folder of `evaluate_tasks`; empty if not asked for
    folder: str = ""  # where log and checkpoints lie; a training begun there goes on
    started: float = 0.0  # when the process was asked for, seconds since the epoch


def measure(task: TrainingTask, mode: str) -> dict[str, Any]:
    """What a TrainingRecord needs to know, from `n_steps` on.

    Raises whatever goes wrong, DivergenceError for a training whose loss is no number.
    """
    config = parse(TrainingConfig, task.config, source=f"the task of the {mode}")
    folder, steps_ended = Path(task.folder), list[float]()
    how: dict[str, Any] = {
        "watch": lambda _: steps_ended.append(time.time()),
        "with_test": task.final,
        "keep_best": False,
        "patience": task.timeout_seconds,  # for a process whose run was killed, and which goes on
    }
    ranks = Ranks(0, 1, select_device(config.device))
    try:
        done = trainer.train(config, folder, ranks, **how)
    except OtherCodeError:  # of a mixed run, in which no training is
        shutil.rmtree(folder)
        done = trainer.train(config, folder, ranks, **how)
    model, metrics = done.trainer.model.eval(), done.metrics
    found: dict[str, Any] = {name: metrics.get(name) for name in SAME}
    if steps_ended:  # unknown of a process that found nothing left to train
        found["overhead_seconds"] = steps_ended[0] - task.started
        for what in ("allocated", "rss"):
            if (mib := metrics[f"peak_{what}_mib"]) is not None:
                found[f"peak_{what}_bytes"] = round(mib * MIB)
    return found | {
        "train_tokens_per_s": metrics["tokens_per_s"],
        "val_top1": done.validation.top1,
        "test_top1": done.test.top1 if done.test else None,
        **_times(folder),
        "leak": leak_of(model, done.data.validation),
        "documents": done.validation.documents,
        "learned": list(learned(build(config.network, seed=config.seed), model)),
        "scores": _scores(task, done) if task.lm_eval else [],
    }


def leak_of(model: Transformer, tokens: Tokens) -> float:
    """The leak of a trained network, left as it is, on the first T tokens of a split, in float64.

    ArithmeticError if a logit is not finite.
    """
    wide = copy.deepcopy(model).double()
    ids = np.asarray(tokens.ids[: model.context_length]).astype(np.int64)
    found = leak(wide, torch.from_numpy(ids)[None].to(wide.lm_head.weight.device))
    if not math.isfinite(found):
        raise ArithmeticError("a logit of the trained network is not finite")
    return found


def learned(before: Transformer, after: Transformer) -> Iterator[Learned]:
    """The parameters of every nonlinearity that has some, over the features of its layer."""
    for one in nonlinearities(before, after):
        for part, values in one.after.items():
            wide = values.double()
            tails = torch.quantile(wide, wide.new_tensor((LOW, HIGH))).tolist()
            means = one.before[part].double().mean().item(), wide.mean().item()
            yield Learned(one.layer, part, *means, *tails)


def _times(folder: Path) -> dict[str, Any]:
    """Seconds of the steps alone, and the way of the validation loss."""
    speed, losses = pd.read_csv(folder / "speed.csv"), pd.read_csv(folder / "loss.csv")
    spent = speed["step_seconds"].cumsum().set_axis(speed["step"])
    rows = losses[losses["per"] == "evaluation"]
    curve = [
        Point(row.step, row.tokens, float(spent[row.step]), row.val_loss)
        for row in rows.itertuples()
    ]
    return {"train_seconds": float(spent.iloc[-1]), "curve": curve}


def _scores(task: TrainingTask, done: Session) -> tuple[Score, ...]:
    from psannlm.pages.shootout.lm_eval import HarnessModel, evaluate_tasks

    run, tokenizer = done.trainer, done.data.tokenizer
    model = HarnessModel(run.model, tokenizer, run.config.precision, run.plan.pass_sequences)
    return evaluate_tasks(model, **task.lm_eval)


main = partial(processes.serve, TrainingTask, measure)


if __name__ == "__main__":
    main(sys.argv[1:])
