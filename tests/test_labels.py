"""Labels by hand, and a network that copies."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from psannlm.checks.labels import copying, label_measures, loss_by_hand, rows_of
from psannlm.checks.texts import batches_of
from psannlm.train.batches import Batches
from tests.checked import case_of
from tests.networks import moved, tiny, tokens_of


def test_the_loss_by_hand_is_torchs_cross_entropy_of_the_next_token():
    config = tiny()
    model, rows = moved(config), tokens_of(config, 2, 9)

    wanted = cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())

    assert loss_by_hand(model, rows) == pytest.approx(wanted.item(), rel=1e-5)
    assert loss_by_hand(model, rows, shift=0) != pytest.approx(wanted.item(), rel=1e-2)


@pytest.mark.parametrize("positions", ["rope", "alibi", "sinusoidal"])
@pytest.mark.parametrize("base", ["sgrpsann", "waveresnet", "transformer"])
def test_a_copying_network_repeats_its_input(base: str, positions: str):
    config = tiny(base=base, positions=positions)
    model, rows = copying(moved(config)), tokens_of(config, 2, 20)

    assert loss_by_hand(model, rows, shift=0) < 0.01
    assert torch.equal(model(rows).argmax(-1), rows)


def test_rows_are_the_windows_of_the_first_step_and_the_token_after_each():
    batches = batches_of(case_of("respsann").config, 6, length=10, rows=3)

    rows, (tokens, targets) = rows_of(batches), batches.batch(0)

    assert torch.equal(rows[:, :-1], tokens)
    assert torch.equal(rows[:, 1:], targets)


def test_labels_that_are_not_shifted_fail_both_measures(monkeypatch: pytest.MonkeyPatch):
    batches = batches_of(case_of("respsann").config, 2, length=16, rows=2)
    model = moved(tiny(vocab_size=257))
    rows_as_they_should = Batches._rows
    assert not [m for m in label_measures(model, batches) if not m.passed]

    monkeypatch.setattr(Batches, "_rows", lambda s, w: (rows_as_they_should(s, w)[0],) * 2)
    model = moved(tiny(vocab_size=257))

    assert [m.passed for m in label_measures(model, batches)] == [False, False]
