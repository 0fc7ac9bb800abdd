"""The page of the published package beside ours: speeds and bytes, by defaults and at best."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE, FEWEST_REPEATS, SMALLEST_EFFECT
from psannlm.evidence import text
from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, RerunRequest, RunInfo, Tables
from psannlm.evidence.runs import Evidence
from psannlm.evidence.session import Session
from psannlm.evidence.store import of_type
from psannlm.evidence.table import Column, Number, Row, plain_rows
from psannlm.pages.peer import figures
from psannlm.pages.peer import records as raw
from psannlm.pages.peer import tables as made
from psannlm.pages.peer.plan import compare, expected_seconds, plan, protocol_plan
from psannlm.pages.peer.records import OURS, ROW, WORK, AnyCell, PeerCell, PeerConfig
from psannlm.pages.peer.tables import PEER, RATIO, VALUE, pairs

# What people call a setting, the one that is told first first.
SETTINGS = {"best": "each with its fastest choices", "defaults": "each by its defaults"}


class PeerPage(Page[PeerConfig, AnyCell]):
    """Both packages interleaved, each by its defaults and with its fastest choices."""

    name = "peer"
    title = "Against the published package"
    question = "Is it better than the published package?"
    installs = True
    config = PeerConfig
    tables = (PEER, made.PROTOCOL)
    store = raw.STORE
    readme_table = made.BESIDE
    readme_columns = ("work", "precision", "base", "setting", RATIO, "result", "n_ok")
    reducible: ClassVar[Mapping[str, float]] = {"n_repeats": FEWEST_REPEATS}
    expected_seconds = staticmethod(expected_seconds)
    tabulate = staticmethod(made.tabulate)
    bounds = staticmethod(raw.problems)

    def total(self, config: PeerConfig) -> int:
        return len(plan(config)) + len(protocol_plan(config))

    def measure(self, session: Session[PeerConfig, AnyCell]) -> Iterator[Sequence[AnyCell]]:
        return compare(session.config, done=session.done)

    def figures(self, tables: Tables, run: RunInfo[PeerConfig]) -> Mapping[str, Figure]:
        return {"ratios": figures.ratios(tables[PEER.file])}

    def answer(self, tables: Tables, run: RunInfo[PeerConfig]) -> str:
        """A sentence a setting and precision, and what failed with its reasons."""
        table, config = tables[PEER.file], run.config
        package = config.peer.replace("==", " ")
        both = pairs(table)
        good = both[(both["status"] == "ok") & (both["published_status"] == "ok")]
        good = good[good[RATIO].notna()]
        lines = [
            f"**Ours as a ratio to {package}**, {name}, {precision} ({CONFIDENCE:.0%} "
            f"intervals): {_ratios(rows)}."
            for setting, name in SETTINGS.items()
            for precision, rows in good[good["setting"] == setting].groupby("precision", sort=False)
        ]
        failed = table[table["status"] != "ok"]
        if len(failed):
            reasons = "; ".join(dict.fromkeys(failed["reason"]))
            alone = int((table["verdict"] == made.NOT_COMPARED).sum())
            without = f", which leaves {alone} of ours without a ratio" if alone else ""
            lines.append(f"{len(failed)} of {len(table)} rows failed{without}: {reasons}.")
        if config.n_repeats < FEWEST_REPEATS:
            lines.append(
                f"With {text.processes(config.n_repeats)} a row, no difference of speed is called "
                f"one: a verdict needs {FEWEST_REPEATS}. These numbers prove that the page runs, "
                "no more."
            )
        return "\n".join(f"- {line}" for line in lines)

    def reading(self, tables: Tables, run: RunInfo[PeerConfig]) -> str:
        """The noise, and how often all was measured."""
        floor = text.number(tables[PEER.file]["noise_floor"].max(), ".1%")
        return (
            "- **Noise.** Ours was measured twice under two names. The ratio of the two strayed "
            f"from 1 by up to {floor}, its interval included; a difference within that of its own "
            f"row, or below {SMALLEST_EFFECT:.0%}, is *not separated*.\n"
            f"- **Replication.** Each row is {text.processes(run.config.n_repeats)}, in blocks "
            "shuffled anew, both packages in each block; intervals are over processes, ratios are "
            "paired within blocks."
        )

    def section(self, name: str, tables: Tables, run: RunInfo[PeerConfig]) -> str:
        """The two packages `beside` each other."""
        return made.BESIDE.html(pairs(tables[PEER.file]))

    def best(self, tables: Tables, run: RunInfo[PeerConfig]) -> pd.DataFrame:
        return pairs(tables[PEER.file])

    def readme_note(self, run: RunInfo[PeerConfig]) -> str:
        return (
            f"Beside {run.config.peer.replace('==', ' ')}. A ratio is ours to the published "
            f"package's, paired by block, with its {CONFIDENCE:.0%} interval; of what is saved for "
            "backward it is one of bytes."
        )

    def setting(self, row: Row) -> str:
        return super().setting(row).removeprefix(f"{OURS}, ")

    def stem(self, row: Row) -> str:
        return ".".join([self.name, *(str(row.values[name]) for name in ROW)])

    def is_headline(self, row: Row, column: Column) -> bool:
        return row.values[RATIO] is not None

    def column_of(self, row: Row, column: Column) -> Column:
        return made.column_of(column, row.values)

    def numbers(self, run: Evidence) -> Iterator[Number]:
        """Of ours, measured once, to the published package's."""
        return (n for n in super().numbers(run) if n.row and n.row.values["side"] == OURS)

    def summary(self, numbers: Sequence[Number]) -> str:
        """In every setting that was measured: neither stands for the other."""
        said = []
        for setting, name in SETTINGS.items():
            here = [n for n in numbers if n.row and n.row.values["setting"] == setting]
            verdicts = text.by_verdict((f"{n.base} {_work(n)}", n.plain, n.verdict) for n in here)
            said += [f"*{name}*: {verdicts}"] if here else []
        peer = numbers[0].run.manifest["parameters"]["peer"]
        return f"Ours as a ratio to {peer}: {'. '.join(said)}."

    def found(self, run: Evidence) -> str:
        """The first base's training step, or else its first work, in every setting."""
        known = [n for n in self.numbers(run) if n.value is not None]
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

    def measure_again(
        self, row: Row, request: RerunRequest[PeerConfig], records: Sequence[AnyCell]
    ) -> list[AnyCell]:
        """All sides of the row; works that came after it in its processes are left out."""
        values, asked = row.values, request.config.work
        changes: dict[str, Any] = {n: (values[n],) for n in ("base", "setting", "precision")}
        changes |= {"work": asked[: asked.index(values["work"]) + 1], "n_repeats": request.repeats}
        config = request.config.model_copy(update=changes | {"protocol_batch_tokens": ()})
        request.say(f"measuring in {len(plan(config))} fresh processes")
        return [record for found in compare(config) for record in found]

    def replicates(
        self, records: Sequence[AnyCell], row: Row, config: PeerConfig
    ) -> Mapping[str, Mapping[int, float]]:
        """Of bytes, those of the side alone: what the other side saves is a row of its own."""
        side = row.values["side"]
        other = made.OTHER.get(side)
        mine = made.amounts(_of_row(records, row, side))
        if row.values["work"] == raw.SAVED or other is None:
            return {VALUE: mine}
        theirs = made.amounts(_of_row(records, row, other))
        return {VALUE: mine, RATIO: {b: mine[b] / theirs[b] for b in mine.keys() & theirs}}

    def failures(self, records: Sequence[AnyCell], row: Row) -> list[str]:
        return [r.reason for r in _of_row(records, row, row.values["side"]) if r.reason]


def _ratios(rows: pd.DataFrame) -> str:
    """Of each kind of work the ratio of every base, with its interval and its verdict."""
    said: dict[str, list[str]] = {}
    for row in plain_rows(rows):
        ratio = text.interval(row["ratio"], row["ratio_low"], row["ratio_high"], ".2f")
        told = f"**{row['base']}** {ratio} × ({row['verdict']})"
        said.setdefault(WORK.show(row["work"]), []).append(told)
    return "; ".join(f"{work} {', '.join(told)}" for work, told in said.items())


def _work(number: Number) -> str:
    assert number.row is not None
    return WORK.show(number.row.values["work"])


def _of_row(records: Sequence[AnyCell], row: Row, side: str) -> list[PeerCell]:
    key = tuple(row.values[name] for name in ROW)
    return [r for r in of_type(PeerCell, records) if (r.side, r.row) == (side, key)]


PAGE = PeerPage()
