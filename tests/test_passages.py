"""Checks read real text, in passages that do not overlap."""

import pytest

from psannlm import ROOT
from psannlm.checks.passages import passages
from psannlm.schema import ConfigError
from tests.checked import validation_config


def test_passages_are_bytes_of_the_text_from_all_over_it() -> None:
    config = validation_config()
    text = (ROOT / config.corpus).read_bytes()

    found = passages(config, 3, 40)

    assert found.shape == (3, 40)
    for i, row in enumerate(found):
        assert bytes(row.tolist()) == text[i * (len(text) // 3) :][:40]


def test_a_text_that_is_too_short_is_refused(tmp_path) -> None:
    (tmp_path / "short.txt").write_text("ten bytes.")
    config = validation_config(corpus=str(tmp_path / "short.txt"))

    assert passages(config, 2, 5).shape == (2, 5)
    with pytest.raises(ConfigError, match=r"at least 3 x 5 bytes, got 10 in .*give more text"):
        passages(config, 3, 5)


def test_a_missing_text_and_a_small_vocabulary_are_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.txt cannot be read: No such file"):
        passages(validation_config(corpus=str(tmp_path / "nowhere.txt")), 1, 1)
    with pytest.raises(ConfigError, match="vocab_size must be at least 256, got 255"):
        passages(validation_config(vocab_size=255), 1, 1)
