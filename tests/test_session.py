"""A session leaves a folder that says what was trained, how well, and takes no other training."""

import csv
import errno
import functools
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from psannlm.config.parse import parse, read_parameters
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train import session
from psannlm.train.checkpoint import checkpoints
from psannlm.train.data import read
from psannlm.train.recorder import Progress
from psannlm.train.session import CONFIG, METRICS, Session, default_folder
from psannlm.train.tokenizer import Tokenizer
from tests.tiny_trainings import ALONE, training_config, write_text


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("session")
    write_text(folder)
    return folder


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "read", functools.partial(read, cache=cache / "cache"))


def config_in(cache: Path, **changes: Any) -> TrainingConfig:
    sizes = {"n_layers": 1, "batch_tokens": 256, "pass_tokens": 128, "checkpoint_steps": 4}
    return training_config(**{"corpus": str(cache / "text.txt"), **sizes, **changes})


def train(folder: Path, config: TrainingConfig, **options: Any) -> Session:
    return session.train(config, folder, ALONE, **options)


def column(folder: Path, file: str, name: str, per: str | None = None) -> list[float]:
    with (folder / file).open(newline="") as lines:
        return [float(row[name]) for row in csv.DictReader(lines) if row.get("per") == per]


@pytest.fixture(scope="module")
def finished(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A finished training, beside a made-up ceiling and a made-up peak of GPU memory."""
    rates = iter([0.5e9, 1e9])
    order: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "read", functools.partial(read, cache=cache / "cache"))
        patch.setattr(session, "_forget_peak", lambda device: order.append("forget"))
        patch.setattr(session, "_peak_mib", lambda device: order.append("peak") or 7.5)
        folder = tmp_path_factory.mktemp("finished") / "a" / "b"
        done = train(
            folder, config_in(cache), ceiling=lambda: order.append("ceiling") or next(rates)
        )
    # The peak is that of the training and not of the matrices of the ceiling.
    assert order == ["ceiling", "forget", "peak", "ceiling"]
    return done


@pytest.fixture
def folder(finished: Session, tmp_path: Path) -> Path:
    """A copy of the finished training that a test may go on with or harm."""
    return Path(shutil.copytree(finished.trainer.folder, tmp_path / "copy"))


def test_a_finished_training_leaves_all_that_tells_of_it(finished, cache) -> None:
    folder = finished.trainer.folder

    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "config.yaml", "tokenizer.json", "loss.csv", "speed.csv", "metrics.json",
    }  # fmt: skip
    said = parse(TrainingConfig, read_parameters(folder / CONFIG), source="config.yaml")
    assert said == config_in(cache)
    assert Tokenizer.load(folder / "tokenizer.json").sha256 == finished.data.tokenizer.sha256
    assert json.loads((folder / METRICS).read_text()) == finished.metrics


def test_metrics_agree_with_each_other_and_with_the_log(finished) -> None:
    m, folder = finished.metrics, finished.trainer.folder

    losses = column(folder, "loss.csv", "val_loss", per="evaluation")
    assert m["val_loss"] == losses[-1]
    assert (m["best_val_loss"], m["best_step"]) == (min(losses), finished.trainer.tally.best_step)
    assert m["train_loss"] == column(folder, "loss.csv", "train_loss", per="epoch")[-1]
    assert m["perplexity"] == math.exp(m["val_loss"])
    assert m["target_reached"] == (m["perplexity"] <= m["target_perplexity"])
    for kind, prefix in (("val", ""), ("test", "test_")):
        bits = m[f"{kind}_loss"] * m[f"{kind}_tokens"] / m[f"{kind}_bytes"] / math.log(2)
        assert m[f"{prefix}bits_per_byte"] == pytest.approx(bits, rel=1e-12)
    assert m["bytes_per_token"] == m["val_bytes"] / m["val_tokens"]
    assert m["test_perplexity"] == math.exp(m["test_loss"])
    assert m["n_steps"] == len(column(folder, "speed.csv", "step"))
    assert m["train_tokens"] == m["n_steps"] * m["batch_tokens"]
    assert m["train_seconds"] == column(folder, "speed.csv", "elapsed_seconds")[-1]
    flop_per_s = m["tokens_per_s"] * finished.trainer.recorder.flop_per_token
    assert m["mfu"] == pytest.approx(flop_per_s / 1e9, rel=1e-12)  # of the higher ceiling
    assert 0 <= m["wait_share"] < 1
    assert m["n_parameters"] == sum(p.numel() for p in finished.trainer.model.parameters())
    assert m["peak_rss_mib"] > 100


def test_metrics_name_data_and_conditions(finished, cache) -> None:
    m, data = finished.metrics, finished.data

    expected = data.identity | {
        "train_split_tokens": data.train.n_predicted, "train_split_bytes": data.train.n_bytes,
        "val_tokens": data.validation.n_predicted, "val_bytes": data.validation.n_bytes,
        "base": "respsann", "preset": "smoke", "tokenizer": "bytes", "vocab_size": 257,
        "corpus_path": str(cache / "text.txt"), "ceiling_flop_per_s": 1e9,
        "peak_allocated_mib": 7.5, "compiled": False, "n_ranks": 1, "parallel": "ddp",
    }  # fmt: skip
    assert {key: m[key] for key in expected} == expected


def test_a_finished_training_run_again_trains_nothing_and_says_the_same(
    finished, folder, cache
) -> None:
    told: list[Progress] = []

    # What does not change the course may change.
    options = {"keep_checkpoints": 1, "target_perplexity": 1.5}
    again = train(folder, config_in(cache, **options), watch=told.append).metrics

    assert told == []
    assert again.keys() == finished.metrics.keys()
    times = {"mfu", "peak_rss_mib", "ceiling_flop_per_s", "peak_allocated_mib"}
    assert {key for key in again if finished.metrics[key] != again[key]} <= times | set(options)
    assert again["mfu"] is again["ceiling_flop_per_s"] is None
    assert again["target_perplexity"] == 1.5
    assert yaml.safe_load((folder / CONFIG).read_text())["keep_checkpoints"] == 1


def test_a_test_split_that_nobody_asks_for_is_not_evaluated(finished, folder, cache) -> None:
    part = train(folder, config_in(cache), with_test=False)

    assert part.test is None
    assert finished.test is not None
    assert finished.metrics["test_loss"] == finished.test.loss
    assert {name for name in finished.metrics if name not in part.metrics} == {
        "test_loss", "test_perplexity", "test_bits_per_byte", "test_tokens", "test_bytes",
    }  # fmt: skip
    assert part.validation.loss == part.metrics["val_loss"] == finished.metrics["val_loss"]


def test_the_best_checkpoint_is_not_written_where_nobody_wants_it(tmp_path, cache) -> None:
    options = {"epochs": 1, "checkpoint_steps": 5, "evaluations": 4, "batch_tokens": 128}

    for name, keep_best in (("a", True), ("b", False)):
        train(tmp_path / name, config_in(cache, **options), keep_best=keep_best)

    steps = [[int(c.name[5:]) for c in checkpoints(tmp_path / name)] for name in ("a", "b")]
    n_steps = len(column(tmp_path / "a", "speed.csv", "step"))
    assert steps[1] == sorted({*range(5, n_steps, 5), n_steps})
    assert set(steps[0]) > set(steps[1])


def test_a_training_of_less_than_an_epoch_tells_the_mean_of_its_steps(tmp_path, cache) -> None:
    done = train(tmp_path, config_in(cache, epochs=0.5))

    [mean] = column(tmp_path, "loss.csv", "train_loss", per="epoch")
    steps = column(tmp_path, "loss.csv", "train_loss", per="step")
    assert done.metrics["train_loss"] == mean == pytest.approx(sum(steps) / len(steps))


def test_a_folder_with_another_training_is_refused_and_left_as_it_is(folder, cache) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    message = r"another configuration: d_mlp 24 and not 32, seed 0 and not 1; name another folder"
    with pytest.raises(ConfigError, match=message):
        train(folder, config_in(cache, d_mlp=32, seed=1))

    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": "datasets/lm/nothing_here.txt"}, "nothing_here.txt does not exist"),
        ({"tokenizer": "bpe", "vocab_size": 9999}, "vocab_size must be at most"),
        (
            {"context_length": 4096, "batch_tokens": 4096, "pass_tokens": 4096},
            r"must hold context_length \+ 1 = 4097 tokens",
        ),
    ],
)
def test_a_training_that_is_refused_claims_no_folder(tmp_path, cache, changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "new", config_in(cache, **changes))

    train(tmp_path / "new", config_in(cache, epochs=0.2))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/new cannot be written: Not a directory; make room"):
        train(tmp_path / "file" / "new", config_in(cache))


@pytest.mark.parametrize("name", [CONFIG, "tokenizer.json", METRICS])
def test_a_disk_that_is_full_is_a_message(tmp_path, cache, monkeypatch, name: str) -> None:
    replace = Path.replace

    def full_at_one(source: Path, target: Path) -> Path:
        if target.name == name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, target)

    monkeypatch.setattr(Path, "replace", full_at_one)

    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: No space left on device"):
        train(tmp_path, config_in(cache, epochs=0.2))

    assert not (tmp_path / name).exists()
    assert not list(tmp_path.glob("*.tmp"))


def test_folders_are_told_apart_by_course_alone(cache) -> None:
    config, source = config_in(cache), Path("params/smoke/tiny_corpus.yaml")

    folder = default_folder(source, config)

    assert folder.name.startswith("smoke_tiny_corpus_")
    assert default_folder(source, config_in(cache, pass_tokens=64)) == folder
    assert default_folder(source, config_in(cache, seed=1)) != folder
