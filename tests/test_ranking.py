"""Places are shared by all that are not separated, and by one network under two names."""

import numpy as np
import pytest
from psannlm.pages.shootout.ranking import places

from tests.synthetic_finals import evaluated, failed, final, lengths, shootout

QUIET = {"over_seeds": 0.005, "over_documents": 0.005}


def draw() -> np.random.Generator:
    return np.random.default_rng(0)


def test_arms_that_are_all_separated_stand_in_the_order_of_their_losses():
    finals = shootout(draw(), {"a": 3.0, "b": 2.6, "c": 2.8, "d": 3.2}, **QUIET)

    assert places(finals, {}, ()) == {"b": 1, "c": 2, "a": 3, "d": 4}


def test_arms_that_are_not_separated_share_a_place_and_the_next_are_counted_past():
    finals = shootout(draw(), {"a": 3.0, "b": 2.8, "c": 3.0, "d": 3.2}, **QUIET)

    assert places(finals, {}, ()) == {"b": 1, "a": 2, "c": 2, "d": 4}


def test_an_arm_between_two_that_are_separated_shares_the_first_place():
    n_tokens, noise = lengths(draw(), 20), draw().normal(0.0, 1.0, (2, 5, 20))
    finals = {
        "first": evaluated("first", 3.0 + 0.002 * noise[0], n_tokens),
        "between": evaluated("between", 3.05 + 0.5 * noise[1], n_tokens),
        "last": evaluated("last", 3.1 - 0.002 * noise[0], n_tokens),
    }

    assert places(finals, {}, ()) == {"first": 1, "between": 1, "last": 2}


@pytest.mark.parametrize("losses", [{"a": 2.8, "b": 3.0}, {"b": 2.8, "a": 3.0}])
def test_one_network_under_two_names_has_one_place_and_counts_once(losses):
    finals = shootout(draw(), losses, **QUIET)
    finals["twin"] = finals["a"]

    found = places(finals, {"twin": "a"}, ())

    better, worse = losses
    assert found["twin"] == found["a"]
    assert (found[better], found[worse]) == (1, 2)


@pytest.mark.parametrize("order", [["a", "b", "twin"], ["twin", "b", "a"]])
def test_a_twin_whose_losses_differ_has_the_place_of_the_first(order):
    finals = shootout(draw(), {"a": 2.8, "b": 3.0, "twin": 3.4}, **QUIET)

    found = places({arm: finals[arm] for arm in order}, {"twin": "a"}, ())

    assert found == {"a": 1, "twin": 1, "b": 2}


def test_twins_of_an_arm_that_is_not_there_share_the_place_of_the_first_that_is():
    finals = shootout(draw(), {"b": 3.0, "twin": 2.8, "third": 3.2}, **QUIET)

    assert places(finals, {"twin": "a", "third": "a"}, ()) == {"b": 2, "twin": 1, "third": 1}


def test_refused_arms_have_no_place_and_take_none():
    finals = shootout(draw(), {"leaky": 1.0, "a": 2.8, "b": 3.0}, **QUIET)

    assert places(finals, {}, {"leaky"}) == {"a": 1, "b": 2}


def test_arms_that_finished_nothing_have_no_place():
    finals = shootout(draw(), {"a": 2.8, "b": 3.0}, **QUIET)
    finals |= {"broken": [failed("broken", seed) for seed in range(5)], "untried": []}
    finals["unread"] = [final("unread", seed) for seed in range(5)]

    assert places(finals, {}, ()) == {"a": 1, "b": 2}


def test_with_two_seeds_all_share_the_first_place():
    finals = shootout(draw(), {"a": 1.0, "b": 3.0}, n_seeds=2, **QUIET)

    assert places(finals, {}, ()) == {"a": 1, "b": 1}


def test_places_are_corrected_for_all_pairs():
    alone = shootout(draw(), {"a": 2.96, "b": 3.0})
    many = alone | {f"c{i}": alone["b"] for i in range(8)}

    assert places(alone, {}, ()) == {"a": 1, "b": 2}
    assert set(places(many, {}, ()).values()) == {1}


def test_no_arms_have_no_places():
    assert places({}, {}, ()) == {}


def test_the_order_of_arms_does_not_matter():
    finals = shootout(draw(), {"a": 3.0, "b": 2.8, "c": 3.0, "d": 3.2}, **QUIET)

    turned = places(dict(reversed(finals.items())), {"c": "a"}, ())

    assert turned == places(finals, {"c": "a"}, ())


@pytest.mark.slow
def test_seven_equal_arms_share_the_first_place_95_times_in_100():
    generator = draw()

    shared = [
        set(places(shootout(generator, "abcdefg", n_seeds=3), {}, ()).values()) == {1}
        for _ in range(1000)
    ]

    assert np.mean(shared) >= 0.95
