"""A checkpoint comes back bit by bit, or is refused by the name of the file that is wrong."""

import ast
import errno
import os
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from psannlm import ROOT
from psannlm.files import sha256_of
from psannlm.train import checkpoint
from psannlm.train.checkpoint import ABOUT, OPTIMIZER, WEIGHTS, CheckpointError, checkpoints

FILES = (WEIGHTS, OPTIMIZER, ABOUT)
ABOUT_IT = {
    "tally": {"epoch_loss": 0.1 + 0.2, "best_loss": 1e-05, "best_step": None},
    "title": "Zoë",
}


def tensors() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    weights = {"a.weight": torch.randn(3, 4), "b.bias": torch.tensor([0.0, -0.0, 1e-40])}
    return weights, {"a.weight.exp_avg": torch.randn(3, 4), "a.weight.step": torch.tensor(7.0)}


def saved(folder: Path, step: int = 3) -> Path:
    weights, optimizer = tensors()
    return checkpoint.save(folder, weights, optimizer, {"step": step} | ABOUT_IT)


def bits(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


def test_what_was_saved_is_loaded_bit_by_bit_with_the_hashes_of_its_files(tmp_path) -> None:
    weights, optimizer = tensors()
    whole = torch.arange(12.0).view(3, 4)
    weights |= {"turned": whole.T, "part": whole[1], "tied": whole, "tied_too": whole}
    about = {"step": 3} | ABOUT_IT

    folder = checkpoint.save(tmp_path, weights, optimizer, about)
    loaded = checkpoint.load(folder)

    for before, after in ((weights, loaded.weights), (optimizer, loaded.optimizer)):
        assert {n: bits(t) for n, t in before.items()} == {n: bits(t) for n, t in after.items()}
    assert {key: loaded.about[key] for key in about} == about
    assert loaded.folder == folder == tmp_path / "step_00000003"
    for name in (WEIGHTS, OPTIMIZER):
        assert loaded.about["sha256"][name] == sha256_of(folder / name)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_in_a_file_is_refused(tmp_path, name: str) -> None:
    folder = saved(tmp_path)
    content = (folder / name).read_bytes()

    for place in range(0, len(content), max(1, len(content) // 40)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        (folder / name).write_bytes(flipped)

        with pytest.raises(CheckpointError, match=rf"{folder}: .*{name}"):
            checkpoint.load(folder)


def test_what_is_missing_is_told_with_what_there_is(tmp_path) -> None:
    saved(tmp_path, 3)
    folder = saved(tmp_path, 12)

    with pytest.raises(CheckpointError, match=r"no checkpoint.*step_00000003, step_00000012"):
        checkpoint.load(tmp_path)
    with pytest.raises(CheckpointError, match="checkpoints in it: none"):
        checkpoint.load(tmp_path / "nowhere")
    for name in (WEIGHTS, OPTIMIZER):
        (folder / name).rename(tmp_path / name)
        with pytest.raises(CheckpointError, match=f"{folder}: {name} is missing"):
            checkpoint.load(folder)
        (tmp_path / name).rename(folder / name)


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        (None, "", "cannot be read"),
        (None, '{"schema": ', "cannot be read"),
        (None, "[1]", f"schema of {ABOUT} must be 1, got 'list'"),
        (None, '{"schema": 99}', "must be 1, got 99; read it with the version that wrote"),
        (None, '{"schema": 1}', f"{ABOUT} was altered"),
        (None, '{"schema": 1, "sha256": 4}', f"{ABOUT} was altered"),
        # Even if it says the same.
        ("1e-05", "1E-05", f"{ABOUT} was altered"),
        (": 3", ":  3", f"{ABOUT} was altered"),
    ],
)
def test_a_description_that_is_none_or_was_altered_is_refused(
    tmp_path, then: str | None, now: str, message: str
) -> None:
    folder = saved(tmp_path)
    text = (folder / ABOUT).read_text()
    assert then is None or then in text

    (folder / ABOUT).write_text(text.replace(then, now) if then else now)

    with pytest.raises(CheckpointError, match=message):
        checkpoint.read_about(folder)


def test_a_checkpoint_of_something_else_is_refused_by_the_values_that_differ(tmp_path) -> None:
    then = {"d_model": 16, "seed": 0, "base": "respsann"}

    checkpoint.refuse_other(tmp_path, "course", then, dict(then))
    with pytest.raises(CheckpointError, match="another course: d_model 16 and not 32;"):
        checkpoint.refuse_other(tmp_path, "course", then, {**then, "d_model": 32})
    with pytest.raises(CheckpointError, match="seed 0 and not None, sead None and not 0;"):
        checkpoint.refuse_other(tmp_path, "course", {"seed": 0}, {"sead": 0})


def full(*arguments: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("module", "function"),
    [(safetensors.torch, "save_file"), (os, "fsync"), (Path, "write_text"), (Path, "replace")],
)
def test_a_full_disk_leaves_older_checkpoints_whole_and_nothing_else(
    tmp_path, monkeypatch, module: Any, function: str
) -> None:
    older = saved(tmp_path, 3)
    monkeypatch.setattr(module, function, full)

    with pytest.raises(CheckpointError, match=r"step_00000006 cannot be written.*No space left"):
        saved(tmp_path, 6)

    assert list(tmp_path.iterdir()) == [older]
    assert checkpoint.load(older).about["step"] == 3


class Killed(BaseException):
    """What no `except` of the code expects."""


@pytest.mark.parametrize("name", ["sha256_of", "_flush", "_own_hash"])
def test_an_interrupted_save_is_never_listed(tmp_path, monkeypatch, name: str) -> None:
    older = saved(tmp_path, 3)

    def killed(*arguments: Any) -> None:
        raise Killed

    def listed_before_it_is_removed(folder: Path, **options: Any) -> None:
        assert checkpoints(tmp_path) == [older]

    monkeypatch.setattr(checkpoint, name, killed)
    monkeypatch.setattr(checkpoint.shutil, "rmtree", listed_before_it_is_removed)

    with pytest.raises(Killed):
        saved(tmp_path, 6)

    assert checkpoints(tmp_path) == [older]
    assert (tmp_path / ".step_00000006.tmp").exists()  # as a kill would leave it


def test_checkpoints_are_listed_in_order_and_what_a_kill_left_is_swept_away(tmp_path) -> None:
    for name in (".step_00000010.tmp", ".step_00000300.tmp", "step_00000200", "step_5"):
        (tmp_path / name).mkdir()
    (tmp_path / ".step_00000300.tmp" / WEIGHTS).write_bytes(b"half")
    (tmp_path / "loss.csv").touch()
    for step in (10, 9, 100):
        saved(tmp_path, step)

    assert [checkpoint.load(path).about["step"] for path in checkpoints(tmp_path)] == [9, 10, 100]
    assert checkpoints(tmp_path / "nowhere") == []
    checkpoint.prune(tmp_path, keep=1, best=None)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000100"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("best", "kept"), [(None, [4, 5]), (2, [2, 4, 5]), (4, [4, 5]), (99, [4, 5])]
)
def test_the_newest_and_the_best_stay_and_no_half_checkpoint(
    tmp_path, monkeypatch, best: int | None, kept: list[int]
) -> None:
    for step in range(1, 6):
        saved(tmp_path, step)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "rmtree", full)
        with pytest.raises(CheckpointError, match=r"older checkpoint.*cannot be removed"):
            checkpoint.prune(tmp_path, keep=2, best=best)
    listed = [path.name for path in checkpoints(tmp_path)]

    checkpoint.prune(tmp_path, keep=2, best=best)

    assert listed == sorted(p.name for p in tmp_path.iterdir())
    assert listed == [f"step_{step:08d}" for step in kept]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_saved(tmp_path, value: float) -> None:
    weights = {"a.weight": torch.tensor([[1.0, 2.0], [3.0, value]])}

    with pytest.raises(CheckpointError, match=r"step_00000004.*a\.weight must be finite numbers"):
        checkpoint.save(tmp_path, weights, {}, {"step": 4})

    assert list(tmp_path.iterdir()) == []


def test_nothing_is_unpickled() -> None:
    guilty = set()
    for path in sorted((ROOT / "psannlm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            named = {a.name for a in node.names} if isinstance(node, ast.Import) else set()
            if isinstance(node, ast.ImportFrom):
                named = {str(node.module)}
            loads = isinstance(node, ast.Attribute) and ast.unparse(node) in (
                "torch.load", "np.load", "pd.read_pickle",
            )  # fmt: skip
            if loads or named & {"pickle", "_pickle", "dill", "joblib", "shelve", "marshal"}:
                guilty.add(path.name)

    # One calls nothing that a pickle names, one reads what processes of its own have just left.
    assert guilty == {"readers.py", "ranks.py"}
