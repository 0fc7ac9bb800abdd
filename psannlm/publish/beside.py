"""What stands beside a published figure: our rows under its protocol, and under a fair one."""

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from psannlm.evidence.rows import Row, rows_of
from psannlm.evidence.runs import Evidence
from psannlm.evidence.text import UNKNOWN, interval
from psannlm.publish.published import Beside, Figure

PEER, PROTOCOL = "peer", "protocol.csv"
UNMEASURED = "not measured yet"
NO_GPU = "no GPU evidence yet"
NO_MEASURE = "not part of what we repeat"
OF_OURS = {"ours": "ours", "published": "the published package, measured here"}
"""Sides of the repeated protocol, and what people call them."""


@dataclass(frozen=True)
class Ours:
    """One number of ours beside a figure, or what there is instead."""

    about: str
    """What the number is of; empty where there is none."""

    text: str
    """The number with its unit and interval, or the word on why there is none."""

    where: str
    """Its conditions and device; empty where there is no number."""

    link: str
    """Markdown: page, run and row."""

    on_gpu: bool

    @property
    def short(self) -> str:
        """As a cell of a table says it."""
        parts = [self.text] + ([self.where] if self.where else [])
        return ", ".join(parts) + ("" if self.on_gpu or not self.where else f"; {NO_GPU}")

    @property
    def line(self) -> str:
        """As a section says it, in Markdown."""
        about = f"{self.about}: " if self.about else ""
        return f"{about}{self.short}" + (f" ({self.link})" if self.link else "")


def same_protocol(figure: Figure, run: Evidence | None) -> list[Ours]:
    """Rows of the original's own protocol repeated by us, ours first.

    Args:
        figure: What they stand beside.
        run: The best comparison with the published package; None if there is none.
    """
    if figure.protocol is None:
        return [_without(NO_MEASURE)]
    if run is None or PROTOCOL not in run.manifest["artifacts"]:
        return [_without(UNMEASURED)]
    asked = figure.protocol
    frame = pd.read_csv(io.StringIO(run.text(PROTOCOL)))
    frame = frame[(frame["check"] == asked.check) & (frame["measure"] == asked.measure)]
    base = base_of(figure)
    if base:
        frame = frame[frame["base"] == base]
    found = []
    for side, about in OF_OURS.items():
        mine = [(int(n) + 1, dict(v)) for n, v in frame[frame["side"] == side].iterrows()]
        found += [_protocol_row(run, n, v, about) for n, v in _nearest(mine, figure)]
    return found or [_without(UNMEASURED)]


def fair(figure: Figure, best: Mapping[str, Evidence | None]) -> list[Ours]:
    """Rows of ours that answer the question that the figure was taken to answer.

    Args:
        figure: What they stand beside.
        best: The best run of each page.

    Raises:
        ValueError: A figure selects rows by a column that the page's table does not have.
    """
    return [_of_page(figure, beside, best.get(beside.page)) for beside in figure.beside]


def base_of(figure: Figure) -> str:
    """The base that a figure is of; empty where it is of none in particular."""
    return figure.stated.base or figure.used.base


def tokens_of(figure: Figure) -> int | None:
    """Tokens of a step of what was measured."""
    used = figure.used
    return used.batch * used.context_length if used.batch and used.context_length else None


def _of_page(figure: Figure, beside: Beside, run: Evidence | None) -> Ours:
    if run is None:
        return _without(UNMEASURED, beside.about)
    rows = rows_of(run, beside.where.format(base=base_of(figure)))
    if beside.measure:
        return _measure(run, rows, beside)
    context = run.manifest["parameters"].get("context_length")
    known = [(row.number, row.values) for row in rows]
    known = [(n, v) for n, v in known if v["context_length"] == context]
    for number, values in _nearest(known, figure):
        return _page_row(run, number, values, beside)
    return _without(UNMEASURED, beside.about)


def _nearest(
    rows: Sequence[tuple[int, Mapping[str, Any]]], figure: Figure
) -> list[tuple[int, Mapping[str, Any]]]:
    """Rows of the figure's batch, else of the most processes, then the largest; bf16 if any is."""
    if not rows:
        return []
    wanted = tokens_of(figure)
    best = max(
        (v["batch_tokens"] == wanted, v.get("n_ok") or 0, v["batch_tokens"]) for _, v in rows
    )
    chosen = [row for row in rows if row[1]["batch_tokens"] == best[-1]]
    half = [row for row in chosen if _precision(row[1]) == "bf16"]
    return half or chosen


def _precision(values: Mapping[str, Any]) -> str:
    return str(values.get("precision") or values.get("amp") or "")


def _page_row(run: Evidence, number: int, values: Mapping[str, Any], beside: Beside) -> Ours:
    if values[beside.column] is None:
        word = str(values["reason"]) if values["status"] != "ok" else _absent(run)
        return _without(word, beside.about)
    low, high = (values[name] if name else None for name in (beside.low, beside.high))
    text = interval(values[beside.column], low, high, _pattern(values[beside.column]))
    return _found(run, number, values, f"{text} {beside.unit}", beside.about)


def _protocol_row(run: Evidence, number: int, values: Mapping[str, Any], about: str) -> Ours:
    value = values["value"]
    if pd.isna(value):
        failed = values["status"] != "ok" and not pd.isna(values["reason"])
        return _without(str(values["reason"]) if failed else _absent(run), about)
    unit = "" if pd.isna(values["unit"]) else str(values["unit"])
    return _found(run, number, values, f"{value:{_pattern(value)}} {unit}".strip(), about)


def _measure(run: Evidence, rows: Sequence[Row], beside: Beside) -> Ours:
    """The worst of a measure over all bases, with its bound."""
    found = list(_measures(rows, beside.measure))
    if not found:
        return _without(UNMEASURED, beside.about)
    upper = found[0][1]["upper"]
    row, worst = (max if upper else min)(found, key=lambda one: float(one[1]["value"]))
    word = "at most" if upper else "at least"
    value, bound = (f"{float(worst[n]):{_pattern(float(worst[n]))}}" for n in ("value", "bound"))
    bases = len({one.values["base"] for one, _ in found})
    text = f"{value} in the worst of {bases} base{'s' * (bases > 1)}, bound {word} {bound}"
    return _found(run, row.number, row.values, text, beside.about)


def _measures(rows: Sequence[Row], name: str) -> Iterator[tuple[Row, Mapping[str, Any]]]:
    for row in rows:
        for measure in row.values["measures"] or ():
            if measure["name"] == name:
                yield row, measure


def _found(run: Evidence, number: int, values: Mapping[str, Any], text: str, about: str) -> Ours:
    page, environment = run.manifest["notebook"], run.manifest["environment"]
    where = [_precision(values)] if _precision(values) else []
    if values.get("batch_tokens"):
        where.append(f"{int(values['batch_tokens']):,} batch tokens")
    if values.get("context_length"):
        where.append(f"context {int(values['context_length']):,}")
    link = f"[{page}]({page}.ipynb), run {run.folder.name}, row {number}"
    if page == PEER:
        link += f" of {PROTOCOL}"
    device = f"on {environment['device']}"
    return Ours(about, text, ", ".join([*where, device]), link, bool(environment["gpu"]))


def _absent(run: Evidence) -> str:
    return UNKNOWN if run.manifest["environment"]["gpu"] else NO_GPU


def _without(word: str, about: str = "") -> Ours:
    return Ours(about, word, "", "", on_gpu=False)


def _pattern(value: float) -> str:
    return ",.0f" if abs(value) >= 1000 else ".4g"
