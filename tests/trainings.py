"""Trainings made up for tests: losses that fall as real ones do, in files that agree."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.files import MIB
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.tiny_corpus.page import PAGE
from psannlm.pages.tiny_corpus.tables import SINE, YARDSTICKS, Trained, from_texts
from psannlm.train import recorder
from psannlm.train.recorder import bits_per_byte, perplexity
from tests import tiny_trainings
from tests.synthetic import sealed_run

VAL_BYTES, VAL_TOKENS, TEST_BYTES, TEST_TOKENS = 25_000, 10_000, 20_100, 8_000


def training_config(**changes: Any) -> TrainingConfig:
    """What the sample text would be trained on; keywords override."""
    values: dict[str, Any] = {
        "vocab_size": 64, "d_mlp": 32, "gate_n_fft": 64, "preset": "cpu",
        "corpus": "datasets/lm/sample.txt", "train_megabytes": 0.3, "validation_megabytes": 0.05,
        "tokenizer": "bpe", "batch_tokens": 64, "pass_tokens": 32, "loss_chunk_tokens": 32,
        "learning_rate": 0.001, "checkpoint_steps": 10, "keep_checkpoints": 1,
        "target_perplexity": 8.0, "ngram_order": 6, "prompts": ("The ", "It was "),
        "sample_tokens": 20,
    }  # fmt: skip
    return tiny_trainings.training_config(**values | changes)


def trained(
    config: TrainingConfig, *, n_steps: int = 40, end: float = 1.9, seed: int = 0
) -> Trained:
    """A training whose validation loss ends near `end`, in as many steps."""
    draw = random.Random(seed)
    losses = _losses(config, n_steps, end, draw)
    seconds = [0.5 + 0.01 * draw.random() for _ in range(n_steps)]
    seconds[0] = 3.0  # compiles
    speed = pd.DataFrame(
        {
            "step": range(1, n_steps + 1),
            "step_seconds": seconds,
            "wait_seconds": [0.001] * n_steps,
            "elapsed_seconds": pd.Series(seconds).cumsum() * 1.05,
        }
    )
    yardsticks = pd.DataFrame(
        [
            ("zlib", 0, False, 3.1, 0.1),
            ("bz2", 0, False, 2.3, 0.2),
            ("xz", 0, False, 2.6, 0.3),
            ("xz after training text", 5_000, True, 2.2, 4.5),
            (f"{config.ngram_order}-gram model", 5_000, True, 1.9, 12.5),
        ],
        columns=YARDSTICKS.names,
    )
    samples = [
        {"prompt": p, "temperature": 0.8, "top_p": 0.95, "text": "house was old.\n\nSo it stood."}
        for p in config.prompts
    ]
    texts = {
        "loss.csv": _csv(losses),
        "speed.csv": _csv(speed),
        "yardsticks.csv": _csv(yardsticks),
        "sine.csv": _csv(_sine(config, draw)),
        "metrics.json": json.dumps(_metrics(config, losses, speed), indent=2) + "\n",
        "samples.json": json.dumps(samples, indent=2) + "\n",
        "tokenizer.json": "{}\n",
    }
    [result] = from_texts(texts)
    return result


def changed(result: Trained, **metrics: Any) -> Trained:
    """The same training with other metrics."""
    text = json.dumps({**result.metrics, **metrics}, indent=2) + "\n"
    [result] = from_texts({**result.texts, "metrics.json": text})
    return result


def _csv(frame: pd.DataFrame) -> str:
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def _losses(config: TrainingConfig, n: int, end: float, draw: random.Random) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    n_epochs = math.ceil(config.epochs)
    ends = {round(n * (k + 1) / n_epochs): k + 1 for k in range(n_epochs)}
    each = max(n // (n_epochs * config.evaluations), 1)
    mine: list[float] = []
    for step in range(1, n + 1):
        place = {"step": step, "tokens": step * config.batch_tokens}
        level = end + (math.log(config.vocab_size) - end) * math.exp(-6 * step / n)
        mine.append(level + draw.gauss(0.02, 0.08))
        rows.append(
            {
                "per": "step",
                "epoch": step / n * config.epochs,
                "train_loss": mine[-1],
                "learning_rate": config.learning_rate * (1 - 0.9 * step / n),
                "grad_norm": 0.5 + draw.random(),
                **place,
            }
        )
        if step % each and step not in ends:
            continue
        found = {
            "val_loss": level,
            "bits_per_byte": bits_per_byte(level, VAL_BYTES / VAL_TOKENS),
            "perplexity": perplexity(level),
            "top1": 0.9 / level,
        }
        rows.append({"per": "evaluation", "epoch": step / n * config.epochs, **place, **found})
        if step in ends:
            mean = sum(mine) / len(mine)
            rows.append({"per": "epoch", "epoch": ends[step], "train_loss": mean, **place, **found})
            mine = []
    return pd.DataFrame(rows, columns=list(recorder.LOSS))


def _metrics(config: TrainingConfig, losses: pd.DataFrame, speed: pd.DataFrame) -> dict[str, Any]:
    cost = cost_of(config.network, Shape(1, config.context_length))
    evaluations = losses[losses["per"] == "evaluation"]
    best, last = evaluations.loc[evaluations["val_loss"].idxmin()], evaluations.iloc[-1]
    rate = recorder.tokens_per_s(speed, config.batch_tokens)
    flop_per_s = 3 * cost.model_flops / config.context_length * rate
    test_loss = float(last["val_loss"]) + 0.01
    same = ("preset", "tokenizer", "vocab_size", "epochs", "batch_tokens", "target_perplexity")
    return {
        **{name: getattr(config, name) for name in (*same, "parallel")},
        "train_loss": float(losses[losses["per"] == "epoch"]["train_loss"].iloc[-1]),
        "val_loss": float(last["val_loss"]),
        "perplexity": float(last["perplexity"]),
        "corpus_path": config.corpus,
        "base": config.base[0],
        "corpus_sha256": "c" * 64,
        "tokenizer_sha256": "d" * 64,
        "bits_per_byte": float(last["bits_per_byte"]),
        "top1": float(last["top1"]),
        "val_tokens": VAL_TOKENS,
        "val_bytes": VAL_BYTES,
        "bytes_per_token": VAL_BYTES / VAL_TOKENS,
        "test_loss": test_loss,
        "test_bits_per_byte": bits_per_byte(test_loss, TEST_BYTES / TEST_TOKENS),
        "test_perplexity": perplexity(test_loss),
        "test_tokens": TEST_TOKENS,
        "test_bytes": TEST_BYTES,
        "best_val_loss": float(best["val_loss"]),
        "best_step": int(best["step"]),
        "n_parameters": cost.n_parameters,
        "n_steps": len(speed),
        "train_tokens": len(speed) * config.batch_tokens,
        "train_split_tokens": math.ceil(len(speed) * config.batch_tokens / config.epochs),
        "train_split_bytes": 3200,
        "train_seconds": float(speed["elapsed_seconds"].iloc[-1]),
        "tokens_per_s": rate,
        "mfu": 0.25,
        "ceiling_flop_per_s": flop_per_s / 0.25,
        "wait_share": recorder.wait_share(speed),
        "peak_allocated_mib": None,
        "peak_rss_mib": cost.n_parameters * 16 / MIB + 300,
        "target_reached": bool(last["perplexity"] <= config.target_perplexity),
        "n_ranks": 1,
    }


def _sine(config: TrainingConfig, draw: random.Random) -> pd.DataFrame:
    layers = 0 if config.base[0] == "transformer" else config.n_layers
    rows = [
        (layer, feature, 1.0, draw.gauss(1.1, 0.1), 1.0, draw.gauss(1 + layer / 8, 0.2), 0.01,
         abs(draw.gauss(0.01, 0.004)) + 1e-6)
        for layer in range(layers)
        for feature in range(config.d_mlp)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=SINE.names)


CORPUS = {"path": "datasets/lm/sample.txt", "sha256": "c" * 64, "bytes": 10**6}
TOKENIZER = {"kind": "bpe", "sha256": "d" * 64, "bytes_per_token": 2.5}


def training_run(
    reports: Path, *, status: str = "complete", result: Trained | None = None, **changes: Any
) -> Path:
    """A sealed run folder of a made-up training; returns it."""
    config = training_config(**changes)
    records, facts = [result or trained(config)], {"corpus": CORPUS, "tokenizer": TOKENIZER}
    return sealed_run(PAGE, config, records, reports, status=status, **facts)
