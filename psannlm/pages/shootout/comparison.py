"""How far arms differ: paired differences with intervals, and verdicts corrected for their number.

Two things are drawn at random: seeds, which decide what is learned, and documents, which decide
what is asked. An arm differs from another only if other seeds and other documents would say so.
"""

import itertools
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

from psannlm.pages.shootout.records import TrainingRecord
from psannlm.train.recorder import Document

LEVEL = 0.05  # how often an interval misses, and how often equal arms get any verdict at all
SMALLEST_EFFECT = 0.005  # nats per token, half a percent of perplexity: less is no difference
POWER = 0.8  # chance with which a difference of shares that is there is found
FEWEST_SEEDS = 3  # of fewer pairs no verdict: two differences that agree by chance look sure

Verdict = Literal["better", "worse", "not separated", "baseline", "A/A"]
Finals = Mapping[str, Sequence[TrainingRecord]]  # the trainings that are compared, of each arm


@dataclass(frozen=True)
class Difference:
    """Mean of paired differences, nats per token, with its interval; negative is better.

    Of one pair the interval is unknown: both ends are NaN, and p is 1. Of none the mean is NaN too.
    """

    mean: float
    low: float
    high: float
    p: float  # chance of a mean as far from zero if there were no difference
    n: int  # pairs
    error: float = math.nan  # standard error of the mean
    freedom: float = math.nan  # degrees of freedom of the error


@dataclass(frozen=True)
class Comparison:
    """An arm against another, on the same seeds and the same documents."""

    seeds: Difference  # of validation losses, a pair a seed: would other trainings say the same?
    documents: Difference  # of the same, a pair a document, weighted by tokens: would other texts?
    test: Difference  # of test losses, a pair a seed
    p_holm: float = 1.0  # p after Holm's correction for all comparisons; 1 in an A/A
    verdict: Verdict = "A/A"

    @property
    def p(self) -> float:
        """The greatest of three: over seeds, over documents, and over both drawn anew together.

        A difference that shows over other seeds, and over other documents, may still be within what
        both together scatter. Their errors are independent, so squares add, with Satterthwaite's
        degrees of freedom (the min F' of H. H. Clark, The language-as-fixed-effect fallacy, Journal
        of Verbal Learning and Verbal Behavior 12, 1973).
        """
        over = (self.seeds, self.documents)
        if any(math.isnan(one.error) for one in over):
            return 1.0
        squares = [one.error**2 for one in over]
        shares = [square**2 / one.freedom for square, one in zip(squares, over, strict=True)]
        freedom = sum(squares) ** 2 / sum(shares) if sum(shares) else math.inf
        mean = min((one.mean for one in over), key=abs)
        both = _difference(mean, math.sqrt(sum(squares)), freedom, self.seeds.n)
        return max(both.p, *(one.p for one in over))

    def judged(self, p_holm: float) -> "Comparison":
        """The same with its corrected p, and the verdict that follows from it.

        Better or worse needs a corrected p below LEVEL, a mean over seeds beyond SMALLEST_EFFECT,
        at least FEWEST_SEEDS pairs, and means of one sign over seeds and documents.
        """
        seeds, documents = self.seeds, self.documents
        is_weak = abs(seeds.mean) <= SMALLEST_EFFECT or seeds.n < FEWEST_SEEDS
        verdict: Verdict = "better" if seeds.mean < 0 else "worse"
        if p_holm >= LEVEL or is_weak or seeds.mean * documents.mean <= 0:
            verdict = "not separated"
        return replace(self, p_holm=p_holm, verdict=verdict)


def paired(differences: Sequence[float]) -> Difference:
    """Mean of differences with Student's interval, and the p of his two-sided test for zero."""
    sample, n = np.asarray(differences, dtype=float), len(differences)
    if n < 2:
        return _difference(differences[0] if n else math.nan, math.nan, 0, n)
    return _difference(float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(n), n - 1, n)


def over_seeds(mine: Mapping[int, float], other: Mapping[int, float]) -> Difference:
    """Losses by seed less those of another, over the seeds that both have."""
    return paired([mine[seed] - other[seed] for seed in sorted(mine.keys() & other.keys())])


def over_documents(
    arm: Sequence[Sequence[Document]], other: Sequence[Sequence[Document]]
) -> Difference:
    """Loss of `arm` less that of `other` on the documents of a text, seed by seed; its interval.

    Nats are averaged over seeds, so that a document counts once. The mean is a ratio, nats of all
    documents over their tokens; its error is that of the jackknife, which leaves out one document
    at a time (Cochran 1977, Sampling Techniques, 6.17). Documents of unequal length are fewer than
    they seem: degrees of freedom are Kish's effective number less one, and at least one (Kish 1965,
    Survey Sampling, 8.2). With all documents less one, intervals would be too narrow, most where
    corrected p are read: in the tails. Documents without tokens do not count. ValueError if seeds,
    or documents by their tokens, do not pair.
    """
    lengths = {tuple(d.n_tokens for d in documents) for documents in (*arm, *other)}
    if len(arm) != len(other) or len(lengths) > 1:
        raise ValueError(
            "documents must be the same, seed by seed, for both arms: got "
            f"{len(arm)} and {len(other)} seeds with {len(lengths)} different lists of token "
            "counts; compare trainings that were evaluated on one split with one tokenizer"
        )
    tokens = np.array(next(iter(lengths), ()), dtype=float)
    gaps = [
        [mine.nats - theirs.nats for mine, theirs in zip(*documents, strict=True)]
        for documents in zip(arm, other, strict=True)
    ]
    counted = tokens > 0
    n, tokens = int(counted.sum()), tokens[counted]
    if n == 0:
        return _difference(math.nan, math.nan, 0, n)
    nats = np.mean(gaps, axis=0)[counted]
    mean = float(nats.sum() / tokens.sum())
    if n == 1:
        return _difference(mean, math.nan, 0, n)
    without = (nats.sum() - nats) / (tokens.sum() - tokens)
    error = math.sqrt((n - 1) / n * float(((without - mean) ** 2).sum()))
    effective = float(tokens.sum() ** 2 / (tokens**2).sum())
    return _difference(mean, error, max(effective - 1, 1.0), n)


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted p of several tests: those below a level are all right, but for that chance.

    S. Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of
    Statistics 6 (1979): the smallest times their number, the next times one less, never falling.
    """
    adjusted = [0.0] * len(p)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = highest
    return adjusted


def smallest_effect(n_items: int, p: float) -> float:
    """How much more than `p` a second share must be so that n items of each are likely to show it.

    With 80% power at 5% two-sided. Solved for d, with q = p + d and m = p + d / 2, from
    n = (z(0.975) sqrt(2 m (1 - m)) + z(0.8) sqrt(p (1 - p) + q (1 - q)))^2 / d^2
    (Fleiss, Levin, Paik 2003, Statistical Methods for Rates and Proportions, 4.2). Items of both
    are taken as independent: two networks on the same items often show smaller differences. It is
    infinite if so few items cannot show any; p, such as the chance of a guess, is less than 1.
    """
    z_level, z_power = norm.ppf(1 - LEVEL / 2), norm.ppf(POWER)

    def lack(d: float) -> float:
        """How far d falls short of what n items show."""
        middle, q = p + d / 2, p + d
        under_equal = math.sqrt(2 * middle * (1 - middle))
        under_d = math.sqrt(p * (1 - p) + max(q * (1 - q), 0.0))
        return float(z_level * under_equal + z_power * under_d - d * math.sqrt(n_items))

    return math.inf if lack(1 - p) > 0 else float(brentq(lack, 0, 1 - p))


def compare(finals: Finals, baseline: str, same: Mapping[str, str]) -> dict[str, Comparison]:
    """Every other arm against the baseline, paired by the seeds that both have finished.

    An arm differs only if seeds, documents and both together say so (Comparison.p); that p is
    corrected for all arms that are not the baseline's network: `same` names the first arm that an
    arm is the same network as. ValueError if documents do not pair.
    """
    found = {
        arm: contrast(records, finals.get(baseline, ()))
        for arm, records in finals.items()
        if arm != baseline
    }
    tested = [arm for arm in found if same.get(arm, arm) != same.get(baseline, baseline)]
    corrected = holm([found[arm].p for arm in tested])
    return found | {arm: found[arm].judged(p) for arm, p in zip(tested, corrected, strict=True)}


def places(finals: Finals, same: Mapping[str, str], refused: Collection[str]) -> dict[str, int]:
    """Place of each arm: one more than the networks that are separated from it as better.

    All pairs of networks are tested as arms are against the baseline, corrected for their number.
    A place says who is surely better, and nothing of those that share it: of three arms, the first
    may be separated from the third while the second is from neither; first and second then share
    place 1, and the third has place 2. An arm with too few seeds is separated from none, so place 1
    is no victory. As there are more pairs than comparisons with the baseline, an arm may be better
    than the baseline and share its place. Arms of one network, as `same` says, count once and share
    the place of the first; those that are refused or have finished no training have none.
    ValueError if documents do not pair.
    """
    ranked = {
        arm: same.get(arm, arm)
        for arm, records in finals.items()
        if arm not in refused and finished(records)
    }
    first = {network: arm for arm, network in reversed(ranked.items())}
    first |= {network: network for network in first if network in ranked}
    pairs = list(itertools.combinations(first, 2))
    found = [contrast(finals[first[one]], finals[first[other]]) for one, other in pairs]
    n_better: Counter[str] = Counter()
    for (one, other), mine, p in zip(pairs, found, holm([f.p for f in found]), strict=True):
        verdict = mine.judged(p).verdict
        n_better[other] += verdict == "better"
        n_better[one] += verdict == "worse"
    return {arm: 1 + n_better[network] for arm, network in ranked.items()}


def contrast(arm: Sequence[TrainingRecord], other: Sequence[TrainingRecord]) -> Comparison:
    """Losses of `arm` less those of `other`, by seed and by document, not judged yet."""
    mine, theirs = finished(arm), finished(other)
    shared = sorted(mine.keys() & theirs.keys())
    return Comparison(
        over_seeds(by_seed(arm), by_seed(other)),
        over_documents([mine[s].documents for s in shared], [theirs[s].documents for s in shared]),
        over_seeds(by_seed(arm, "test_loss"), by_seed(other, "test_loss")),
    )


def finished(records: Iterable[TrainingRecord]) -> dict[int, TrainingRecord]:
    """Trainings that came to their end, by seed."""
    return {record.seed: record for record in records if record.status == "ok"}


def by_seed(records: Iterable[TrainingRecord], loss: str = "val_loss") -> dict[int, float]:
    """That loss of the trainings that came to their end, as far as it is known."""
    ended = finished(records).items()
    return {seed: value for seed, r in ended if (value := getattr(r, loss)) is not None}


def _difference(mean: float, error: float, freedom: float, n: int) -> Difference:
    """By Student's distribution; without an error there is no doubt, unknown is no evidence."""
    if math.isnan(error):
        return Difference(mean, math.nan, math.nan, 1.0, n)
    if error == 0:
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 0.0, n, error, freedom)
    reach = error * float(student.ppf(1 - LEVEL / 2, freedom))
    p = 2 * float(student.sf(abs(mean) / error, freedom))
    return Difference(mean, mean - reach, mean + reach, p, n, error, freedom)
