"""A session leaves a folder that says what was trained, how well, and takes no other training."""

import csv
import errno
import functools
import json
import math
import os
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

TIMES = {"train_seconds", "tokens_per_s", "wait_share", "mfu", "peak_rss_mib"}


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


def test_the_peak_is_that_of_the_training_and_not_of_the_ceiling(
    tmp_path, cache, monkeypatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(session, "_forget_peak", lambda device: told.append("forget"))
    monkeypatch.setattr(session, "_peak_mib", lambda device: told.append("peak") or 7.5)

    done = train(tmp_path, config_in(cache), ceiling=lambda: told.append("ceiling") or 1e9)

    assert told == ["ceiling", "forget", "peak", "ceiling"]
    assert done.metrics["peak_allocated_mib"] == 7.5


def test_a_finished_training_leaves_all_that_tells_of_it(tmp_path, cache) -> None:
    config = config_in(cache)

    done = train(tmp_path / "a" / "b", config)

    folder = tmp_path / "a" / "b"
    assert {path.name for path in folder.iterdir() if path.is_file()} == {
        "config.yaml", "tokenizer.json", "loss.csv", "speed.csv", "metrics.json",
    }  # fmt: skip
    said = parse(TrainingConfig, read_parameters(folder / CONFIG), source="config.yaml")
    assert said == config
    assert Tokenizer.load(folder / "tokenizer.json").sha256 == done.data.tokenizer.sha256
    assert json.loads((folder / METRICS).read_text()) == done.metrics


def test_metrics_agree_with_each_other_and_with_the_log(tmp_path, cache) -> None:
    rates = iter([0.5e9, 1e9])
    done = train(tmp_path, config_in(cache), ceiling=lambda: next(rates))
    m = done.metrics

    losses = column(tmp_path, "loss.csv", "val_loss", per="evaluation")
    assert m["val_loss"] == losses[-1]
    assert (m["best_val_loss"], m["best_step"]) == (min(losses), done.trainer.tally.best_step)
    assert m["train_loss"] == column(tmp_path, "loss.csv", "train_loss", per="epoch")[-1]
    assert m["perplexity"] == math.exp(m["val_loss"])
    assert m["target_reached"] == (m["perplexity"] <= m["target_perplexity"])
    for kind, loss in (("val", "val_loss"), ("test", "test_loss")):
        bits = m[loss] * m[f"{kind}_tokens"] / m[f"{kind}_bytes"] / math.log(2)
        name = "bits_per_byte" if kind == "val" else "test_bits_per_byte"
        assert m[name] == pytest.approx(bits, rel=1e-12)
    assert m["bytes_per_token"] == m["val_bytes"] / m["val_tokens"]
    assert m["test_perplexity"] == math.exp(m["test_loss"])
    assert m["n_steps"] == len(column(tmp_path, "speed.csv", "step"))
    assert m["train_tokens"] == m["n_steps"] * m["batch_tokens"]
    assert m["train_seconds"] == column(tmp_path, "speed.csv", "elapsed_seconds")[-1]
    flop_per_s = m["tokens_per_s"] * done.trainer.recorder.flop_per_token
    assert m["mfu"] == pytest.approx(flop_per_s / 1e9, rel=1e-12)
    assert 0 <= m["wait_share"] < 1
    assert m["n_parameters"] == sum(p.numel() for p in done.trainer.model.parameters())


def test_metrics_name_data_and_conditions(tmp_path, cache) -> None:
    m = train(tmp_path, config_in(cache)).metrics
    data = session.read(config_in(cache))

    assert {key: m[key] for key in data.identity} == data.identity
    assert m["train_split_tokens"] == data.train.n_predicted
    assert m["train_split_bytes"] == data.train.n_bytes
    assert (m["val_tokens"], m["val_bytes"]) == (
        data.validation.n_predicted, data.validation.n_bytes,
    )  # fmt: skip
    expected = {
        "base": "respsann", "preset": "smoke", "tokenizer": "bytes", "vocab_size": 257,
        "corpus_path": str(cache / "text.txt"), "ceiling_flop_per_s": None, "mfu": None,
        "peak_allocated_mib": None, "compiled": False, "n_ranks": 1, "parallel": "ddp",
    }  # fmt: skip
    assert {key: m[key] for key in expected} == expected
    assert m["peak_rss_mib"] > 100


def test_a_finished_training_run_again_trains_nothing_and_says_the_same(tmp_path, cache) -> None:
    config = config_in(cache)
    first = train(tmp_path, config).metrics
    told: list[Progress] = []

    again = train(tmp_path, config, watch=told.append).metrics

    assert told == []
    assert first.keys() == again.keys()
    times = TIMES - {"train_seconds", "tokens_per_s", "wait_share"}  # those stand in speed.csv
    assert {key for key in first if first[key] != again[key]} <= times


def test_a_test_split_that_nobody_asks_for_is_not_evaluated(tmp_path, cache) -> None:
    whole = train(tmp_path / "a", config_in(cache, epochs=0.2))
    part = train(tmp_path / "b", config_in(cache, epochs=0.2), with_test=False)

    assert part.test is None
    assert whole.test is not None
    assert whole.metrics["test_loss"] == whole.test.loss
    assert {name for name in whole.metrics if name not in part.metrics} == {
        "test_loss", "test_perplexity", "test_bits_per_byte", "test_tokens", "test_bytes",
    }  # fmt: skip
    assert part.validation.loss == part.metrics["val_loss"] == whole.metrics["val_loss"]


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


def test_a_folder_with_another_training_is_refused_and_left_as_it_is(tmp_path, cache) -> None:
    train(tmp_path, config_in(cache))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    message = r"another configuration: d_mlp 24 and not 32, seed 0 and not 1; name another folder"
    with pytest.raises(ConfigError, match=message):
        train(tmp_path, config_in(cache, d_mlp=32, seed=1))

    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_what_does_not_change_the_course_may_change(tmp_path, cache) -> None:
    train(tmp_path, config_in(cache))

    done = train(tmp_path, config_in(cache, keep_checkpoints=1, target_perplexity=1.5))

    assert done.metrics["target_perplexity"] == 1.5
    assert yaml.safe_load((tmp_path / CONFIG).read_text())["keep_checkpoints"] == 1


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


def test_a_folder_that_cannot_be_made_is_a_message(tmp_path, cache) -> None:
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
