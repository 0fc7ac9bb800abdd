"""A network learns a short text by heart and says it, or the check says that it does not."""

import math

import pytest

from psannlm import ROOT
from psannlm.checks.memorising import N_GIVEN, memorise
from psannlm.corpora.corpus import load
from tests.checked import case_of


@pytest.mark.slow
def test_a_network_that_learned_a_text_writes_it() -> None:
    case = case_of("respsann", fit_steps=400)
    text = next(load(ROOT / case.config.corpus).texts("train"))

    (loss, share), facts = memorise(case)

    assert loss.passed
    assert loss.value < math.log(2) / 2
    assert share.value == 1
    assert facts["text"] == text[: case.config.context_length]
    assert facts["text"][N_GIVEN:] == facts["written"]
    assert 10 < facts["fit_steps_taken"] < 400


def test_too_few_steps_are_no_learning() -> None:
    (loss, share), facts = memorise(case_of("transformer", fit_steps=3))

    assert facts["fit_steps_taken"] == 3
    assert loss.value > 3
    assert share.value < 0.5
    assert not loss.passed
    assert not share.passed
