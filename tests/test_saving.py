"""What a new process loads is held to what was saved, bit by bit.

Real processes, sound and broken, are started in test_twins.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.checks import saving
from psannlm.checks.findings import Case
from psannlm.checks.launcher import Outcome, ProcessError
from psannlm.checks.load_worker import loaded
from psannlm.checks.saving import FILES, Saved, flips_accepted
from psannlm.config.schema import ConfigError
from psannlm.train import checkpoint
from tests.checked import BASES, case_of, failed, validation_config

CPU = torch.device("cpu")


@pytest.fixture
def in_this_process(monkeypatch) -> list[list[str]]:
    """The loading process is this one; jobs of each start."""
    starts: list[list[str]] = []

    def run_jobs(worker: Any, jobs: Sequence[str], config: Any, **options: Any) -> Any:
        starts.append(list(jobs))
        place = options["beside"]
        return {b: Outcome((loaded(place / b, b, config, CPU),), "") for b in jobs}

    monkeypatch.setattr(saving, "run_jobs", run_jobs)
    monkeypatch.setattr(saving, "_waiting", {})
    return starts


def test_all_bases_are_loaded_at_one_time_and_asked_for_again_made_anew(in_this_process) -> None:
    config = validation_config(base=BASES[:2])
    cases = [Case(base=base, config=config, device=CPU) for base in BASES[:2]]

    results = [saving.check(case) for case in cases]
    saving.check(cases[0])

    assert not any(failed(result) for result in results)
    assert in_this_process == [["respsann", "sgrpsann"]] * 2
    assert results[0].facts["checkpoint_bytes"] > 3 * 4 * 10_000
    assert results[0].facts["bits_flipped"] == 15


@pytest.mark.parametrize(
    ("part", "measure"),
    [
        ("weights.", "weights that differ after loading, elements"),
        ("optimizer.", "tensors of the optimizer that differ after loading, elements"),
        ("generated.", "generated tokens that differ, greedy and sampled"),
        ("continued.", "parameters and losses that differ after 3 more steps, elements"),
    ],
)
def test_one_element_that_differs_is_seen(monkeypatch, part, measure) -> None:
    case = case_of("transformer")
    names = ("weights.a", "optimizer.a.step", "generated.greedy", "continued.a")
    account = {name: torch.ones(3) for name in names}
    changed = {n: t + torch.eye(3)[0] if n.startswith(part) else t for n, t in account.items()}
    saved = Saved(account=account, outcome=Outcome((changed,), ""))
    monkeypatch.setattr(saving, "_waiting", {(case.config, "transformer"): saved})

    result = saving.check(case)

    assert [*failed(result)] == [measure]
    assert next(m.value for m in result.measures if m.name == measure) == 1


def test_a_base_that_cannot_be_saved_fails_alone(monkeypatch, in_this_process) -> None:
    config = validation_config(base=BASES[:2])
    save = checkpoint.save

    def refused(folder: Path, *others: Any) -> Path:
        if folder.name == "respsann":
            raise ConfigError("no room for respsann")
        return save(folder, *others)

    monkeypatch.setattr(checkpoint, "save", refused)

    with pytest.raises(ProcessError, match="ConfigError: no room for respsann"):
        saving.check(Case(base="respsann", config=config, device=CPU))
    assert not failed(saving.check(Case(base="sgrpsann", config=config, device=CPU)))


def saved(folder: Path) -> Path:
    weights = {"a": torch.arange(300.0)}
    return checkpoint.save(folder, weights, {"a.step": torch.tensor(1.0)}, {"step": 1})


def test_flipped_bits_are_refused_and_flipped_back(tmp_path) -> None:
    folder = saved(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    assert flips_accepted(folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", FILES)
def test_a_file_whose_bits_do_not_count_is_named(monkeypatch, tmp_path, name) -> None:
    folder = saved(tmp_path)
    content = (folder / name).read_bytes()
    load = checkpoint.load

    def careless(path: Path) -> Any:
        altered = (path / name).read_bytes()
        (path / name).write_bytes(content)
        try:
            return load(path)
        finally:
            (path / name).write_bytes(altered)

    monkeypatch.setattr(checkpoint, "load", careless)

    passed = flips_accepted(folder)

    assert len(passed) == 5
    assert all(text.startswith(f"{name}, byte ") and text.endswith(": loaded") for text in passed)


def test_an_error_that_is_no_refusal_counts_as_none(monkeypatch, tmp_path) -> None:
    folder = saved(tmp_path)

    def wrong(error: Exception) -> Any:
        def load(path: Path) -> None:
            raise error

        return load

    monkeypatch.setattr(checkpoint, "load", wrong(ValueError("model.safetensors is odd")))
    assert len(flips_accepted(folder)) == 15
    monkeypatch.setattr(checkpoint, "load", wrong(ConfigError("model.safetensors was altered")))
    assert len(flips_accepted(folder)) == 10
