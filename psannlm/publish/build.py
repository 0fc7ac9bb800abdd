"""What the book shows of the evidence: staged into book/results/ when a build begins.

For each notebook the best run's executed notebook and raw files, or a page that says what is
missing; beside them what the written pages include. Files are rewritten only when their content
changes, so that a build renders only what is new.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import yaml
from nbformat.v4 import new_markdown_cell

from psannlm import REPORTS, ROOT, __version__
from psannlm.bench import statistics, timing
from psannlm.bench.provenance import doubt
from psannlm.config.network import Architecture
from psannlm.evidence import parts
from psannlm.evidence.figures import DASHES, Axes, Figure, compose, with_unique_ids
from psannlm.evidence.page import Page
from psannlm.evidence.runs import Evidence
from psannlm.pages.registry import pages
from psannlm.publish import claims, downloads, history, landing, published_page
from psannlm.publish.run_facts import best_runs, machine
from psannlm.rerun import outcome
from psannlm.run.check import checked_runs
from psannlm.train import recorder

TOC = "_toc.yml"
RAW = (".csv", ".json", ".yaml", ".log")
STUB = """# {title}

```{{note}}
No complete run of this notebook yet. `{command}` makes one on the smoke preset,
`{full}` one at full size.
```
"""


def stage(target: Path, *, reports: Path = REPORTS) -> list[str]:
    """Write the staged pages into book/results/ anew; what else lies there is removed.

    Returned are warnings: of every run that is refused, by name, and every claim that fails.
    """
    runs = checked_runs(reports)
    claimed, problems = claims.checked(runs, claims.claims_about(reports))
    best = best_runs(runs)
    texts: dict[str, str | bytes] = {
        TOC: contents(),
        "published.md": published_page.page(runs),
        "sine.md": f"{sine_figure().html}\n",
    }
    for page in pages().values():
        texts |= {**_page(page, best.get(page.name)), **page.pieces()}
    texts |= history.files(runs) | landing.files(runs, claimed)
    made = {n: text.encode() if isinstance(text, str) else text for n, text in texts.items()}
    made |= downloads.staged(runs, made)
    wanted = {target / name: content for name, content in made.items()}
    wanted[target.parent / landing.DATA.file] = made[landing.DATA.file]
    for path, content in wanted.items():
        if not path.exists() or path.read_bytes() != content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    for path in target.rglob("*"):
        if path.is_file() and path not in wanted:
            path.unlink()  # a page whose run is gone would otherwise stay
    return problems


def _page(page: Page[Any, Any], run: Evidence | None) -> dict[str, str | bytes]:
    """The page of a notebook and its raw files, or the page that says what is missing."""
    name = page.name
    if run is None:
        command, full = "make report", "make report PRESET=gpu"
        if page.installs:
            report = "python -m psannlm report"
            command, full = f"{report} --only {name}", f"{report} --preset gpu --only {name}"
        return {f"{name}.md": STUB.format(title=page.title, command=command, full=full)}
    notebook = nbformat.read(run.folder / f"{name}.ipynb", as_version=4)
    top = [n for n in sorted(run.manifest["artifacts"]) if "/" not in n]
    raw = [*(n for n in top if n.endswith(RAW)), "run.json"]
    files = {f"data/{name}/{n}": (run.folder / n).read_bytes() for n in raw}
    return {f"{name}.ipynb": nbformat.writes(published(notebook, run, raw)), **files}


def published(notebook: Any, run: Evidence, raw: Sequence[str]) -> Any:
    """The executed notebook as a page: first the question, its run, and the answer.

    Parameters are folded into the note on the run; cells tagged `answer` move up to it.
    """
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    cells = []
    for cell in notebook.cells:
        tags = set(cell.metadata.get("tags", []))
        if tags & {"parameters", "injected-parameters"}:
            continue
        cell.metadata = {"tags": sorted(tags)} if tags else {}
        if cell.cell_type == "code":
            shown = [output for output in cell.outputs if output.output_type != "stream"]
            cell.outputs = [_slim(o, f"{cell.id}-{i}") for i, o in enumerate(shown)]
        cells.append(cell)
    note = new_markdown_cell(provenance(run, raw), id="provenance")
    rest = sorted(cells[1:], key=lambda cell: "answer" not in cell.metadata.get("tags", []))
    notebook.cells = [cells[0], note, *rest]
    return notebook


def _slim(output: Any, place: str) -> Any:
    """An output of a cell without the pixels beside an SVG; `place` names it on its page."""
    data = output.get("data", {})
    if "text/html" in data:
        output.data = {"text/html": with_unique_ids("".join(data["text/html"]), place)}
    output.pop("execution_count", None)
    if output.output_type == "execute_result":
        output.output_type = "display_data"
    return output


def provenance(run: Evidence, raw: Sequence[str]) -> str:
    """A note that says which run a page shows, and gives its raw files."""
    manifest = run.manifest
    name = manifest["notebook"]
    start, end = (manifest[f"{when}_at"][:19].replace("T", " ") for when in ("started", "ended"))
    links = ", ".join(f"{{download}}`{n} <data/{name}/{n}>`" for n in raw)
    lines = [
        f"```{{admonition}} Run {manifest['run']}, preset {manifest['preset']}",
        f"Measured on **{machine(run)}**, from {start} to {end} UTC. Raw data: {links}.",
        "```",
        "",
        "```{dropdown} Parameters of the run",
        f"To make it again: `{manifest['command']}`.",
        "",
        "~~~json",
        json.dumps(manifest["parameters"], indent=1),
        "~~~",
        "```",
    ]
    warnings = [pages()[name].smoke_note] if manifest["preset"] == "smoke" else []
    warnings += [doubt(manifest["git"]), parts.sentence(manifest)]
    for warning in filter(None, warnings):
        lines += ["", "```{warning}", warning, "```"]
    return "\n".join(lines)


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
        "repeat_level": f"{outcome.LEVEL:.0%}",
        "unsteady": f"{recorder.UNSTEADY_SHARE:.0%}",
        "version": __version__,
    } | {name: said for page in pages().values() for name, said in page.constants.items()}


def contents() -> str:
    """The table of contents of the book, the measured pages before the first staged page."""
    toc = yaml.safe_load((ROOT / "book" / TOC).read_text(encoding="utf-8"))
    parts = (part["chapters"] for part in toc["parts"])
    staged = next(chapters for chapters in parts if "results/" in chapters[0]["file"])
    staged[:0] = [{"file": f"results/{name}"} for name in pages()]
    return str(yaml.safe_dump(toc, sort_keys=False))


def sine_figure() -> Figure:
    """The damped sine for several parameters, beside its derivative."""
    fields = Architecture.model_fields
    start = tuple(fields[f"sine_{p}"].default for p in ("amplitude", "frequency", "decay"))
    z = np.linspace(-12, 12, 801)

    def curves(axes: Axes, *, slope: bool) -> None:
        for i, (a, f, d) in enumerate((start, (1.0, 2.25, 0.01), (1.0, 1.0, 0.3), (1.5, 0.5, 0.1))):
            y = np.sin(f * z)
            if slope:
                y = f * np.cos(f * z) - d * np.sign(z) * np.sin(f * z)
            name = f"A = {a:g}, f = {f:g}, d = {d:g}" + (" (start)" if i == 0 else "")
            axes.plot(z, a * np.exp(-d * np.abs(z)) * y, label=name, linestyle=DASHES[i])
        axes.set_xlabel("pre-activation z")

    return compose(
        "the damped sine and its derivative for four settings",
        {"s(z)": partial(curves, slope=False), "ds/dz": partial(curves, slope=True)},
        "The damped sine s(z) = A exp(-d |z|) sin(f z) and its derivative. Unlike GELU it is "
        "bounded, turns back, and passes gradient of either sign at every z.",
    )
