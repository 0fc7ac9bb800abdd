"""What must hold between throughput.csv and the raw samples it was computed from."""

import io
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from psannlm.bench.statistics import Interval, noise_floor, verdict
from psannlm.config.parse import parse
from psannlm.evidence.runs import Evidence
from psannlm.evidence.verify import differences
from psannlm.pages.throughput.config import ThroughputConfig
from psannlm.pages.throughput.records import CEILING, CellRecord, read_records
from psannlm.pages.throughput.tables import COLUMNS, throughput_table

SETTING = ("batch_tokens", "mode", "precision")
"""Rows are compared where these are equal."""

TOLERANCE = 1e-9
"""Relative. The same sums in the same order differ by rounding in the last digits at most."""


STATED = ("mfu_stated",)
"""Columns that need a datasheet, which may have grown since."""


def problems(run: Evidence) -> Iterator[str]:
    """Rows of throughput.csv that the samples do not bear out, or that no machine could reach."""
    for problem in _table_problems(run):
        yield f"throughput.csv: {problem}"
    yield from _made_again(run)


def _made_again(run: Evidence) -> Iterator[str]:
    """Where the table is not what the records give by the code that makes one."""
    manifest = run.manifest
    try:
        config = parse(ThroughputConfig, manifest["parameters"], source=run.name)
        records = read_records(run.text("cells.csv"), run.text("samples.csv"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"throughput.csv: cannot be made again from the raw samples: {error}"
        return
    device = manifest["environment"]["device"]
    table = throughput_table(records, config, timestamp=manifest["run"], device=device)
    expected = table.drop(columns=list(STATED)).to_csv(index=False, lineterminator="\n")
    stated = run.text("throughput.csv")
    yield from differences("throughput.csv", stated, expected, fixed=COLUMNS[:4])


def _table_problems(run: Evidence) -> Iterator[str]:
    try:
        records = read_records(run.text("cells.csv"), run.text("samples.csv"))
        table = pd.read_csv(io.StringIO(run.text("throughput.csv")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"cannot be compared with the raw samples: {error}"
        return
    stated = set()
    rows = table.to_dict("records")
    for row in rows:
        key = (row["label"], row["batch_tokens"], row["mode"], row["precision"])
        stated.add(key)
        mine = [r for r in records if r.key[1:] == key]
        where = f"{row['label']}, {row['batch_tokens']} tokens, {row['mode']}, {row['precision']}"
        for problem in _row_problems(row, mine, records):
            yield f"{where}: {problem}"
    yield from _comparison_problems(rows, records)
    for missing in {r.key[1:] for r in records if r.mode != CEILING} - stated:
        yield f"no row for {', '.join(map(str, missing))}"


def _row_problems(
    row: Mapping[Hashable, Any], mine: list[CellRecord], records: list[CellRecord]
) -> Iterator[str]:
    good = [r for r in mine if r.status == "ok"]
    if row["n_ok"] != len(good) or row["n_failed"] != len(mine) - len(good):
        yield "counts of processes are not those of cells.csv"
    if not good:
        if row["status"] != "failed":
            yield "no process succeeded, yet the row does not say failed"
        return
    ceilings = [
        r.flop_per_s for r in records if r.mode == CEILING and r.precision == row["precision"]
    ]
    speed = median(r.tokens_per_s for r in good)
    expected = {
        "tokens_per_s": speed,
        "step_seconds": row["batch_tokens"] / speed,
        "flop_per_s": median(r.flop_per_s for r in good),
    }
    if ceilings:
        expected["mfu"] = expected["flop_per_s"] / median(ceilings)
    for name, value in expected.items():
        if not math.isclose(row[name], value, rel_tol=TOLERANCE):
            yield f"{name} is {row[name]!r}, the samples give {value!r}"
    if not row["tokens_per_s_low"] <= row["tokens_per_s"] <= row["tokens_per_s_high"]:
        yield "tokens_per_s lies outside its own interval"
    if expected.get("mfu", 0) > 1 and row["status"] != "refused":
        yield "faster than the measured matmul ceiling, yet not refused"


def _comparison_problems(
    rows: Sequence[Mapping[Hashable, Any]], records: Sequence[CellRecord]
) -> Iterator[str]:
    """Ratios, noise floors and verdicts that do not follow from samples and stated intervals."""
    good = [row for row in rows if row["status"] == "ok"]
    for setting in dict.fromkeys(_setting(row) for row in good):
        compared = [row for row in good if _setting(row) == setting]
        by_verdict = {row["verdict"]: row for row in compared}
        if "baseline" not in by_verdict:
            continue
        again = by_verdict.get("noise floor")
        floor = None if again is None else noise_floor(_stated_ratio(again, 0))
        baseline = _rates(by_verdict["baseline"], records)
        for row in compared:
            for problem in _one_comparison(row, _rates(row, records), baseline, floor):
                yield f"{row['label']}, {', '.join(map(str, setting))}: {problem}"


def _one_comparison(
    row: Mapping[Hashable, Any],
    rates: dict[int, float],
    baseline: dict[int, float],
    floor: float | None,
) -> Iterator[str]:
    ratios = [rates[block] / baseline[block] for block in rates.keys() & baseline.keys()]
    if ratios and not math.isclose(row["ratio"], median(ratios), rel_tol=TOLERANCE):
        yield f"ratio is {row['ratio']!r}, the samples give {median(ratios)!r}"
    if floor is not None and not math.isclose(row["noise_floor"], floor, rel_tol=TOLERANCE):
        yield f"noise_floor is {row['noise_floor']!r}, the baseline's second row gives {floor!r}"
    expected = verdict(_stated_ratio(row, len(ratios)) if ratios else None, floor)
    if row["verdict"] not in (expected, "baseline", "noise floor"):
        yield f"verdict is {row['verdict']!r}, its interval gives {expected!r}"


def _setting(row: Mapping[Hashable, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SETTING)


def _rates(row: Mapping[Hashable, Any], records: Sequence[CellRecord]) -> dict[int, float]:
    """Tokens per second of a row's processes, by block."""
    key = (row["label"], *_setting(row))
    return {r.repeat: r.tokens_per_s for r in records if r.key[1:] == key and r.status == "ok"}


def _stated_ratio(row: Mapping[Hashable, Any], n: int) -> Interval:
    return Interval(row["ratio"], row["ratio_low"], row["ratio_high"], n)
