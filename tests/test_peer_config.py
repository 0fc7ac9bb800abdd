"""A comparison that cannot be made is refused before anything runs."""

import pytest
from pydantic import ValidationError

from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.registry import CONFIGS
from tests.synthetic_peer import peer_config


def test_it_is_the_configuration_of_its_notebook():
    assert CONFIGS["peer"] is PeerConfig


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_tokens": 33}, "batch_tokens must be a multiple of context_length, got 33 and 16"),
        (
            {"prompt_tokens": 10, "new_tokens": 7},
            "prompt_tokens and new_tokens must fit in context_length, got 10, 7 and 16",
        ),
        ({"work": ()}, "work"),
        ({"setting": ("fastest",)}, "setting"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, words):
    with pytest.raises(ValidationError, match=words):
        peer_config(**changes)
