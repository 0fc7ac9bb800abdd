"""The table of all runs: what each was asked, on which machine, and what it found, in words."""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import Evidence, Refused
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.throughput.prose import MODES
from psannlm.publish.numbers import KEPT, SPEED, Number, numbers_of
from psannlm.publish.run_facts import code, machine, page, started, torch_version

COLUMNS = (
    "run", "page", "found", "status", "bases", "machine", "preset", "torch", "code",
    "started (UTC)",
)  # fmt: skip


def runs_table(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a run, newest first; of a refused run nothing but its reason is used."""
    rows = [_refused(run) if isinstance(run, Refused) else _known(run) for run in reversed(runs)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def found(run: Evidence) -> str:
    """What a complete run is known by, in words."""
    return FOUND[page(run)](run)


def bases_of(run: Evidence) -> tuple[str, ...]:
    """The bases, or arms, of a run: those in its table once it is complete."""
    if run.is_complete:
        named = [str(row.values["base"]) for row in rows_of(run) if row.values["base"]]
    else:
        named = list(run.manifest["parameters"].get("base", ()))
    return tuple(dict.fromkeys(named))


def _refused(run: Refused) -> dict[str, object]:
    unknown: dict[str, object] = dict.fromkeys(COLUMNS, UNKNOWN)
    return unknown | {"run": run.folder.name, "status": f"refused: {run.reason}"}


def _known(run: Evidence) -> dict[str, object]:
    status = run.manifest["status"]
    if status == "running":
        status = "interrupted (or still running)"
    elif status == "failed" and run.manifest.get("reason"):
        status = f"failed: {run.manifest['reason']}"
    return {
        "run": run.manifest["run"],
        "page": page(run),
        "preset": run.manifest["preset"],
        "bases": bases_of(run),
        "machine": machine(run),
        "torch": torch_version(run),
        "code": code(run),
        "started (UTC)": started(run),
        "status": status,
        "found": found(run) if run.is_complete else UNKNOWN,
    }


def _validation(run: Evidence) -> str:
    statuses = [row.values["status"] for row in rows_of(run)]
    counts = {status: statuses.count(status) for status in ("failed", "skipped")}
    rest = "".join(f", {n} {status}" for status, n in counts.items() if n)
    return f"{statuses.count('passed')} of {len(statuses)} passed{rest}"


def _throughput(run: Evidence) -> str:
    numbers = [n for n in numbers_of(run) if n.quantity == SPEED and n.is_main]
    steps = [n for n in numbers if n.setting.startswith(MODES["train_step"])] or numbers
    if not (best := _best(steps)):
        return "nothing was measured"
    mode = best.setting.partition(",")[0]
    return f"{mode}: up to {best.value:,.0f} tokens/s ({best.base})"


def _memory(run: Evidence) -> str:
    kept = [n for n in numbers_of(run) if n.quantity == KEPT and n.is_main and n.value is not None]
    if not kept:
        return "nothing was measured"
    base = kept[0].base
    first = [n for n in kept if n.base == base][:2]
    said = " and ".join(f"{n.value:,.1f} MiB {n.setting.rpartition(', ')[2]}" for n in first)
    return f"{base} keeps {said}"


def _training(run: Evidence) -> str:
    [bits, _] = numbers_of(run)
    return bits.shown


def _shootout(run: Evidence) -> str:
    rows = [row.values for row in rows_of(run) if row.values["place"] == 1]
    if not rows:
        return "no arm has a place"
    least = min(rows, key=lambda row: float(row["val_loss"]))
    place = "first" if len(rows) == 1 else f"one of {len(rows)} first"
    return f"{least['base']} ({place}): {least['val_loss']:.4f} nats a token"


def _peer(run: Evidence) -> str:
    numbers = [n for n in numbers_of(run) if n.value is not None]
    if not numbers:
        return "nothing was measured"
    steps = [n for n in numbers if n.setting.startswith(MODES["train_step"])] or numbers
    base, (work, *_) = steps[0].base, steps[0].setting.split(", ")
    mine = [(n.value, n.setting.split(", ")) for n in steps if n.base == base]
    said = " and ".join(f"{value:.2f} ({of[1]})" for value, of in mine if of[0] == work)
    return f"{base}, {work}: {said} × the published package"


FOUND: Mapping[str, Callable[[Evidence], str]] = {
    "validation": _validation,
    "throughput": _throughput,
    "memory": _memory,
    "tiny_corpus": _training,
    "shootout": _shootout,
    "peer": _peer,
}
"""Of each page: what one of its complete runs found."""


def _best(numbers: Sequence[Number]) -> Number | None:
    known = [n for n in numbers if n.value is not None]
    return max(known, key=lambda n: n.value or 0.0, default=None)
