"""What the book shows of the evidence: staged into book/results/ when a build begins.

For each notebook the best run's executed notebook and raw files, or a page that says what is
missing; beside them what the written pages include. Files are rewritten only when their content
changes, so that a build renders only what is new.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_markdown_cell

from psannlm import REPORTS, __version__
from psannlm.bench import statistics, timing
from psannlm.evidence import drawings
from psannlm.evidence.runs import Evidence
from psannlm.pages.memory import tables as memory_tables
from psannlm.pages.registry import CONFIGS
from psannlm.pages.shootout import comparison
from psannlm.pages.shootout import controls as shootout_controls
from psannlm.publish import claims, downloads, pieces, soundness
from psannlm.publish.evidence_pages import LandingData
from psannlm.rerun import expectation
from psannlm.run.check import checked_runs
from psannlm.run.preset import INSTALLING
from psannlm.train import journal

OF_NUMBERS = (
    "A smoke run: it proves that this page runs. Its sizes, and its repeats where there are any, "
    "are too small for its numbers to mean anything."
)
OF_CHECKS = "A smoke run: every check is made, on small networks; larger ones round more."
RAW = (".csv", ".json", ".yaml", ".log")
STUB = """# {title}

```{{note}}
No complete run of this notebook yet. {command} makes one on the smoke preset,
{full} one at full size.
```
"""


def stage(target: Path, *, reports: Path = REPORTS) -> list[str]:
    """Write the staged pages anew.

    Args:
        target: The folder book/results/; what else lies in it is removed.
        reports: Where run folders live.

    Returns:
        A warning for every run that is refused, by name, and for every claim that does not hold.
    """
    runs = list(checked_runs(reports))
    claimed = claims.claims_about(reports)
    stated = LandingData.of(runs, claimed)
    wanted: dict[Path, bytes] = {}
    for name in CONFIGS:
        wanted |= _page(name, stated.best.get(name), target)
    texts = pieces.computed(runs) | stated.pieces()
    wanted |= {target / name: text.encode() for name, text in texts.items()}
    wanted |= {target / name: content for name, content in stated.files().items()}
    wanted[target.parent / "data.json"] = texts["data.json"].encode()
    beside = {
        path.relative_to(target).as_posix(): text
        for path, text in wanted.items()
        if path.is_relative_to(target)
    }
    sound = [run for run in runs if isinstance(run, Evidence)]
    wanted |= {target / name: made for name, made in downloads.staged(sound, beside).items()}
    for path, content in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in target.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()  # a page whose run is gone would otherwise stay
    return soundness.problems_of(runs, claimed)


def _page(name: str, run: Evidence | None, target: Path) -> dict[Path, bytes]:
    """The page of a notebook and its raw files, or the page that says what is missing."""
    if run is None:
        return {target / f"{name}.md": missing(name).encode()}
    notebook = nbformat.read(run.folder / f"{name}.ipynb", as_version=4)
    top = [n for n in sorted(run.manifest["artifacts"]) if "/" not in n]
    raw = [*(n for n in top if n.endswith(RAW)), "run.json"]
    files = {target / "data" / name / n: (run.folder / n).read_bytes() for n in raw}
    text: str = nbformat.writes(published(notebook, run, raw))
    return {target / f"{name}.ipynb": text.encode(), **files}


def missing(name: str) -> str:
    """The page of a notebook that has no complete run: what makes one."""
    command, full = "`make report`", "`make report PRESET=gpu`"
    if name in INSTALLING:
        command = f"`python -m psannlm report --only {name}`"
        full = f"`python -m psannlm report --preset gpu --only {name}`"
    return STUB.format(title=pieces.title(name), command=command, full=full)


def published(notebook: Any, run: Evidence, raw: Sequence[str]) -> Any:
    """The executed notebook as a page: first the question, its run, and the answer.

    Parameters are folded into the note on the run; cells tagged `answer` move up to it.
    """
    page = copy.deepcopy(notebook)
    page.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    cells = []
    for cell in page.cells:
        tags = set(cell.metadata.get("tags", []))
        if tags & {"parameters", "injected-parameters"}:
            continue
        cell.metadata = {"tags": sorted(tags)} if tags else {}
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if output.output_type != "stream"]
            cell.outputs = [_slim(o, f"{cell.id}-{i}") for i, o in enumerate(shown)]
        cells.append(cell)
    note = new_markdown_cell(provenance(run, raw))
    note.id = "provenance"
    answer = [cell for cell in cells[1:] if "answer" in cell.metadata.get("tags", [])]
    rest = [cell for cell in cells[1:] if cell not in answer]
    page.cells = [cells[0], note, *answer, *rest]
    return page


def _slim(output: Any, place: str) -> Any:
    """An output without the pixels that stand beside an SVG for other viewers.

    Args:
        output: Of a cell.
        place: Names it on its page.
    """
    data = output.get("data", {})
    if "text/html" in data:
        output.data = {"text/html": drawings.with_unique_ids("".join(data["text/html"]), place)}
    output.pop("execution_count", None)
    if output.output_type == "execute_result":
        output.output_type = "display_data"
    return output


def provenance(run: Evidence, raw: Sequence[str]) -> str:
    """A note that says which run a page shows, and gives its raw files."""
    manifest = run.manifest
    name = manifest["notebook"]
    parameters = json.dumps(manifest["parameters"], indent=1)
    links = ", ".join(f"{{download}}`{n} <data/{name}/{n}>`" for n in raw)
    lines = [
        f"```{{admonition}} Run {manifest['run']}, preset {manifest['preset']}",
        f"Measured on **{manifest['environment']['device']}**, "
        f"from {_time(manifest['started_at'])} to {_time(manifest['ended_at'])} UTC. "
        f"Raw data: {links}.",
        "```",
        "",
        "```{dropdown} Parameters of the run",
        f"Made by `{manifest['command']}`.",
        "",
        "~~~json",
        parameters,
        "~~~",
        "```",
    ]
    if manifest["preset"] == "smoke":
        lines += [
            "",
            "```{warning}",
            OF_CHECKS if manifest["notebook"] == "validation" else OF_NUMBERS,
            "```",
        ]
    if manifest["git"]["dirty"]:
        lines += [
            "",
            "```{warning}",
            "The code that ran was not a commit: files had been changed.",
            "```",
        ]
    return "\n".join(lines)


def _time(iso: str) -> str:
    return iso[:19].replace("T", " ")


def constants() -> dict[str, str]:
    """Numbers of the method, for the prose that explains it."""
    return {
        "confidence": f"{statistics.CONFIDENCE:.0%}",
        "resamples": f"{statistics.N_RESAMPLES:,}",
        "smallest_effect": f"{statistics.SMALLEST_EFFECT:.0%}",
        "fewest_repeats": str(statistics.FEWEST_REPEATS),
        "window": str(timing.WINDOW),
        "max_windows": str(timing.MAX_WINDOWS),
        "steady": f"{timing.STEADY:.0%}",
        "saved_within": f"{memory_tables.SAVED_WITHIN:.0%}",
        "peak_within": f"{memory_tables.PEAK_WITHIN:.0%}",
        "alpha": f"{comparison.LEVEL:.0%}",
        "fewest_seeds": str(comparison.FEWEST_SEEDS),
        "smallest_loss_effect": f"{comparison.SMALLEST_EFFECT:g}",
        "fewest_values": str(shootout_controls.FEWEST_VALUES),
        "repeat_level": f"{expectation.LEVEL:.0%}",
        "unsteady": f"{journal.UNSTEADY_SHARE:.0%}",
        "version": __version__,
    }
