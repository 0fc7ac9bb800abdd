"""What is loaded comes from the checkpoint alone, and tells all that it goes on with."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.optim import AdamW

from psannlm.checks import launcher, load_worker
from psannlm.checks.courses import n_different, objective_of, optimizer_of, parameters_of
from psannlm.checks.launcher import TASK
from psannlm.checks.load_worker import SAVED, account, advance, loaded, main
from psannlm.config.schema import ConfigError
from psannlm.train import checkpoint
from psannlm.train.distributed import gather
from psannlm.train.objective import NextToken
from tests.checked import validation_config

CPU = torch.device("cpu")
TINY = validation_config(n_layers=1, context_length=20, d_model=8, d_mlp=8, base="transformer")

Trained = tuple[NextToken, AdamW]


def fresh(seed: int = 0) -> Trained:
    objective = objective_of(TINY.network_of("transformer"), seed, CPU)
    return objective, optimizer_of(objective, TINY)


def trained() -> Trained:
    objective, optimizer = fresh()
    advance(objective, optimizer, TINY, 0)
    return objective, optimizer


def save(folder: Path) -> Trained:
    """A checkpoint in `folder`; what was saved goes on."""
    objective, optimizer = trained()
    checkpoint.save(folder, *gather(objective, [optimizer]), {"step": 3})
    return objective, optimizer


def test_a_course_has_two_parts_of_three_steps_on_text_of_their_own() -> None:
    first, second = (advance(*fresh(), TINY, part)["losses"] for part in (0, 1))

    assert len(first) == len(second) == 3
    assert first[0] != second[0]
    assert torch.equal(first, advance(*fresh(), TINY, 0)["losses"])


def test_an_account_tells_the_state_before_it_goes_on_and_after() -> None:
    objective, optimizer = trained()
    before = parameters_of(objective)

    told = account(objective, optimizer, TINY)

    kinds = {name.partition(".")[0] for name in told}
    assert kinds == {"weights", "optimizer", "generated", "continued"}
    for name, parameter in parameters_of(objective).items():
        assert torch.equal(told[f"weights.{name}"], before[name])
        assert torch.equal(told[f"continued.{name}"], parameter)
        assert not torch.equal(before[name], parameter)
        assert told[f"optimizer.{name}.step"] == 3
    assert len(told["continued.losses"]) == 3


def test_generated_tokens_are_as_many_as_the_context_has_room_for() -> None:
    told = account(*trained(), TINY)

    greedy, sampled = told["generated.greedy"], told["generated.sampled"]
    assert greedy.shape == sampled.shape == (2, TINY.context_length - 8)
    assert not torch.equal(greedy, sampled)


def test_a_loaded_network_is_the_saved_one_bit_by_bit(tmp_path: Path) -> None:
    saved = account(*save(tmp_path), TINY)

    found = loaded(tmp_path, "transformer", TINY, CPU)

    assert n_different(found, saved) == 0


def test_the_last_checkpoint_is_loaded(tmp_path: Path) -> None:
    objective, optimizer = save(tmp_path)
    advance(objective, optimizer, TINY, 1)
    checkpoint.save(tmp_path, *gather(objective, [optimizer]), {"step": 6})

    found = loaded(tmp_path, "transformer", TINY, CPU)

    assert n_different(found, account(objective, optimizer, TINY)) == 0


def test_nothing_is_loaded_where_there_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be a checkpoint below .*, and there is none"):
        loaded(tmp_path, "transformer", TINY, CPU)


def test_an_altered_checkpoint_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    [weights] = tmp_path.rglob(checkpoint.WEIGHTS)
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

    with pytest.raises(ConfigError, match=checkpoint.WEIGHTS):
        loaded(tmp_path, "transformer", TINY, CPU)


def test_loading_begins_with_other_weights_than_were_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path)
    seeds: list[int] = []

    def noted(network: Any, seed: int, device: torch.device) -> NextToken:
        seeds.append(seed)
        return objective_of(network, seed, device)

    monkeypatch.setattr(load_worker, "objective_of", noted)

    for seed in (0, 2**32 - 1):
        loaded(tmp_path, "transformer", TINY.model_copy(update={"seed": seed}), CPU)

    assert seeds == [1, 0]


def test_the_account_of_every_base_is_left_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "stop_when_orphaned", lambda: None)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    saved = account(*save(tmp_path / SAVED / "transformer"), TINY)
    jobs = ["transformer"]
    told = {"config": TINY.model_dump(mode="json"), "jobs": jobs, "device": "cpu", "threads": 1}
    (tmp_path / TASK).write_text(json.dumps(told))

    main(tmp_path)

    assert n_different(load_file(tmp_path / "transformer.0.safetensors"), saved) == 0
