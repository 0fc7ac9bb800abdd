"""A shootout is refused unless its arms are tuned alike and on seeds of their own."""

from typing import Any

import pytest

from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError
from psannlm.pages.shootout.records import ShootoutConfig
from tests.synthetic_shootout import shootout_config


def parsed(**changes: Any) -> ShootoutConfig:
    return parse(ShootoutConfig, shootout_config().model_dump(mode="json") | changes, source="here")


def test_a_single_name_stands_for_a_list_and_no_name_for_all() -> None:
    assert parsed() == shootout_config()
    assert parsed(base="respsann").base == ("respsann",)
    assert parsed(base=[]).base == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"scaled_frequencies": [1.0, 2.25, 5.0]},
            r"learning_rates \(0.001, 0.003\) must be as many as scaled_learning_rates \(0.003\) "
            r"times scaled_frequencies \(1.0, 2.25, 5.0\)",
        ),
        ({"tuning_seed": 1}, "tuning_seed must be none of seeds, got 1 and 0, 1, 2"),
        ({"side_seeds": 4}, "side_seeds must be at most the number of seeds, got 4 and 0, 1, 2"),
        ({"pass_tokens": 768}, "batch_tokens must be a multiple of pass_tokens"),
        ({"seeds": [0, 1, 1]}, "seeds: must not name an item twice"),
        ({"seeds": []}, "seeds: must name at least one item"),
        ({"match": "flops"}, "match: must be one of parameters, width"),
        ({"cells_at_once": -1}, "cells_at_once: must be at least 0"),
        ({"side_seeds": 0}, "side_seeds: must be at least 1"),
        ({"scaled_frequencies": [0]}, "scaled_frequencies: must be more than 0"),
        ({"seed": 0}, "seed: unknown, did you mean 'seeds'"),
    ],
)
def test_what_is_unfair_or_no_value_is_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(**changes)
