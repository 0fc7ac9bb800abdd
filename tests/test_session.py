"""A session leaves a folder that says what was trained, how well, and takes no other training."""

import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from psannlm import ROOT
from psannlm.config.parse import parse, read_parameters
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.files import sha256_of
from psannlm.train import trainer
from psannlm.train.checkpoint import checkpoints
from psannlm.train.tokenizer import Tokenizer
from psannlm.train.trainer import CONFIG, METRICS, Session, default_folder
from tests.tiny_trainings import column, processes, rows, session_in, training_config, write_text


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("session"))


def config_of(corpus: Path, **changes: Any) -> TrainingConfig:
    sizes = {"n_layers": 1, "batch_tokens": 256, "pass_tokens": 128, "checkpoint_steps": 4}
    return training_config(**{"corpus": str(corpus), **sizes, **changes})


def train(folder: Path, config: TrainingConfig, **options: Any) -> Session:
    """A session with the cache beside the corpus."""
    return session_in(folder, config, Path(config.corpus).parent / "cache", **options)


@pytest.fixture(scope="module")
def finished(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A finished training, beside a made-up ceiling and a made-up peak of GPU memory."""
    rates = iter([0.5e9, 1e9])
    order: list[str] = []
    folder = tmp_path_factory.mktemp("finished") / "a" / "b"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_forget_peak", lambda device: order.append("forget"))
        patch.setattr(trainer, "_peak_mib", lambda device: order.append("peak") or 7.5)
        ceiling = lambda: order.append("ceiling") or next(rates)  # noqa: E731
        done = train(folder, config_of(corpus), ceiling=ceiling)
    # The peak is that of the training and not of the matrices of the ceiling.
    assert order == ["ceiling", "forget", "peak", "ceiling"]
    return done


@pytest.fixture
def folder(finished: Session, tmp_path: Path) -> Path:
    """A copy of the finished training that a test may go on with or harm."""
    return Path(shutil.copytree(finished.trainer.folder, tmp_path / "copy"))


def test_a_finished_training_leaves_all_that_tells_of_it(finished, corpus) -> None:
    folder = finished.trainer.folder

    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "config.yaml", "tokenizer.json", "loss.csv", "speed.csv", "metrics.json",
    }  # fmt: skip
    kept = parse(TrainingConfig, read_parameters(folder / CONFIG), source="config.yaml")
    assert kept == config_of(corpus)
    assert Tokenizer.load(folder / "tokenizer.json").sha256 == finished.data.tokenizer.sha256
    assert json.loads((folder / METRICS).read_text()) == finished.metrics


def test_metrics_agree_with_each_other_the_log_data_and_conditions(finished, corpus) -> None:
    m, data, folder = finished.metrics, finished.data, finished.trainer.folder

    losses = column(folder, "val_loss", "evaluation")
    assert m["val_loss"] == losses[-1]
    assert (m["best_val_loss"], m["best_step"]) == (min(losses), finished.trainer.tally.best_step)
    assert m["train_loss"] == column(folder, "train_loss", "epoch")[-1]
    assert m["perplexity"] == math.exp(m["val_loss"])
    assert m["target_reached"] == (m["perplexity"] <= m["target_perplexity"])
    for kind, prefix in (("val", ""), ("test", "test_")):
        bits = m[f"{kind}_loss"] * m[f"{kind}_tokens"] / m[f"{kind}_bytes"] / math.log(2)
        assert m[f"{prefix}bits_per_byte"] == pytest.approx(bits, rel=1e-12)
    assert m["bytes_per_token"] == m["val_bytes"] / m["val_tokens"]
    assert m["test_perplexity"] == math.exp(m["test_loss"])
    times = rows(folder, name="speed.csv")
    assert m["n_steps"] == len(times)
    assert m["train_tokens"] == m["n_steps"] * m["batch_tokens"]
    assert m["train_seconds"] == float(times[-1]["elapsed_seconds"])
    flop_per_s = m["tokens_per_s"] * finished.trainer.recorder.flop_per_token
    assert m["mfu"] == pytest.approx(flop_per_s / 1e9, rel=1e-12)  # of the higher ceiling
    assert 0 <= m["wait_share"] < 1
    assert m["n_parameters"] == sum(p.numel() for p in finished.trainer.model.parameters())
    assert m["peak_rss_mib"] > 100
    assert m.items() >= (data.identity | {
        "train_split_tokens": data.train.n_predicted, "train_split_bytes": data.train.n_bytes,
        "val_tokens": data.validation.n_predicted, "val_bytes": data.validation.n_bytes,
        "base": "respsann", "preset": "smoke", "tokenizer": "bytes", "vocab_size": 257,
        "corpus_path": str(corpus), "ceiling_flop_per_s": 1e9,
        "peak_allocated_mib": 7.5, "compiled": False, "n_ranks": 1, "parallel": "ddp",
    }).items()  # fmt: skip


def test_a_finished_training_run_again_trains_nothing_and_says_the_same(
    finished, folder, corpus
) -> None:
    # What does not change the course may change.
    options = {"keep_checkpoints": 1, "target_perplexity": 1.5}
    again = train(folder, config_of(corpus, **options), watch=pytest.fail).metrics

    assert again.keys() == finished.metrics.keys()
    times = {"mfu", "peak_rss_mib", "ceiling_flop_per_s", "peak_allocated_mib"}
    assert {key for key in again if finished.metrics[key] != again[key]} <= times | set(options)
    assert again["mfu"] is again["ceiling_flop_per_s"] is None
    assert again["target_perplexity"] == 1.5
    assert yaml.safe_load((folder / CONFIG).read_text())["keep_checkpoints"] == 1


def test_a_test_split_that_nobody_asks_for_is_not_evaluated(finished, folder, corpus) -> None:
    part = train(folder, config_of(corpus), with_test=False)

    assert finished.metrics["test_loss"] == finished.test.loss
    assert {name for name in finished.metrics if name not in part.metrics} == {
        "test_loss", "test_perplexity", "test_bits_per_byte", "test_tokens", "test_bytes",
    }  # fmt: skip
    assert part.metrics["val_loss"] == finished.metrics["val_loss"]


def test_the_best_checkpoint_is_not_written_where_nobody_wants_it(tmp_path, corpus) -> None:
    config = config_of(corpus, epochs=1, checkpoint_steps=5, evaluations=4, batch_tokens=128)

    for name, keep_best in (("a", True), ("b", False)):
        train(tmp_path / name, config, keep_best=keep_best)

    steps = [[int(c.name[5:]) for c in checkpoints(tmp_path / name)] for name in ("a", "b")]
    n_steps = len(column(tmp_path / "a", "step"))
    assert steps[1] == sorted({*range(5, n_steps, 5), n_steps})
    assert set(steps[0]) > set(steps[1])


def test_a_training_of_less_than_an_epoch_tells_the_mean_of_its_steps(tmp_path, corpus) -> None:
    done = train(tmp_path, config_of(corpus, epochs=0.5))

    steps = column(tmp_path, "train_loss")
    assert column(tmp_path, "train_loss", "epoch") == [done.metrics["train_loss"]]
    assert done.metrics["train_loss"] == pytest.approx(sum(steps) / len(steps))


def test_a_folder_with_another_training_is_refused_and_left_as_it_is(folder, corpus) -> None:
    before = sha256_of(folder)

    message = r"another configuration: d_mlp 24 and not 32, seed 0 and not 1; name another folder"
    with pytest.raises(ConfigError, match=message):
        train(folder, config_of(corpus, d_mlp=32, seed=1))

    assert sha256_of(folder) == before


LONG = {"context_length": 4096, "batch_tokens": 4096, "pass_tokens": 4096}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": "bpe", "vocab_size": 9999}, "vocab_size must be at most"),
        (LONG, r"must hold context_length \+ 1 = 4097 tokens"),
    ],
)
def test_a_training_that_is_refused_claims_no_folder(tmp_path, corpus, changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "new", config_of(corpus, **changes))

    train(tmp_path / "new", config_of(corpus, epochs=0.2))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/new cannot be written: Not a directory; make room"):
        train(tmp_path / "file" / "new", config_of(corpus))


@pytest.mark.parametrize("name", [CONFIG, "tokenizer.json", METRICS])
def test_a_disk_that_is_full_is_a_message(tmp_path, corpus, monkeypatch, name: str) -> None:
    replace = Path.replace

    def full_at_one(source: Path, target: Path) -> Path:
        if target.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", full_at_one)

    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: No space left on device"):
        train(tmp_path, config_of(corpus, epochs=0.2))

    assert not (tmp_path / name).exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_folders_are_told_apart_by_course_alone(corpus) -> None:
    source = Path("params/smoke/tiny_corpus.yaml")

    same, other, folder = (
        default_folder(source, config_of(corpus, **changes))
        for changes in ({"pass_tokens": 64}, {"seed": 1}, {})
    )

    assert folder.name.startswith("smoke_tiny_corpus_")
    assert same == folder != other


N_KILLS = 6
PATIENCE = 120  # seconds for a training to write its next rows


def in_a_process(folder: Path, config: TrainingConfig) -> BaseProcess:
    """A process that trains, begun."""
    process: BaseProcess = processes().Process(target=in_one_thread, args=(folder, config))
    process.start()
    return process


def in_one_thread(folder: Path, config: TrainingConfig) -> None:
    torch.set_num_threads(1)
    train(folder, config)


def n_rows(folder: Path) -> int:
    return (folder / "loss.csv").read_bytes().count(b"\n") - 1


def killed(folder: Path, config: TrainingConfig, n_more: int, pause: float) -> None:
    """Kill a training that goes on in `folder`, a pause after it has written so many more rows."""
    log, until = folder / "loss.csv", time.monotonic() + PATIENCE
    before = log.stat().st_mtime_ns if log.exists() else None
    enough = None
    process = in_a_process(folder, config)
    while enough is None or n_rows(folder) < enough:
        assert process.is_alive()
        assert time.monotonic() < until
        time.sleep(0.001)
        # Going on cuts the log, which is seen even if nothing is cut off, or begins it.
        if enough is None and log.exists() and log.stat().st_mtime_ns != before:
            enough = n_rows(folder) + n_more
    time.sleep(pause)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.slow
def test_a_training_killed_again_and_again_is_ended_by_its_command_without_a_trace(
    tmp_path,
) -> None:
    # 23 steps an epoch, of which each fifth and each best is saved.
    config = config_of(
        write_text(tmp_path), epochs=3, batch_tokens=64, pass_tokens=32, checkpoint_steps=5,
        keep_checkpoints=2, evaluations=3,
    )  # fmt: skip
    whole, part, draw = tmp_path / "whole", tmp_path / "part", random.Random(0)
    in_a_process(whole, config).join()

    for _ in range(N_KILLS):
        killed(part, config, draw.randint(1, 9), draw.uniform(0, 0.02))
    assert n_rows(part) > 10
    assert checkpoints(part)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    arguments = ("train", "--config", str(tmp_path / "c.yaml"), "--out", str(part))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PSANNLM_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "psannlm", *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr
    assert str(part) in done.stdout
    assert (part / "loss.csv").read_bytes() == (whole / "loss.csv").read_bytes()
    for name in ("model.safetensors", "optimizer.safetensors"):
        pair = [(checkpoints(folder)[-1] / name).read_bytes() for folder in (whole, part)]
        assert pair[0] == pair[1]
    assert not list(part.glob(".*"))
