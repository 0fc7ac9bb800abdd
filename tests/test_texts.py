"""Windows of real text, a token a byte."""

from pathlib import Path

import numpy as np
import pytest

from psannlm import ROOT
from psannlm.checks.texts import batches_of, passages, tokens_of
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from tests.checked import case_of
from tests.tiny_trainings import write_text


def test_tokens_are_the_bytes_of_the_training_split():
    path = ROOT / "datasets/lm/sample.txt"

    tokens = tokens_of(path, 50)

    text = next(load(path).texts("train")).encode()
    assert np.asarray(tokens.ids).tolist() == [256, *text[:49]]


def test_passages_follow_one_another_from_the_first_letter_on():
    config = case_of("respsann").config
    text = next(load(ROOT / config.corpus).texts("train")).encode()

    found = passages(config, 3, 20)

    assert found.shape == (3, 20)
    assert bytes(found.flatten().tolist()) == text[:60]


def test_batches_have_as_many_windows_as_are_asked_for():
    batches = batches_of(case_of("respsann").config, 6, length=10, rows=2)

    assert batches.n_windows == 6
    assert batches.batch(2)[0].shape == (2, 10)


def test_a_short_corpus_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="must hold 100,000 bytes of training text, got"):
        tokens_of(write_text(tmp_path), 100_000)


def test_a_vocabulary_without_all_bytes_is_refused():
    with pytest.raises(ConfigError, match="token ids must be below vocab_size 100"):
        batches_of(case_of("respsann", vocab_size=100).config, 2)
    with pytest.raises(ConfigError, match="token ids must be below vocab_size 100"):
        passages(case_of("respsann", vocab_size=100).config, 1, 8)
