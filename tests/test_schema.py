"""A configuration is frozen, whole, and lets nothing else in."""

import pytest
from networks import tiny
from pydantic import ValidationError

from psannlm.config.schema import ConfigError
from tests.synthetic import throughput_config


def test_a_configuration_cannot_be_changed() -> None:
    config = throughput_config(d_model=8)

    with pytest.raises(ValidationError, match="frozen"):
        config.d_model = 16  # type: ignore[misc]

    assert config.d_model == 8


def test_a_network_made_by_hand_is_held_to_the_same_rules() -> None:
    with pytest.raises(ValueError, match="d_model must be a multiple of n_heads, got 9 and 2"):
        tiny(d_model=9)


def test_a_network_made_by_hand_takes_no_unknown_name() -> None:
    with pytest.raises(ValidationError, match="d_modle"):
        tiny(d_modle=8)


def test_an_error_shows_its_message_alone_in_a_notebook() -> None:
    assert ConfigError("no")._render_traceback_() == ["ConfigError: no"]
