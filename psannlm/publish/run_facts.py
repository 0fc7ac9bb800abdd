"""What a run was: page, machine, parameters, shape; whether two are alike; the table of all."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

import pandas as pd

from psannlm.bench import provenance
from psannlm.evidence.runs import Evidence, Refused, best_run, with_machines
from psannlm.evidence.table import Column, Number, Table
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.registry import pages
from psannlm.rerun.difference import other_settings


def page(run: Evidence) -> str:
    """The notebook that made it."""
    return str(run.manifest["notebook"])


def machine(run: Evidence) -> str:
    """The measured device, by a name that is that of one machine alone."""
    return run.machine


def preset(run: Evidence) -> str:
    """The set of parameter files that it was asked with: smoke, cpu or gpu."""
    return str(run.manifest["preset"])


def torch_version(run: Evidence) -> str:
    """Of the torch that it ran with."""
    return str(run.manifest["environment"]["software"]["packages"]["torch"])


def code(run: Evidence) -> str:
    """The commit that it ran, whether files had been changed since, and whether it is mixed."""
    mixed = ", mixed" if "parts" in run.manifest else ""
    return f"{provenance.code(run.manifest['git'])}{mixed}"


def started(run: Evidence) -> str:
    """When, to the minute, in UTC; the first ten characters are the day."""
    return str(run.manifest["started_at"])[:16].replace("T", " ")


def text_of(run: Evidence) -> str | None:
    """Hash of the text that it read; None if it read none."""
    return (run.manifest.get("corpus") or {}).get("sha256")


def bases_of(run: Evidence) -> tuple[str, ...]:
    """The bases, or arms, of a run: those in its table once it is complete."""
    named = run.manifest["parameters"].get("base", ())
    if run.is_complete:
        rows = pages()[page(run)].rows(run)
        named = [row.values["base"] for row in rows if row.values.get("base")]
    return tuple(dict.fromkeys(named))


def shape(run: Evidence) -> str:
    """What size of network, and of training, its numbers hold for."""
    asked = run.manifest["parameters"]
    names = {"d_model": "d_model {:,}", "n_layers": "{} layers"}
    names |= {"vocab_size": "vocabulary {:,}", "context_length": "context {:,}"}
    said = [pattern.format(asked[name]) for name, pattern in names.items() if name in asked]
    if "epochs" in asked:
        part = f"{asked['train_megabytes']:g} MB" if asked["train_megabytes"] else "all of it"
        said += [PurePosixPath(asked["corpus"]).name, part, f"{asked['epochs']:g} × read"]
    return ", ".join(said)


def complete_runs(runs: Sequence[Evidence | Refused], notebook: str = "") -> list[Evidence]:
    """The complete runs of a notebook, or of all, in the order given."""
    named = with_machines(runs)
    complete = [run for run in named if isinstance(run, Evidence) and run.is_complete]
    return [run for run in complete if notebook in ("", page(run))]


def best_runs(runs: Sequence[Evidence | Refused]) -> dict[str, Evidence]:
    """The best run of each page that has one, by name."""
    chosen = {name: best_run(name, complete_runs(runs)) for name in pages()}
    return {name: run for name, run in chosen.items() if run is not None}


def numbers_of(run: Evidence) -> list[Number]:
    """Every number of a complete run, in the order of its tables."""
    return list(pages()[page(run)].numbers(run))


def main_numbers(run: Evidence) -> list[Number]:
    """Those that its page is known by and of which one can be better than another."""
    return [number for number in numbers_of(run) if number.is_main and number.column.better]


def differences(newer: Evidence, older: Evidence) -> Iterator[str]:
    """What keeps two runs of a page from being compared, in words."""
    facts = {"machine": machine, "torch": torch_version}
    for what, of in facts.items():
        if of(newer) != of(older):
            yield f"{what}: {of(newer)}, before {of(older)}"
    yield from other_settings(newer.manifest, older.manifest)
    if names := list(unequal_parameters(newer, older)):
        yield f"parameters differ ({', '.join(names)})"
    if text_of(newer) != text_of(older):
        yield "the text differs"


def unequal_parameters(newer: Evidence, older: Evidence) -> Iterator[str]:
    """Parameters that two runs of a page do not share; one that is unknown is its default."""
    ours, theirs = newer.manifest["parameters"], older.manifest["parameters"]
    fields = pages()[page(newer)].config.model_fields
    usual = {name: field.default for name, field in fields.items()}
    usual = {name: list(v) if isinstance(v, tuple) else v for name, v in usual.items()}
    for name in ours | theirs:
        if ours.get(name, usual.get(name)) != theirs.get(name, usual.get(name)):
            yield name


def _status(run: Evidence) -> str:
    status, reason = str(run.manifest["status"]), run.manifest.get("reason")
    if status == "running":
        return "interrupted (or still running)"
    return f"failed: {reason}" if status == "failed" and reason else status


RUNS = Table(
    "runs.csv",
    "One row a run, whatever became of it.",
    (
        Column("run", "Run folder, named by its start in UTC.", value=lambda r: r.manifest["run"]),
        Column("page", "Page that the run is of.", value=page),
        Column(
            "found",
            "What the run found, in words.",
            value=lambda run: pages()[page(run)].found(run) if run.is_complete else UNKNOWN,
        ),
        Column("status", "What became of the run, with the reason.", value=_status),
        Column("bases", "Bases that the run measured.", value=bases_of),
        Column("machine", "Device and processor that the run was made on.", value=machine),
        Column("preset", "Set of parameter files, smoke, cpu or gpu.", value=preset),
        Column("torch", "Version of torch.", value=torch_version),
        Column(
            "code", "Commit of the code that ran, and whether files had been changed.", value=code
        ),
        Column("started (UTC)", "When the run began.", value=started),
    ),
)


def runs_table(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a run, newest first; of a refused run nothing but its reason is used."""
    unknown: Mapping[str, object] = dict.fromkeys(RUNS.names, UNKNOWN)
    rows = [
        RUNS.row(run)
        if isinstance(run, Evidence)
        else {**unknown, "run": run.folder.name, "status": f"refused: {run.reason}"}
        for run in reversed(with_machines(runs))
    ]
    return pd.DataFrame(rows, columns=RUNS.names)
