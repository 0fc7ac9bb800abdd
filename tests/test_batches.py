"""Batches: each window once an epoch, shared evenly, targets one token on."""

import itertools

import numpy as np
import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.train.batches import IGNORED, Batches, evaluation_windows
from psannlm.train.shards import Tokens

T = 4


def numbered(n_tokens: int) -> Tokens:
    """Tokens whose ids are their places."""
    return Tokens(np.arange(n_tokens, dtype=np.uint16), n_bytes=1, largest=n_tokens - 1, sha256="")


def made(n_windows: int = 50, batch_sequences: int = 12, seed: int = 0, spare: int = 0) -> Batches:
    return Batches(numbered(n_windows * T + 1 + spare), T, batch_sequences, seed)


def firsts(batches: Batches, steps: range) -> list[int]:
    """The window of each row."""
    return [row // T for step in steps for row in batches.batch(step)[0][:, 0].tolist()]


def test_a_row_is_one_window_and_its_targets_stand_one_token_on():
    inputs, targets = made(batch_sequences=5).batch(3)

    assert inputs.shape == targets.shape == (5, T)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    assert (inputs[:, 0] % T == 0).all()
    assert (inputs == inputs[:, :1] + torch.arange(T)).all()
    assert (targets == inputs + 1).all()


@pytest.mark.parametrize("spare", [0, 1, T - 1])
def test_an_epoch_predicts_every_token_of_every_window_once(spare):
    batches = made(n_windows=60, spare=spare)

    targets = torch.cat([batches.batch(step)[1] for step in range(5)])

    assert batches.n_windows == 60
    assert sorted(targets.flatten().tolist()) == list(range(1, 60 * T + 1))


@pytest.mark.parametrize(("n_windows", "batch_sequences"), [(50, 12), (50, 7), (5, 12), (1, 3)])
def test_each_epoch_takes_every_window_once_wherever_batches_end(n_windows, batch_sequences):
    batches = made(n_windows, batch_sequences)

    taken = firsts(batches, range(3 * n_windows))

    for epoch in range(3 * batch_sequences):
        within = taken[epoch * n_windows : (epoch + 1) * n_windows]
        assert sorted(within) == list(range(n_windows))


def test_epochs_and_seeds_differ_in_order():
    one, other = made(seed=1), made(seed=2)

    assert firsts(one, range(8)) == firsts(made(seed=1), range(8))
    assert firsts(one, range(8)) != firsts(other, range(8))
    assert firsts(one, range(8))[:46] != firsts(one, range(8))[50:96]


@pytest.mark.parametrize(("world", "n_micro"), [(1, 1), (1, 3), (4, 1), (2, 3), (3, 4), (12, 1)])
@pytest.mark.parametrize("step", [0, 4, 1000])
def test_however_a_step_is_shared_its_rows_are_the_same(world, n_micro, step):
    batches = made(batch_sequences=12)
    inputs, targets = batches.batch(step)

    shares = [
        batches.batch(step, micro, n_micro, rank, world)
        for micro, rank in itertools.product(range(n_micro), range(world))
    ]

    assert {share[0].shape for share in shares} == {(12 // world // n_micro, T)}
    assert torch.equal(torch.cat([share[0] for share in shares]), inputs)
    assert torch.equal(torch.cat([share[1] for share in shares]), targets)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ConfigError, match=r"multiple of 8 for 4 processes and 2 micro.*, got 12"):
        made(batch_sequences=12).batch(0, n_micro=2, world=4)


@pytest.mark.parametrize("share", [{"micro": 1}, {"rank": 2, "world": 2}, {"micro": -1}])
def test_a_share_that_is_none_of_the_steps_is_refused(share):
    with pytest.raises(ValueError, match="no share"):
        made().batch(0, **share)


@pytest.mark.parametrize(
    ("epochs", "steps"), [(1, 5), (2, 9), (0.5, 3), (12, 50), (1e-9, 1)], ids=str
)
def test_steps_are_the_fewest_that_take_all_windows_so_often(epochs, steps):
    assert made(n_windows=50, batch_sequences=12).steps(epochs) == steps


def test_rounding_adds_no_step():
    assert made(n_windows=100, batch_sequences=10).steps(1.1) == 11


def test_fewer_tokens_than_one_window_are_refused_with_the_way_out():
    Batches(numbered(T + 1), T, 1, 0)

    with pytest.raises(ConfigError, match=r"context_length \+ 1 = 5 tokens, got 4 with.*shorten"):
        Batches(numbered(T), T, 1, 0)


@pytest.mark.parametrize("n_tokens", [2, 3, T, T + 1, T + 2, 3 * T, 3 * T + 1, 6 * T + 1, 50])
@pytest.mark.parametrize("batch", [1, 3])
def test_evaluation_predicts_every_token_but_the_first_once_and_in_order(n_tokens, batch):
    windows = list(evaluation_windows(numbered(n_tokens), T, batch))

    inputs, targets = (torch.cat(parts).flatten() for parts in zip(*windows, strict=True))
    counted = targets != IGNORED
    assert targets[counted].tolist() == list(range(1, n_tokens))
    assert inputs[counted].tolist() == list(range(n_tokens - 1))


def test_evaluation_batches_are_of_one_shape_and_none_is_empty():
    windows = list(evaluation_windows(numbered(2 * 3 * T + 2), T, 3))

    assert [inputs.shape for inputs, _ in windows] == [(3, T)] * 3
    assert [targets.shape for _, targets in windows] == [(3, T)] * 3
    assert [int((targets != IGNORED).sum()) for _, targets in windows] == [12, 12, 1]
    assert {inputs.dtype for pair in windows for inputs in pair} == {torch.int64}
