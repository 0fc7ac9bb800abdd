"""What a new process loads is held to what was saved, bit by bit.

Real processes, sound and broken, are started in test_twins.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.checks import launcher, saving
from psannlm.checks.findings import Case
from psannlm.checks.launcher import ProcessError, Task
from psannlm.checks.networks import n_different, parameters_of, start
from psannlm.checks.saving import FILES, Saved, account, advance, flips_accepted, work
from psannlm.config.schema import ConfigError
from psannlm.train import checkpoint
from psannlm.train.distributed import gather
from tests.checked import BASES, case_of, failed, validation_config

CPU = torch.device("cpu")
CONFIG = validation_config(base=BASES[:2])
TINY = validation_config(n_layers=1, context_length=20, d_model=8, d_mlp=8, base="transformer")


def trained() -> Any:
    """A network and its optimizer after the first part of a run."""
    objective, optimizer = start(TINY.network_of("transformer"), TINY, CPU, 0)
    advance(objective, optimizer, TINY, 0)
    return objective, optimizer


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a network of three steps is saved."""
    place = tmp_path / "transformer"
    objective, optimizer = trained()
    checkpoint.save(place, *gather(objective, [optimizer]), {"step": 3})
    return place


def n_unlike(one: Any, other: Any) -> int:
    """Elements in which two accounts differ."""
    assert list(one) == list(other) == ["weights", "optimizer", "generated", "continued"]
    return sum(n_different(one[part], other[part]) for part in one)


@pytest.fixture
def starts(monkeypatch) -> list[tuple[str, ...]]:
    """Jobs of each start of a loading process, which is this one."""
    starts: list[tuple[str, ...]] = []

    def run_jobs(doing: Any, task: Task) -> Any:
        starts.append(tuple(task.jobs))
        return {base: [told] for base, told in zip(task.jobs, doing(task), strict=True)}

    monkeypatch.setattr(saving, "run_jobs", run_jobs)
    monkeypatch.setattr(launcher, "_made", {})
    return starts


def test_all_bases_are_loaded_at_one_time_and_asked_for_again_made_anew(starts) -> None:
    cases = [Case(base=base, config=CONFIG, device=CPU) for base in BASES[:2]]

    results = [saving.check(case) for case in cases]
    saving.check(cases[0])

    assert not any(failed(result) for result in results)
    assert starts == [("respsann", "sgrpsann")] * 2
    assert results[0].facts["checkpoint_bytes"] > 3 * 4 * 10_000
    assert results[0].facts["bits_flipped"] == 15


def test_a_base_that_cannot_be_saved_fails_alone(monkeypatch, starts) -> None:
    save = checkpoint.save

    def refused(folder: Path, *others: Any) -> Path:
        if folder.name == "respsann":
            raise ConfigError("no room for respsann")
        return save(folder, *others)

    monkeypatch.setattr(checkpoint, "save", refused)

    with pytest.raises(ProcessError, match="ConfigError: no room for respsann"):
        saving.check(Case(base="respsann", config=CONFIG, device=CPU))
    assert not failed(saving.check(Case(base="sgrpsann", config=CONFIG, device=CPU)))


@pytest.mark.parametrize(
    ("part", "measure"),
    [
        ("weights", "weights that differ after loading, elements"),
        ("optimizer", "tensors of the optimizer that differ after loading, elements"),
        ("generated", "generated tokens that differ, greedy and sampled"),
        ("continued", "parameters and losses that differ after 3 more steps, elements"),
    ],
)
def test_one_element_that_differs_is_seen(monkeypatch, part, measure) -> None:
    right = {
        name: {"a": torch.ones(3)} for name in ("weights", "optimizer", "generated", "continued")
    }
    saved = Saved(right, 0, [], loaded=right | {part: {"a": torch.ones(3) + torch.eye(3)[0]}})
    monkeypatch.setattr(saving, "_save_and_load", lambda *_: {"transformer": saved})

    result = saving.check(case_of("transformer"))

    assert failed(result) == {measure: "1, 0"}


def test_flipped_bits_are_refused_and_flipped_back(place) -> None:
    [folder] = place.iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    assert flips_accepted(folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", FILES)
def test_a_file_whose_bits_do_not_count_is_named(monkeypatch, place, name) -> None:
    [folder] = place.iterdir()
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


@pytest.mark.parametrize(
    ("error", "n_accepted"),
    [
        (ValueError("model.safetensors is odd"), 15),
        (ConfigError("model.safetensors was altered"), 10),
    ],
)
def test_only_a_refusal_by_the_name_of_the_file_counts(monkeypatch, place, error, n_accepted):
    def load(path: Path) -> None:
        raise error

    monkeypatch.setattr(checkpoint, "load", load)

    assert len(flips_accepted(next(place.iterdir()))) == n_accepted


def test_a_run_has_two_parts_of_three_steps_on_text_of_their_own() -> None:
    first, again, second = (
        advance(*start(TINY.network_of("transformer"), TINY, CPU, 0), TINY, part).losses
        for part in (0, 0, 1)
    )

    assert len(first) == len(second) == 3
    assert first[0] != second[0]
    assert torch.equal(first, again)


def test_an_account_tells_the_state_before_it_goes_on_and_after() -> None:
    objective, optimizer = trained()
    before = parameters_of(objective)

    told = account(objective, optimizer, TINY)

    for name, parameter in parameters_of(objective).items():
        assert torch.equal(told["weights"][name], before[name])
        assert torch.equal(told["continued"][name], parameter)
        assert not torch.equal(before[name], parameter)
        assert told["optimizer"][f"{name}.step"] == 3
    assert len(told["continued"]["losses"]) == 3
    greedy, sampled = told["generated"]["greedy"], told["generated"]["sampled"]
    assert greedy.shape == sampled.shape == (2, TINY.context_length - 8)
    assert not torch.equal(greedy, sampled)


def test_the_last_checkpoint_is_loaded_bit_by_bit_into_other_weights(place, monkeypatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(saving, "start", lambda *given: seeds.append(given[-1]) or start(*given))
    task = Task(TINY, ("transformer",), CPU, source=place.parent)
    last_seed = TINY.model_copy(update={"seed": 2**32 - 1})

    [first] = work(task)
    objective, optimizer = trained()
    advance(objective, optimizer, TINY, 1)
    checkpoint.save(place, *gather(objective, [optimizer]), {"step": 6})
    [second] = work(task)
    list(work(Task(last_seed, ("transformer",), CPU, source=place.parent)))

    assert n_unlike(first, account(*trained(), TINY)) == 0
    assert n_unlike(second, account(objective, optimizer, TINY)) == 0
    assert seeds == [1, 1, 0]
