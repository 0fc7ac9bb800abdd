"""The log grows by whole rows, and going on cuts off what its checkpoint does not know."""

import csv
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from psannlm.config.schema import ConfigError
from psannlm.train.journal import FILES, LOSS, Journal


def rows(folder: Path, name: str = "loss.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as lines:
        return list(csv.DictReader(lines))


def step(number: int) -> dict[str, Any]:
    return {"per": "step", "step": number, "train_loss": 1 / 3 + number}


def test_a_new_journal_has_its_columns_and_then_each_row_at_once_to_the_last_digit(
    tmp_path,
) -> None:
    (tmp_path / "loss.csv").write_text("of an earlier training\n" * 9)

    journal = Journal(tmp_path)

    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        name: ",".join(columns) + "\n" for name, columns in FILES.items()
    }
    journal.add("loss.csv", step(1))
    journal.add("speed.csv", {"step": 1, "step_seconds": 1e-7})
    [row] = rows(tmp_path)
    assert float(row["train_loss"]) == 1 / 3 + 1
    assert {name: row[name] for name in LOSS if row[name]}.keys() == {"per", "step", "train_loss"}
    assert float(rows(tmp_path, "speed.csv")[0]["step_seconds"]) == 1e-7
    with pytest.raises(ValueError, match="train_lost"):
        journal.add("loss.csv", {"step": 1, "train_lost": 2.0})


def test_going_on_cuts_off_what_came_after_the_checkpoint(tmp_path) -> None:
    journal = Journal(tmp_path)
    for number in (1, 2):
        journal.add("loss.csv", step(number))
    lengths = journal.lengths()
    before = (tmp_path / "loss.csv").read_bytes()
    journal.add("loss.csv", step(3))
    journal.add("speed.csv", {"step": 3})
    with (tmp_path / "loss.csv").open("a") as file:
        file.write("step,4,0.0")  # half a line, as a kill leaves it

    again = Journal(tmp_path, lengths)

    assert (tmp_path / "loss.csv").read_bytes() == before
    assert rows(tmp_path, "speed.csv") == []
    again.add("loss.csv", step(3))
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3"]


def test_lengths_are_told_once_they_are_on_disk(tmp_path, monkeypatch) -> None:
    journal = Journal(tmp_path)
    journal.add("loss.csv", step(1))
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(os.fstat(file).st_ino))

    lengths = journal.lengths()

    assert lengths == {name: (tmp_path / name).stat().st_size for name in FILES}
    assert flushed == [(tmp_path / name).stat().st_ino for name in FILES]


@pytest.mark.parametrize("content", [None, b"", b"per,step"])
def test_a_log_that_has_lost_rows_is_not_gone_on_with(tmp_path, content: bytes | None) -> None:
    journal = Journal(tmp_path)
    journal.add("loss.csv", step(1))
    lengths = journal.lengths()
    (tmp_path / "loss.csv").unlink()
    if content is not None:
        (tmp_path / "loss.csv").write_bytes(content)

    message = rf"loss\.csv must have the {lengths['loss.csv']} bytes .* got {len(content or b'')};"
    with pytest.raises(ConfigError, match=message):
        Journal(tmp_path, lengths)


def test_a_folder_that_cannot_be_written_and_a_full_disk_are_messages(
    tmp_path, monkeypatch
) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "file").touch()

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: No space left on device"):
        journal.lengths()
    with pytest.raises(ConfigError, match="file cannot be written: Not a directory; make room"):
        Journal(tmp_path / "file")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_row_that_finds_no_room_is_a_message(tmp_path) -> None:
    journal = Journal(tmp_path)
    (tmp_path / "loss.csv").unlink()
    (tmp_path / "loss.csv").symlink_to("/dev/full")

    with pytest.raises(ConfigError, match=f"{tmp_path} cannot be written: No space left on device"):
        journal.add("loss.csv", step(1))
