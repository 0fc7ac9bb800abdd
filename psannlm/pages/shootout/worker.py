"""One training of a shootout in its process: `python -m psannlm.pages.shootout.worker TASK OUT`.

Shape letters: T tokens.
"""

import copy
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from psannlm.bench import processes
from psannlm.checks.formulas import leak
from psannlm.config.parse import parse
from psannlm.config.training import TrainingConfig
from psannlm.device import select_device
from psannlm.files import MIB
from psannlm.model.bases import build
from psannlm.model.transformer import Transformer
from psannlm.pages.shootout.records import DocumentLoss, Learned, Point, Score
from psannlm.train import session
from psannlm.train.data import Tokens
from psannlm.train.distributed import Ranks
from psannlm.train.evaluation import Evaluation
from psannlm.train.pretrained import HIGH, LOW, nonlinearities
from psannlm.train.recorder import Progress
from psannlm.train.session import Session

COMPILER = (
    "torch._dynamo.backends.inductor",
    "torch._dynamo.repro.after_dynamo",
    "torch._inductor.compile_fx",
    "torch._inductor.codegen.cpp_wrapper_gpu",
    "torch._inductor.codegen.halide",
    "torch._inductor.codegen.mps",
    "torch.distributed.tensor.experimental",
    "torch.utils.cpp_extension",
)
"""What compiling loads: a fork server that has it spares each compiled training seconds."""


@dataclass(frozen=True)
class TrainingTask:
    """What the process is told."""

    config: dict[str, Any]
    """Fields of a TrainingConfig."""

    folder: str
    """Where log and checkpoints lie while it trains; a training begun there goes on."""

    final: bool
    started: float
    """When the process was asked for, seconds since the epoch."""

    lm_eval_tasks: tuple[str, ...] = ()
    lm_eval_limit: int = 0
    lm_eval_folder: str = ""

    @property
    def worker(self) -> tuple[str, ...]:
        """The command that trains; the paths of the task and of the result follow."""
        return sys.executable, "-m", "psannlm.pages.shootout.worker"

    @property
    def modes(self) -> tuple[str, ...]:
        """What is done."""
        return ("training",)


def measure(task: TrainingTask, mode: str) -> dict[str, Any]:
    """What a TrainingRecord needs to know, from `n_steps` on.

    Raises whatever goes wrong, DivergenceError for a training whose loss is no number.
    """
    config = parse(TrainingConfig, task.config, source=f"the task of the {mode}")
    device = select_device(config.device)
    seen: list[float] = []

    def watch(_: Progress) -> None:
        if not seen:
            seen.append(time.time())

    done = session.train(
        config,
        Path(task.folder),
        Ranks(0, 1, device),
        watch=watch,
        with_test=task.final,
        keep_best=False,
    )
    model = done.trainer.model.eval()
    return {
        **_facts(done),
        **_times(Path(task.folder), done),
        **_evaluated("val", done.validation),
        **_evaluated("test", done.test),
        **_peaks(done, trained=bool(seen)),
        "overhead_seconds": seen[0] - task.started if seen else None,
        "leak": leak_of(model, done.data.validation),
        "documents": [DocumentLoss(*found) for found in done.validation.documents],
        "learned": list(learned(build(config.network, seed=config.seed), model)),
        "scores": list(_scores(task, done)),
    }


def leak_of(model: Transformer, tokens: Tokens) -> float:
    """The leak of a trained network on the first T tokens of a split, in float64.

    Args:
        model: Is left as it is.
        tokens: Of the split.

    Raises:
        ArithmeticError: A logit is not finite.
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


def _facts(done: Session) -> dict[str, Any]:
    names = ("n_steps", "train_tokens", "train_loss", "compiled")
    return {name: done.metrics[name] for name in names}


def _times(folder: Path, done: Session) -> dict[str, Any]:
    """Seconds of the steps alone, and the way of the validation loss."""
    speed, losses = pd.read_csv(folder / "speed.csv"), pd.read_csv(folder / "loss.csv")
    spent = speed["step_seconds"].cumsum().set_axis(speed["step"])
    rows = losses[losses["per"] == "evaluation"]
    steps, tokens, found = (rows[name].tolist() for name in ("step", "tokens", "val_loss"))
    curve = [
        Point(int(step), int(n), float(spent[step]), float(loss))
        for step, n, loss in zip(steps, tokens, found, strict=True)
    ]
    return {
        "train_seconds": float(spent.iloc[-1]),
        "train_tokens_per_s": done.metrics["tokens_per_s"],
        "curve": curve,
    }


def _evaluated(split: str, found: Evaluation | None) -> dict[str, Any]:
    return {
        f"{split}_loss": found.loss if found else None,
        f"{split}_top1": found.top1 if found else None,
        f"{split}_tokens": found.n_tokens if found else None,
        f"{split}_bytes": found.n_bytes if found else None,
    }


def _peaks(done: Session, *, trained: bool) -> dict[str, int | None]:
    """Memory at most; unknown of a process that found nothing left to train."""
    names = {"peak_allocated_bytes": "peak_allocated_mib", "peak_rss_bytes": "peak_rss_mib"}
    found = {name: done.metrics[in_mib] for name, in_mib in names.items()}
    return {
        name: round(mib * MIB) if trained and mib is not None else None
        for name, mib in found.items()
    }


def _scores(task: TrainingTask, done: Session) -> tuple[Score, ...]:
    if not task.lm_eval_tasks:
        return ()
    from psannlm.pages.shootout.lm_eval import evaluate_tasks

    found: tuple[Score, ...] = evaluate_tasks(
        done.trainer.model,
        done.data.tokenizer,
        tasks=task.lm_eval_tasks,
        limit=task.lm_eval_limit,
        folder=task.lm_eval_folder,
        device=done.trainer.ranks.device,
        precision=done.trainer.config.precision,
        batch=done.trainer.plan.pass_sequences,
    )
    return found


def main(arguments: Sequence[str]) -> None:
    """Train what the task of one file says, and tell of it in another."""
    processes.serve(TrainingTask, measure, arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
