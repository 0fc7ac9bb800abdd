"""What a new process loads is held to what was saved, bit by bit.

Real processes, sound and broken, are started in test_twins.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.checks import saving
from psannlm.checks.networks import n_different, parameters_of, start
from psannlm.checks.saving import account, advance, flips_accepted, work
from psannlm.config.schema import ConfigError
from psannlm.train import checkpoint
from psannlm.train.distributed import gather
from tests.checked import case_of, failed

TINY = case_of("transformer", n_layers=1, context_length=20, d_model=8, d_mlp=8)
CONFIG = TINY.config


def trained() -> Any:
    """A network and its optimizer after the first part of a run."""
    objective, optimizer = start(TINY.network, CONFIG, TINY.device, 0)
    advance(objective, optimizer, CONFIG, 0)
    return objective, optimizer


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where a network of three steps is saved."""
    objective, optimizer = trained()
    checkpoint.save(tmp_path, *gather(objective, [optimizer]), {"step": 3})
    return tmp_path


def test_what_is_loaded_is_what_was_saved(monkeypatch) -> None:
    monkeypatch.setattr(saving, "in_processes", lambda calls, _: [call() for call in calls])

    result = saving.check(TINY)

    n_parameters = sum(p.numel() for p in trained()[0].parameters())
    assert not failed(result)
    assert result.facts["checkpoint_bytes"] > 3 * 4 * n_parameters
    assert result.facts["bits_flipped"] == 15


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
    def changed(calls: Any, _: float) -> Any:
        told = calls[0]()
        name, tensor = next((n, t) for n, t in told[part].items() if t.dim())
        other = tensor.clone()
        other.view(-1)[0] += 1
        return [told | {part: told[part] | {name: other}}]

    monkeypatch.setattr(saving, "in_processes", changed)

    assert failed(saving.check(TINY)) == {measure: "1, 0"}


def test_flipped_bits_are_refused_and_flipped_back(place) -> None:
    [folder] = place.iterdir()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    assert flips_accepted(folder) == []
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


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
    first, again, second = (advance(*trained(), CONFIG, part).losses for part in (0, 0, 1))

    assert len(first) == len(second) == 3
    assert first[0] != second[0]
    assert torch.equal(first, again)


def test_an_account_tells_the_state_before_it_goes_on_and_after() -> None:
    objective, optimizer = trained()
    before = parameters_of(objective)

    told = account(objective, optimizer, CONFIG)

    for name, parameter in parameters_of(objective).items():
        assert torch.equal(told["weights"][name], before[name])
        assert torch.equal(told["continued"][name], parameter)
        assert not torch.equal(before[name], parameter)
        assert told["optimizer"][f"{name}.step"] == 3
    assert len(told["continued"]["losses"]) == 3
    greedy, sampled = told["generated"]["greedy"], told["generated"]["sampled"]
    assert greedy.shape == sampled.shape == (2, CONFIG.context_length - 8)
    assert not torch.equal(greedy, sampled)


def test_the_last_checkpoint_is_loaded_into_other_weights(place, monkeypatch) -> None:
    seeds: list[int] = []
    monkeypatch.setattr(saving, "start", lambda *given: seeds.append(given[-1]) or start(*given))

    first = work(TINY, place)
    objective, optimizer = trained()
    advance(objective, optimizer, CONFIG, 1)
    checkpoint.save(place, *gather(objective, [optimizer]), {"step": 6})
    second = work(TINY, place)
    work(replace(TINY, config=CONFIG.model_copy(update={"seed": 2**32 - 1})), place)

    for loaded, saved in ((first, trained()), (second, (objective, optimizer))):
        right = account(*saved, CONFIG)
        assert [n_different(loaded[part], right[part]) for part in right] == [0, 0, 0, 0]
    assert seeds == [1, 1, 0]
