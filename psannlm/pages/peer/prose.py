"""The sentences of the comparison with the published package whose words depend on the result."""

from collections.abc import Sequence

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE, FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence.rows import Number
from psannlm.evidence.table import plain_rows
from psannlm.evidence.text import by_verdict, interval, number, processes
from psannlm.pages.peer.config import PeerConfig
from psannlm.pages.peer.records import WORK
from psannlm.pages.peer.tables import NOT_COMPARED, pairs

SETTINGS = {"best": "each with its fastest choices", "defaults": "each by its defaults"}
"""What people call a setting, the one that is told first first."""


def package(config: PeerConfig) -> str:
    """The published package as prose names it: `psannlm 2.0.1`."""
    return config.peer.replace("==", " ")


def answer(table: pd.DataFrame, config: PeerConfig) -> str:
    """What the table says, a sentence a setting and precision; every number is taken from it."""
    both = pairs(table)
    good = both[(both["status"] == "ok") & (both["published_status"] == "ok")]
    lines = [
        f"**Ours as a ratio to {package(config)}**, {name}, {precision} ({CONFIDENCE:.0%} "
        f"intervals): {_ratios(rows)}."
        for setting, name in SETTINGS.items()
        for precision, rows in good[good["setting"] == setting].groupby("precision", sort=False)
    ]
    failed = table[table["status"] != "ok"]
    if len(failed):
        reasons = "; ".join(dict.fromkeys(failed["reason"]))
        alone = int((table["verdict"] == NOT_COMPARED).sum())
        without = f", which leaves {alone} of ours without a ratio" if alone else ""
        lines.append(f"{len(failed)} of {len(table)} rows failed{without}: {reasons}.")
    if config.n_repeats < FEWEST_REPEATS:
        lines.append(
            f"With {processes(config.n_repeats)} a row, no difference of speed is called one: a "
            f"verdict needs {FEWEST_REPEATS}. These numbers prove that the page runs, no more."
        )
    return "\n".join(f"- {line}" for line in lines)


def _ratios(rows: pd.DataFrame) -> str:
    """Of each kind of work the ratio of every base, with its interval and its verdict."""
    said: dict[str, list[str]] = {}
    for row in plain_rows(rows):
        ratio = interval(row["ratio"], row["ratio_low"], row["ratio_high"], ".2f")
        told = f"**{row['base']}** {ratio} × ({row['verdict']})"
        said.setdefault(WORK.show(row["work"]), []).append(told)
    return "; ".join(f"{work} {', '.join(told)}" for work, told in said.items())


def reading(table: pd.DataFrame, config: PeerConfig) -> str:
    """How to read the tables: the noise, and how often all was measured."""
    return (
        "- **Noise.** Ours was measured twice under two names. The ratio of the two strayed from 1 "
        f"by up to {number(table['noise_floor'].max(), '.1%')}, its interval included; a "
        f"difference within that of its own row, or below {SMALLEST_EFFECT:.0%}, is "
        "*not separated*.\n"
        f"- **Replication.** Each row is {processes(config.n_repeats)}, in blocks shuffled anew, "
        "both packages in each block; intervals are over processes, ratios are paired within "
        "blocks."
    )


def summary(numbers: Sequence[Number]) -> str:
    """In every setting that was measured: neither stands for the other."""
    said = []
    for setting, name in SETTINGS.items():
        here = [n for n in numbers if n.row and n.row.values["setting"] == setting]
        verdicts = by_verdict((f"{n.base} {_work(n)}", n.plain, n.verdict) for n in here)
        said += [f"*{name}*: {verdicts}"] if here else []
    peer = numbers[0].run.manifest["parameters"]["peer"]
    return f"Ours as a ratio to {peer}: {'. '.join(said)}."


def found(numbers: Sequence[Number]) -> str:
    """The first base's training step, or else its first work, in every setting."""
    known = [n for n in numbers if n.value is not None]
    steps = [n for n in known if _work(n) == WORK.show("train_step")] or known
    if not steps:
        return "nothing was measured"
    base, work = steps[0].base, _work(steps[0])
    said = " and ".join(
        f"{n.value:.2f} ({n.row.values['setting']})"
        for n in steps
        if n.row and (n.base, _work(n)) == (base, work)
    )
    return f"{base}, {work}: {said} × the published package"


def _work(number: Number) -> str:
    assert number.row is not None
    return WORK.show(number.row.values["work"])
