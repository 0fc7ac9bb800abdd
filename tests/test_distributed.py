"""Ranks that share a batch learn what one process learns from it, and go on from one file.

The slow tests start two real processes under torchrun; what they train is compared with one.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import safetensors.torch
import torch
import yaml

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train.checkpoint import checkpoints
from psannlm.train.distributed import Ranks, join, refuse_disagreement
from tests.tiny_trainings import ALONE, column, rows, session_in, training_config, write_text

LAUNCHER = """
import sys
from pathlib import Path

from psannlm.config.parse import parse, read_parameters
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.train.distributed import join
from psannlm.train.trainer import train

with join("cpu") as ranks:
    for name in sys.argv[1:]:
        folder, path = Path(name), Path(name + ".yaml")
        own = [Path(f"{name}.{ranks.rank}{suffix}") for suffix in ("", ".yaml")]
        folder, path = (a if a.exists() else b for a, b in zip(own, (folder, path)))
        config = parse(TrainingConfig, read_parameters(path), source=path.name)
        try:
            train(config, folder, ranks)
        except ConfigError as error:
            print(f"<{Path(name).name} {ranks.rank}: {error}>", flush=True)
"""
"""Trains in each folder named, or in that of the rank's own if there is one."""

COURSES: dict[str, dict[str, Any]] = {
    "ddp": {"parallel": "ddp", "base": "waveresnet"},
    "fsdp": {"parallel": "fsdp", "base": "sgrpsann", "grad_checkpoint": True},
    "fsdp_one_pass": {"parallel": "fsdp", "pass_tokens": 64, "learnable": ("decay",)},
    "ddp_muon": {"parallel": "ddp", "optimizer": "muon"},
    "fsdp_muon": {"parallel": "fsdp", "optimizer": "muon"},
    "ddp_compiled": {"parallel": "ddp", "compile": True, "n_layers": 1},
    "fsdp_compiled": {"parallel": "fsdp", "compile": True, "n_layers": 1},
    "fsdp_fp16": {"parallel": "fsdp", "precision": "fp16", "base": "transformer"},
}
"""Each trains 12 steps, evaluates after 6 and 12, and saves there."""


def course(folder: Path, **changes: Any) -> TrainingConfig:
    corpus = str(folder / "text.txt")
    values = {"epochs": 1, "pass_tokens": 32, "checkpoint_steps": 6, "clip_norm": 0.8}
    return training_config(**{"corpus": corpus, **values, **changes})


def written(path: Path, config: TrainingConfig) -> None:
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))


def torchrun(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Two ranks whose cache is `folder` / cache."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PSANNLM_CACHE": str(folder / "cache")}
    options = {"env": os.environ | own, "cwd": ROOT, "capture_output": True, "text": True}
    return subprocess.run([*command, *arguments], timeout=300, **options)


def launched(folder: Path, *names: str) -> str:
    """What two ranks say while they train, one after the other, the courses of these names."""
    (folder / "launcher.py").write_text(LAUNCHER)
    done = torchrun(folder, str(folder / "launcher.py"), *(str(folder / name) for name in names))
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every course trained by two ranks in NAME, and by one process in NAME_alone."""
    folder = tmp_path_factory.mktemp("ranks")
    write_text(folder)
    for name, changes in COURSES.items():
        written(folder / f"{name}.yaml", course(folder, **changes))
    launched(folder, *COURSES)
    for name, changes in COURSES.items():
        alone = course(folder, **changes | {"compile": False})
        session_in(folder / f"{name}_alone", alone, folder / "cache")
    return folder


def distance(folder: Path, other: Path, name: str) -> float:
    """Largest difference between two logs, which must have the same rows."""
    a, b = (pd.read_csv(path / "loss.csv") for path in (folder, other))
    assert a[["per", "step", "tokens"]].equals(b[["per", "step", "tokens"]])
    return float((a[name] - b[name]).abs().max())


def weights_of(folder: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(checkpoints(folder)[-1] / file)


def furthest(folder: Path, other: Path) -> float:
    """Largest difference between the last weights of two trainings."""
    a, b = weights_of(folder), weights_of(other)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.mark.slow
@pytest.mark.parametrize("name", COURSES)
def test_two_ranks_learn_what_one_process_learns_from_the_joined_batch(trainings, name) -> None:
    pair, alone = trainings / name, trainings / f"{name}_alone"
    # Muon iterates in bfloat16, whose 8 bits make a change in the last bit of a gradient a percent
    # of the step; pieces of ranks turned by themselves would be some ten percent off. float16 has
    # 11 bits, and products are rounded in another order.
    narrow = "muon" in name or "fp16" in name
    tolerance = 2e-3 if narrow else 1e-5

    losses = column(pair, "train_loss")
    assert len(losses) == len(rows(pair, name="speed.csv")) == 12
    assert column(pair, "train_loss", "epoch")[-1] < losses[0] - 0.2
    assert distance(pair, alone, "train_loss") < tolerance
    if "fp16" not in name:
        assert distance(pair, alone, "val_loss") < tolerance
    if not narrow:
        assert distance(pair, alone, "grad_norm") < tolerance
        assert distance(pair, alone, "top1") == 0
        assert furthest(pair, alone) < tolerance
    assert [path.name for path in checkpoints(pair)] == [p.name for p in checkpoints(alone)]
    for file in ("model.safetensors", "optimizer.safetensors"):
        a, b = (weights_of(folder, file) for folder in (pair, alone))
        assert {k: (t.shape, t.dtype) for k, t in a.items()} == {
            k: (t.shape, t.dtype) for k, t in b.items()
        }


def broken_off(source: Path, target: Path) -> None:
    """A copy of a training as it was after step 6."""
    shutil.copytree(source, target)
    shutil.rmtree(target / "step_00000012")
    (target / "metrics.json").unlink()


@pytest.fixture(scope="module")
def gone_on(trainings: Path) -> tuple[Path, str]:
    """Trainings broken off at step 6 and ended by two ranks in NAME_again or by one in NAME_one.

    With what the ranks said of those that are refused meanwhile.
    """
    for name in ("ddp", "fsdp", "fsdp_muon", "ddp_alone", "fsdp_alone"):
        broken_off(trainings / name, trainings / f"{name}_again")
        source = trainings / f"{name.removesuffix('_alone')}.yaml"
        shutil.copy(source, trainings / f"{name}_again.yaml")
    for name in ("ddp", "fsdp"):
        broken_off(trainings / name, trainings / f"{name}_one")
        alone = course(trainings, **COURSES[name])
        session_in(trainings / f"{name}_one", alone, trainings / "cache")
    again = [path.name for path in trainings.glob("*_again")]
    return trainings, launched(trainings, *refused_courses(trainings), *again)


def refused_courses(folder: Path) -> list[str]:
    """Names of trainings that two ranks cannot do together; their configurations are written."""
    write_text(folder / "other", seed=1)
    refused: dict[str, tuple[TrainingConfig, TrainingConfig]] = {
        "seeds": (course(folder), course(folder, seed=1)),
        "texts": (course(folder), course(folder / "other")),
        "odd": (course(folder, pass_tokens=128),) * 2,
        "apart": (course(folder, **COURSES["ddp"]),) * 2,
    }
    for name, pair in refused.items():
        for rank, config in enumerate(pair):
            written(folder / f"{name}.{rank}.yaml", config)
    # As on two machines whose folders are not the same.
    broken_off(folder / "ddp", folder / "apart.0")
    (folder / "apart.1").mkdir()
    return list(refused)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddp", "fsdp", "fsdp_muon"])
def test_two_ranks_go_on_from_their_checkpoint_bit_by_bit(gone_on, name) -> None:
    whole, again = gone_on[0] / name, gone_on[0] / f"{name}_again"

    assert (again / "loss.csv").read_bytes() == (whole / "loss.csv").read_bytes()
    assert furthest(whole, again) == 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize(("whole", "again"), [("_alone", "_alone_again"), ("", "_one")])
def test_one_process_and_two_ranks_go_on_from_the_checkpoint_of_the_other(
    gone_on, kind, whole, again
) -> None:
    folders = [gone_on[0] / f"{kind}{end}" for end in (whole, again)]

    assert distance(*folders, "train_loss") < 1e-5
    assert furthest(*folders) < 1e-5


@pytest.mark.slow
def test_ranks_that_cannot_train_together_say_why(gone_on) -> None:
    folder, said = gone_on

    for rank in (0, 1):
        assert f"<seeds {rank}: ranks disagree: the configuration of rank 1 is not that of" in said
        assert f"<texts {rank}: ranks disagree: the " in said
        assert f"<odd {rank}: batch_tokens must be a multiple of pass_tokens times" in said
        assert f"<apart {rank}: ranks disagree: the newest checkpoint of rank 1 is not" in said
    assert said.count("<") == 8
    assert not [name for name in ("seeds", "texts", "odd") if list(folder.glob(f"{name}*/*.csv"))]
    assert not (folder / "apart.1" / "loss.csv").exists()


@pytest.mark.slow
def test_a_rank_that_stops_ends_the_others_with_its_message(tmp_path) -> None:
    written(tmp_path / "c.yaml", course(tmp_path))  # its text is not there

    arguments = ("--config", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "out"))
    done = torchrun(tmp_path, "-m", "psannlm", "train", *arguments)

    assert done.returncode != 0
    assert f"error: {tmp_path / 'text.txt'} does not exist" in done.stderr


def test_a_process_that_torchrun_did_not_start_is_alone(monkeypatch) -> None:
    monkeypatch.delenv("RANK", raising=False)

    with join("cpu") as ranks:
        assert ranks == ALONE
        assert ranks.is_first
        assert ranks.sum(torch.tensor(2.0)) == 2
        ranks.wait()
        refuse_disagreement(ranks, {"anything": object()})


def test_ranks_on_gpus_tell_nccl_which_one_is_theirs_and_more_of_them_are_refused(
    monkeypatch,
) -> None:
    told: dict[str, Any] = {}
    fakes = {
        "psannlm.train.distributed.select_device": lambda _: torch.device("cuda"),
        "torch.cuda.device_count": lambda: 2,
        "torch.cuda.set_device": lambda device: told.update(device=device),
        "torch.distributed.init_process_group": lambda kind, **given: told.update(given),
        "torch.distributed.get_rank": lambda: 1,
        "torch.distributed.get_world_size": lambda: 2,
        "torch.distributed.destroy_process_group": lambda: None,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(name, fake)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")

    with join("auto") as ranks:
        assert ranks.device == torch.device("cuda", 1)
    assert told == {"device": ranks.device, "device_id": ranks.device}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    message = "torchrun started rank 1 here, but there are 1 GPUs; start as many processes as GPUs"
    with pytest.raises(ConfigError, match=message), join("auto"):
        pass


def test_every_fact_that_differs_is_found_and_the_ranks_at_odds_named(monkeypatch) -> None:
    ranks, facts = Ranks(2, 4, torch.device("cpu")), {"the seed": 0, "the text": "a"}
    told: list[torch.Tensor] = []

    def all_gather(everyone: list[torch.Tensor], mine: torch.Tensor) -> None:
        told.append(mine.clone())
        for place, i in zip(everyone, said, strict=True):
            place.copy_(told[i])

    monkeypatch.setattr("torch.distributed.all_gather", all_gather)
    said = (-1, -1, -1, -1)  # all say what this rank does
    for changed in ({}, {"the seed": 1}, {"the text": "b"}):
        refuse_disagreement(ranks, facts | changed)

    for other, name in ((1, "the seed"), (2, "the text")):
        said = (0, other, 0, other)
        with pytest.raises(ConfigError, match=f"{name} of rank 1, 3 is not that of rank 0; start"):
            refuse_disagreement(ranks, facts)
