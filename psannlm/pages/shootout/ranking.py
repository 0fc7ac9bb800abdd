"""The places of arms: shared by all that are not separated.

A place says who is surely better, and nothing of those that share it.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Mapping

from psannlm.pages.shootout.comparison import Finals, contrast, finished, holm, verdict_of


def places(finals: Finals, same: Mapping[str, str], refused: Collection[str]) -> dict[str, int]:
    """Place of each arm: one more than the networks that are separated from it as better.

    All pairs of networks are tested as arms are against the baseline, corrected for their number.
    A place says who is surely better, and nothing of those that share it: of three arms, the first
    may be separated from the third while the second is from neither; first and second then share
    place 1, and the third has place 2. An arm with too few seeds is separated from none, so place 1
    is no victory. As there are more pairs than comparisons with the baseline, an arm may be better
    than the baseline and share its place.

    Args:
        finals: Finished and failed trainings, by arm.
        same: As for `compare`; arms of one network count once, and share the place of the first.
        refused: Arms without a place.

    Returns:
        By arm; those that are refused or have finished no training are missing.

    Raises:
        ValueError: Documents do not pair.
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
        verdict = verdict_of(mine, p)
        n_better[other] += verdict == "better"
        n_better[one] += verdict == "worse"
    return {arm: 1 + n_better[network] for arm, network in ranked.items()}
