"""What must hold between the numbers of a run: checked whenever its evidence is read.

Hashes tell that files are as they were written; identities tell that they were written right.
"""

import io
import math
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from psannlm.bench.records import CEILING, CellRecord, read_records
from psannlm.report.runs import Evidence, EvidenceError, Refused, all_runs

TOLERANCE = 1e-9
"""Relative. The same sums in the same order differ by rounding in the last digits at most."""


def checked_runs(reports: Path) -> Iterator[Evidence | Refused]:
    """Every run folder, those refused whose hashes or identities fail."""
    for run in all_runs(reports):
        if isinstance(run, Refused):
            yield run
            continue
        try:
            check(run)
            yield run
        except EvidenceError as error:
            yield Refused(run.folder, str(error))


def check(run: Evidence) -> None:
    """Recompute what a complete run states.

    Raises:
        EvidenceError: Names the run, the file, the row and the identity that fails.
    """
    if run.is_complete and run.manifest["notebook"] == "throughput":
        for problem in throughput_problems(run):
            raise EvidenceError(f"{run.name}: throughput.csv: {problem}")


def throughput_problems(run: Evidence) -> Iterator[str]:
    """Rows of throughput.csv that the samples do not bear out, or that no machine could reach."""
    try:
        records = read_records(run.text("cells.csv"), run.text("samples.csv"))
        table = pd.read_csv(io.StringIO(run.text("throughput.csv")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        yield f"cannot be compared with the raw samples: {error}"
        return
    stated = set()
    for row in table.to_dict("records"):
        key = (row["label"], row["batch_tokens"], row["mode"], row["precision"])
        stated.add(key)
        mine = [r for r in records if r.key[1:] == key]
        where = f"{row['label']}, {row['batch_tokens']} tokens, {row['mode']}, {row['precision']}"
        for problem in _row_problems(row, mine, records):
            yield f"{where}: {problem}"
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
