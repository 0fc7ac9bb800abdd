"""Intervals cover, equal arms are not separated and share a place, verdicts need what they say."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from psannlm.pages.shootout.comparison import (
    FEWEST_SEEDS,
    SMALLEST_EFFECT,
    Comparison,
    Difference,
    compare,
    contrast,
    holm,
    over_documents,
    over_seeds,
    paired,
    places,
)
from psannlm.pages.shootout.records import TrainingRecord
from psannlm.train.recorder import Document
from tests.synthetic_shootout import final

N_TRIES = 1000
SEVEN = ["a", "b", "c", "gelu", "d", "e", "f"]
QUIET = {"over_seeds": 0.005, "over_documents": 0.005}
NOTHING = paired([])


def failed(arm: str, seed: int) -> TrainingRecord:
    return final(arm, seed, status="failed", reason="the loss is no number")


def lengths(draw: np.random.Generator, *shape: int) -> np.ndarray:
    """Tokens of documents: lognormal, the longest of 27 about seven times the median."""
    return np.ceil(np.exp(draw.normal(5.0, 1.0, shape)))


def evaluated(arm: str, losses: np.ndarray, n_tokens: np.ndarray) -> list[TrainingRecord]:
    """Trainings of seeds 0, 1, ... with these losses per token, [seeds, documents]."""
    tokens, found = [int(n) for n in n_tokens], []
    for seed, nats in enumerate(losses * n_tokens):
        loss = float(nats.sum() / n_tokens.sum())
        texts = tuple(map(Document, nats.tolist(), tokens))
        found.append(final(arm, seed, loss, test_loss=loss + 0.1, documents=texts))
    return found


def shootout(
    draw: np.random.Generator,
    arms: Mapping[str, float] | Sequence[str],
    *,
    n_seeds: int = 5,
    n_documents: int = 27,
    over_seeds: float = 0.02,
    over_documents: float = 0.02,
) -> dict[str, list[TrainingRecord]]:
    """Arms with true losses, if none are given all 3, and how far trainings deviate from them.

    What a seed and a document are like is shared by all arms, and far larger than this noise.
    """
    true = arms if isinstance(arms, Mapping) else dict.fromkeys(arms, 3.0)
    n_tokens = lengths(draw, n_documents)
    shared = draw.normal(0.0, 0.2, (n_seeds, 1)) + draw.normal(0.0, 0.5, n_documents)
    found = {}
    for arm, loss in true.items():
        losses = loss + shared + draw.normal(0.0, over_seeds, (n_seeds, 1))
        losses = losses + draw.normal(0.0, over_documents, n_documents)
        found[arm] = evaluated(arm, losses, n_tokens)
    return found


def documents(losses, n_tokens):
    """Of each seed; losses [seeds, documents] per token."""
    return [r.documents for r in evaluated("arm", np.atleast_2d(losses), np.asarray(n_tokens))]


def quiet(losses, seed=0, **how):
    return shootout(np.random.default_rng(seed), losses, **QUIET | how)


def parts(found: Difference):
    return found.mean, found.low, found.high, found.p, found.n


def covers(found: Difference, true: float) -> bool:
    return found.low <= true <= found.high


def verdicts(finals, same=None) -> dict[str, str]:
    return {arm: found.verdict for arm, found in compare(finals, "gelu", same or {}).items()}


@pytest.mark.parametrize("n_seeds", [3, 5])
def test_the_interval_over_seeds_covers_a_known_difference_95_times_in_100(n_seeds):
    draw = np.random.default_rng(n_seeds)
    shared = draw.normal(3.0, 0.1, (N_TRIES, n_seeds))
    one = shared - 0.03 + draw.normal(0.0, 0.02, (N_TRIES, n_seeds))
    other = shared + draw.normal(0.0, 0.02, (N_TRIES, n_seeds))

    covered = [
        covers(over_seeds(dict(enumerate(ones)), dict(enumerate(others))), -0.03)
        for ones, others in zip(one.tolist(), other.tolist(), strict=True)
    ]

    # Without pairing, seeds five times noisier than arms would be covered nearly always.
    assert 0.93 <= np.mean(covered) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n_documents", [8, 27, 60])
@pytest.mark.parametrize("noise", ["document", "token"])
def test_the_interval_over_documents_covers_a_known_difference_95_times_in_100(n_documents, noise):
    draw = np.random.default_rng(n_documents)
    covered = 0

    for n_tokens in lengths(draw, N_TRIES, n_documents):
        scale = 0.05 if noise == "document" else 1 / np.sqrt(n_tokens)
        other = draw.normal(3.0, 0.5, (2, n_documents))
        one = other - 0.03 + scale * draw.normal(0.0, 1.0, n_documents)
        found = over_documents(documents(one, n_tokens), documents(other, n_tokens))
        covered += covers(found, -0.03)

    # Noise that falls with length makes the long documents weigh less than their tokens say, and
    # fewer than they are by Kish's number: 8 of them are covered 97 times in 100.
    assert 0.93 <= covered / N_TRIES <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise",
    [
        {"over_seeds": 0.05, "over_documents": 0.0},
        {"over_seeds": 0.0, "over_documents": 0.05, "n_documents": 8},
        {"over_seeds": 0.05, "over_documents": 0.05},
    ],
    ids=["seeds differ", "documents differ", "both differ"],
)
def test_of_seven_equal_arms_none_is_called_different_95_times_in_100(noise):
    draw = np.random.default_rng(7)

    silent = [
        set(verdicts(shootout(draw, SEVEN, **noise)).values()) == {"not separated"}
        for _ in range(N_TRIES)
    ]

    assert np.mean(silent) >= 0.95


@pytest.mark.slow
def test_seven_equal_arms_share_the_first_place_95_times_in_100():
    draw = np.random.default_rng(0)

    shared = [
        set(places(shootout(draw, "abcdefg", n_seeds=3), {}, ()).values()) == {1}
        for _ in range(N_TRIES)
    ]

    assert np.mean(shared) >= 0.95


def test_a_real_difference_is_found_with_its_sign_and_size():
    true = {"worse": 3.2, "gelu": 3.0, "better": 2.8, "equal": 3.0}
    finals = shootout(np.random.default_rng(0), true)

    found = compare(finals, "gelu", {})

    assert verdicts(finals) == {"worse": "worse", "better": "better", "equal": "not separated"}
    for arm in ("worse", "better"):
        for difference in (found[arm].seeds, found[arm].documents, found[arm].test):
            assert difference.mean == pytest.approx(true[arm] - 3.0, abs=0.03)
            assert difference.p < 0.001


def test_over_seeds_and_over_documents_of_one_length_is_students_paired_test():
    draw = np.random.default_rng(1)
    one, other = draw.normal(3.0, 0.1, (2, 5))
    n_tokens = np.full(5, 50.0)

    found = paired((one - other).tolist())

    reference = stats.ttest_rel(one, other)
    ends = reference.confidence_interval(0.95)
    expected = ((one - other).mean(), *ends, reference.pvalue, 5)
    assert parts(found) == pytest.approx(expected)
    texts = over_documents(documents(one, n_tokens), documents(other, n_tokens))
    assert vars(texts) == pytest.approx(vars(found))


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([-0.5], (-0.5, math.nan, math.nan, 1.0, 1)),
        ([], (math.nan, math.nan, math.nan, 1.0, 0)),
        ([0.0, 0.0, 0.0], (0.0, 0.0, 0.0, 1.0, 3)),
        ([-0.5, -0.5, -0.5], (-0.5, -0.5, -0.5, 0.0, 3)),
    ],
    ids=["one pair", "none", "all zero", "all one number"],
)
def test_too_few_differences_are_never_sure_and_equal_ones_always(differences, expected):
    assert parts(paired(differences)) == pytest.approx(expected, nan_ok=True)


def test_swapping_the_arms_turns_the_sign_and_nothing_else():
    finals = shootout(np.random.default_rng(2), {"one": 2.9, "other": 3.0}, n_seeds=3)

    there, back = compare(finals, "other", {})["one"], compare(finals, "one", {})["other"]

    for name in ("seeds", "documents", "test"):
        mine, theirs = getattr(there, name), getattr(back, name)
        turned = (-theirs.mean, -theirs.high, -theirs.low, theirs.p, theirs.n)
        assert parts(mine) == pytest.approx(turned)
    assert (there.verdict, back.verdict) == ("better", "worse")


def test_the_order_of_arms_and_trainings_does_not_matter():
    finals = quiet({"a": 2.9, "b": 3.0, "gelu": 3.0, "c": 3.1}, seed=3)
    turned = {arm: records[::-1] for arm, records in reversed(finals.items())}

    assert compare(turned, "gelu", {"b": "a"}) == compare(finals, "gelu", {"b": "a"})
    assert places(turned, {"b": "a"}, ()) == places(finals, {"b": "a"}, ())


def test_only_losses_that_both_have_finished_are_paired():
    one = [final("one", 0, 2.0), final("one", 1, 5.0), final("one", 2, 1.0), failed("one", 3)]
    other = [final("other", 2, 2.0, test_loss=1.5), final("other", 0, 2.5), failed("other", 1)]
    other += [final("other", 3, 9.0), final("other", 4, 9.0)]
    one += [replace(failed("one", 4), val_loss=1.0)]
    one[2] = replace(one[2], test_loss=1.0)

    found = contrast(one, other)

    assert (found.seeds.mean, found.seeds.n) == (-0.75, 2)
    assert (found.test.mean, found.test.n) == (-0.5, 1)


def test_the_jackknife_leaves_out_one_document_after_the_other():
    draw = np.random.default_rng(5)
    one, other = draw.normal(3.0, 0.1, (2, 3, 6))
    n_tokens = lengths(draw, 6)

    found = over_documents(documents(one, n_tokens), documents(other, n_tokens))

    def on(kept: list[int]) -> float:
        nats = sum((one[s, d] - other[s, d]) * n_tokens[d] for s in range(3) for d in kept)
        return nats / 3 / sum(n_tokens[d] for d in kept)

    mean = on(list(range(6)))
    left_out = [on([d for d in range(6) if d != out]) for out in range(6)]
    error = math.sqrt(5 / 6 * sum((value - mean) ** 2 for value in left_out))
    freedom = n_tokens.sum() ** 2 / (n_tokens**2).sum() - 1
    ends = stats.t.interval(0.95, freedom, loc=mean, scale=error)
    p = 2 * stats.t.cdf(-abs(mean) / error, freedom)
    assert parts(found) == pytest.approx((mean, *ends, p, 6))


def test_documents_without_tokens_do_not_count():
    one, other = documents([[1.0, 2.0]], [2, 4]), documents([[2.0, 2.5]], [2, 4])
    empty = Document(0.0, 0)

    holed = over_documents([[*one[0], empty]], [[*other[0], empty]])

    assert holed == over_documents(one, other)
    assert holed.n == 2
    heavy = [1, 10_000, 1]  # one outweighs all others and leaves a degree of freedom
    assert over_documents(documents([1, 2, 3], heavy), documents([2, 4, 1], heavy)).freedom == 1.0


def test_of_one_document_or_none_nothing_is_sure():
    one = over_documents([[Document(3.0, 2)]], [[Document(4.0, 2)]])

    assert parts(one) == pytest.approx((-0.5, math.nan, math.nan, 1.0, 1), nan_ok=True)
    for none in (over_documents([], []), over_documents([[]], [[]])):
        assert parts(none) == pytest.approx(parts(NOTHING), nan_ok=True)


TWO, THREE = Document(3.0, 2), Document(3.0, 3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([[TWO]], [[THREE]]),
        ([[TWO]], [[TWO, TWO]]),
        ([[TWO]] * 2, [[TWO], [THREE]]),
        ([[TWO]] * 2, [[TWO]]),
        ([[TWO]], [[]]),
    ],
    ids=["other length", "other number", "another seed's", "fewer seeds", "none"],
)
def test_documents_that_do_not_pair_are_refused(one, other):
    with pytest.raises(ValueError, match="documents must be the same, seed by seed"):
        over_documents(one, other)


@pytest.mark.parametrize(
    ("p", "adjusted"),
    [
        ([], []),
        ([0.04], [0.04]),
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.04, 0.005, 0.01, 0.03], [0.06, 0.02, 0.03, 0.06]),
        ([0.5, 0.01, 0.9], [1.0, 0.03, 1.0]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([0.03, 0.02], [0.04, 0.04]),
    ],
)
def test_holms_correction_is_that_by_hand(p, adjusted):
    assert holm(p) == pytest.approx(adjusted)


def sure(mean: float, n: int = 5) -> Difference:
    return Difference(mean, mean - 0.001, mean + 0.001, 1e-6, n)


@pytest.mark.parametrize(
    ("seeds", "documents", "p", "verdict"),
    [
        (sure(-0.1), sure(-0.1), 0.049, "better"),
        (sure(0.1), sure(0.1), 0.049, "worse"),
        (sure(-0.1), sure(-0.1), 0.05, "not separated"),
        (sure(-SMALLEST_EFFECT), sure(-0.1), 1e-6, "not separated"),
        (sure(-0.1, FEWEST_SEEDS - 1), sure(-0.1), 1e-6, "not separated"),
        (sure(-0.1), sure(0.1), 1e-6, "not separated"),
    ],
    ids=["better", "worse", "chance", "too small", "too few seeds", "they disagree"],
)
def test_a_difference_must_be_sure_large_of_enough_seeds_and_of_one_sign(
    seeds, documents, p, verdict
):
    assert Comparison(seeds, documents, NOTHING).judged(p).verdict == verdict


@pytest.mark.parametrize("unsure", ["over_seeds", "over_documents"])
def test_seeds_and_documents_must_both_be_sure(unsure):
    noise = {"over_seeds": 0.001, "over_documents": 0.001} | {unsure: 0.5}
    finals = shootout(np.random.default_rng(12), {"one": 2.9, "gelu": 3.0}, **noise)

    found = compare(finals, "gelu", {})["one"]

    assert min(found.seeds.p, found.documents.p) < 0.05 < max(found.seeds.p, found.documents.p)
    assert found.p >= max(found.seeds.p, found.documents.p)
    assert found.verdict == "not separated"


def both(seeds: Difference, texts: Difference) -> float:
    return Comparison(seeds, texts, NOTHING).p


def test_the_errors_of_seeds_and_documents_add_as_squares():
    seeds = Difference(-0.1, -0.18, -0.02, 0.029, 5, error=0.03, freedom=4)
    texts = Difference(-0.1, -0.18, -0.02, 0.024, 17, error=0.04, freedom=16)

    p = both(seeds, texts)

    freedom = 0.05**4 / (0.03**4 / 4 + 0.04**4 / 16)
    assert p == pytest.approx(2 * stats.t.cdf(-0.1 / 0.05, freedom))
    assert max(seeds.p, texts.p) < 0.05 < p


def test_of_two_means_the_one_nearer_to_zero_is_judged():
    near = Difference(-0.1, -0.2, 0.0, 0.01, 5, error=0.03, freedom=4)
    far = Difference(-0.2, -0.3, -0.1, 0.01, 5, error=0.03, freedom=4)
    same, less = paired([0.0, 0.0, 0.0]), paired([-0.5, -0.5, -0.5])

    assert both(near, far) == both(far, near) == both(near, near)
    assert (both(same, same), both(less, less)) == (1.0, 0.0)


def test_few_seeds_are_no_surer_for_many_documents():
    seeds = Difference(-0.1, -0.23, 0.03, 0.08, 3, error=0.03, freedom=2)
    texts = Difference(-0.1, -0.12, -0.08, 1e-9, 61, error=0.01, freedom=60)

    assert both(seeds, texts) == seeds.p


def test_without_documents_nothing_is_separated():
    finals = {arm: [final(arm, s, 3.0 - d) for s in range(5)] for arm, d in (("a", 1), ("gelu", 0))}

    found = compare(finals, "gelu", {})["a"]

    assert (found.seeds.p, found.p, found.verdict) == (0.0, 1.0, "not separated")


def test_every_comparison_makes_the_others_less_sure():
    finals = shootout(np.random.default_rng(8), {"gelu": 3.0, "a": 2.9, "b": 3.0, "c": 3.0})

    found = compare(finals, "gelu", {})

    assert [c.p_holm for c in found.values()] == holm([c.p for c in found.values()])
    assert found["a"].p_holm == pytest.approx(3 * found["a"].p)


@pytest.mark.parametrize("same", [{"twin": "gelu"}, {"gelu": "twin"}, {"gelu": "x", "twin": "x"}])
def test_the_baseline_under_another_name_is_an_a_a_and_costs_no_correction(same):
    finals = shootout(np.random.default_rng(9), {"gelu": 3.0, "b": 2.8, "twin": 2.0})
    equal = finals | {"twin": [replace(record, arm="twin") for record in finals["gelu"]]}

    found = compare(equal, "gelu", same)

    assert (found["twin"].verdict, found["twin"].p, found["twin"].p_holm) == ("A/A", 1.0, 1.0)
    assert found["twin"].seeds.mean == found["twin"].documents.mean == 0
    assert found["b"].p_holm == found["b"].p
    assert verdicts(finals, same)["twin"] == "A/A"  # whatever its losses


def test_twins_that_are_not_the_baseline_are_compared_with_it():
    finals = shootout(np.random.default_rng(9), {"gelu": 3.0, "a": 2.8})
    finals["twin"] = finals["a"]

    assert verdicts(finals, {"twin": "a"}) == {"a": "better", "twin": "better"}


def test_an_arm_that_never_finished_is_listed_and_not_separated():
    finals = shootout(np.random.default_rng(10), {"gelu": 3.0})
    finals["broken"] = [failed("broken", seed) for seed in range(5)]

    alone = compare({"broken": finals["gelu"]}, "gelu", {})

    for one in (compare(finals, "gelu", {})["broken"], alone["broken"]):
        assert (one.verdict, one.p, one.seeds.n, one.documents.n) == ("not separated", 1.0, 0, 0)


@pytest.mark.parametrize(
    ("losses", "same", "expected"),
    [
        ({"a": 3.0, "b": 2.6, "c": 2.8, "d": 3.2}, {}, {"b": 1, "c": 2, "a": 3, "d": 4}),
        ({"a": 3.0, "b": 2.8, "c": 3.0, "d": 3.2}, {}, {"b": 1, "a": 2, "c": 2, "d": 4}),
        ({}, {}, {}),
        ({"a": 2.8, "b": 3.0, "twin": 2.8}, {"twin": "a"}, {"a": 1, "twin": 1, "b": 2}),
        ({"b": 2.8, "a": 3.0, "twin": 3.0}, {"twin": "a"}, {"b": 1, "a": 2, "twin": 2}),
        ({"a": 2.8, "b": 3.0, "twin": 3.4}, {"twin": "a"}, {"a": 1, "twin": 1, "b": 2}),
        ({"twin": 3.4, "b": 3.0, "a": 2.8}, {"twin": "a"}, {"a": 1, "twin": 1, "b": 2}),
        (
            {"b": 3.0, "twin": 2.8, "third": 3.2},
            {"twin": "a", "third": "a"},
            {"b": 2, "twin": 1, "third": 1},
        ),
    ],
)
def test_arms_that_are_not_separated_share_a_place_and_one_network_counts_once(
    losses, same, expected
):
    assert places(quiet(losses), same, ()) == expected


def test_an_arm_between_two_that_are_separated_shares_the_first_place():
    draw = np.random.default_rng(0)
    n_tokens, noise = lengths(draw, 20), draw.normal(0.0, 1.0, (2, 5, 20))
    finals = {
        "first": evaluated("first", 3.0 + 0.002 * noise[0], n_tokens),
        "between": evaluated("between", 3.05 + 0.5 * noise[1], n_tokens),
        "last": evaluated("last", 3.1 - 0.002 * noise[0], n_tokens),
    }

    assert places(finals, {}, ()) == {"first": 1, "between": 1, "last": 2}


def test_arms_that_are_refused_or_finished_nothing_have_no_place_and_take_none():
    finals = quiet({"leaky": 1.0, "a": 2.8, "b": 3.0})
    finals |= {"broken": [failed("broken", seed) for seed in range(5)], "untried": []}

    assert places(finals, {}, {"leaky"}) == {"a": 1, "b": 2}


def test_places_are_corrected_for_all_pairs_and_need_seeds():
    alone = shootout(np.random.default_rng(0), {"a": 2.96, "b": 3.0})
    many = alone | {f"c{i}": alone["b"] for i in range(8)}

    assert places(alone, {}, ()) == {"a": 1, "b": 2}
    assert set(places(many, {}, ()).values()) == {1}
    assert places(quiet({"a": 1.0, "b": 3.0}, n_seeds=2), {}, ()) == {"a": 1, "b": 1}
