"""A training that cannot be meant is refused with what is wrong with it."""

from typing import Any

import pytest

from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingSettings
from tests.synthetic_shootout import shootout_config

SOUND = {
    name: value
    for name, value in dict(shootout_config()).items()
    if name in TrainingSettings.model_fields
}


def test_a_sound_course_is_taken_as_it_is() -> None:
    assert dict(parse(TrainingSettings, SOUND, source="here")) == SOUND


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pass_tokens": 768}, "multiple of pass_tokens, got 1024 and 768"),
        (
            {"batch_tokens": 1000, "pass_tokens": 1000},
            "pass_tokens must be a multiple of context_length, got 1000 and 16",
        ),
        ({"tokenizer": "bytes"}, r"tokenizer bytes has a vocab_size of its own \(bytes 257"),
        (
            {"tokenizer": "gpt2", "tokenizer_file": "ranks", "vocab_size": 257},
            "tokenizer gpt2 has a vocab_size of its own .*, got 257",
        ),
        ({"tokenizer": "gpt2", "vocab_size": 50257}, "gpt2 needs the file of its ranks"),
        ({"tokenizer_file": "ranks"}, "tokenizer bpe and tokenizer_file 'ranks': .*others none"),
        ({"warmup_fraction": 0.6, "decay_fraction": 0.5}, "at most 1 together, got 0.6 and 0.5"),
        ({"n_heads": 3}, "d_model must be a multiple of n_heads, got 16 and 3"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(TrainingSettings, SOUND | changes, source="here")


@pytest.mark.parametrize(
    "changes",
    [
        {"tokenizer": "bytes", "vocab_size": 257},
        {"tokenizer": "gpt2", "vocab_size": 50257, "tokenizer_file": "ranks"},
        {"warmup_fraction": 0.5, "decay_fraction": 0.5},
        {"batch_tokens": 4096},
    ],
)
def test_what_fits_together_is_taken(changes: dict[str, Any]) -> None:
    assert dict(parse(TrainingSettings, SOUND | changes, source="here")) == SOUND | changes
