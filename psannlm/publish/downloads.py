"""Downloads: every published file with its columns and their units, one zip, how to cite it."""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pandas as pd
import yaml

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import MANIFEST, Evidence, Refused
from psannlm.evidence.table import DEVICE, REASON, STARTED_AT, Column, Table
from psannlm.evidence.text import UNKNOWN, sortable
from psannlm.pages.registry import pages
from psannlm.publish import history, run_facts
from psannlm.publish.landing import DATA
from psannlm.publish.regressions import REGRESSIONS

PAGE = "downloads.md"
ZIP = "psannlm-report-data.zip"
README, SUMS, LICENSE = "README.md", "SHA256SUMS", "LICENSE"
# Pictures, which the page shows, and weights, which are no evidence.
LEFT_OUT = (".svg", ".png", ".safetensors", ".pt", ".bin")
CONVENTIONS = """\
- Numbers carry every digit that was computed. What is unknown is empty in CSV and null in JSON.
- A MiB is 2**20 bytes. FLOP counts matrix products only. Times of day are UTC.
- A loss is in nats per token. The ends of an interval are named `_low` and `_high`.
- `run.json` of each page names the machine, the code, the command, and the sha256 of every file.
  Pictures are left out: they follow from the data."""

ENVIRONMENT = (
    DEVICE,
    Column("device_type", "cpu or cuda."),
    Column("cpu", "Name, maker, model, instructions, and cores and memory (MiB), usable ones too."),
    Column("gpu", "Name, memory, slice, driver and limits of the GPU; null without one."),
    Column("software", "Operating system, Python, CUDA, compiler, and every installed package."),
    Column(
        "settings", "Threads, precision of float32 products, environment variables that matter."
    ),
)
MANIFEST_COLUMNS = (
    Column("schema", "Version of this format."),
    Column("run", "Run folder, named by its start in UTC."),
    Column("notebook", "Notebook that made the run."),
    Column("preset", "Set of parameter files, smoke, cpu or gpu."),
    Column("command", "Command that makes such a run."),
    Column("git", "Commit of the code, and whether files had been changed."),
    Column("precision", "Precision asked for, FLOP/s of one thread in each, and those emulated."),
    Column("sources_sha256", "Hash of the code that could run: the package's and the notebook's."),
    Column("parameters", "Every parameter, defaults too."),
    Column("environment", "The machine and its software, as in system.json."),
    Column("conditions", "Load and clocks at start and end; what others did in between."),
    Column("seeds", "Seeds of the run."),
    Column("corpus", "Path and sha256 of the text, bytes of its splits; null without one."),
    Column("tokenizer", "Kind, size and sha256 of the tokenizer; null without one."),
    Column("lm_eval", "Folder and sha256 of task definitions of one's own; absent without."),
    Column("status", "running, complete, edited, failed or interrupted."),
    REASON,
    STARTED_AT,
    Column("edited", "How cells that ran differ from the committed notebook, if they do."),
    Column("resumed_at", "When an interrupted run went on, in UTC."),
    Column("parts", "Of a run that went on with other code: what made which of its records."),
    Column("ended_at", "When it ended, in UTC."),
    Column("artifacts", "sha256 of every file of the run, by its path."),
    Column("sha256", "Hash of the rest of this manifest."),
)
ABOUT = "Manifest: command, code, machine, parameters, status, sha256 of every file."
OF_EVERY_RUN = (
    Table(MANIFEST, ABOUT, MANIFEST_COLUMNS),
    Table("system.json", "Machine and software of the run.", ENVIRONMENT),
    Table("config_used.yaml", "Resolved parameters of the run.", ()),
    Table("README.md", "The result in short.", ()),
    Table("*.ipynb", "The executed notebook.", ()),
)

SOURCE = ROOT / "CITATION.cff"
SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "&%$#_{}"})


class Citation(NamedTuple):
    """What a citation needs to name; the date is that of the version, as 2026-01-31."""

    title: str
    authors: tuple[str, ...]
    version: str
    date: str
    license: str

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography."""
        year, month, _ = self.date.split("-")
        fields = {
            "author": " and ".join(f"{{{name.translate(SPECIAL)}}}" for name in self.authors),
            "title": f"{{{self.title.translate(SPECIAL)}}}",
            "year": year,
            "month": str(int(month)),
            "version": self.version,
            "note": f"Software and data, {self.license} license",
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@software{{psannlm_report_{year},\n{lines}\n}}\n"

    @property
    def section(self) -> str:
        """The end of a page that says how to cite."""
        return f"## How to cite\n\n```bibtex\n{self.bibtex}```\n"


def citation(path: Path = SOURCE) -> Citation:
    """The citation of a file in the Citation File Format; ConfigError if it lacks something."""
    try:
        content: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        authors = tuple(
            one.get("name") or f"{one['family-names']}, {one['given-names']}"
            for one in content["authors"]
        )
        version, date = str(content["version"]), str(content["date-released"])
        return Citation(content["title"], authors, version, date, content["license"])
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path.name} must have title, authors, version, date-released and license: {error}; "
            "mend it as the Citation File Format 1.2.0 asks"
        ) from None


class Group(NamedTuple):
    """Files that hold the same kind of thing: one, or all that a pattern names."""

    name: str  # the path, or the pattern and how many files it names
    files: Mapping[str, bytes]  # by path in the zip
    holds: str  # what one of them holds, in a sentence
    columns: Sequence[Column]  # or fields, with a dash where nothing is declared
    n_rows: int | None  # of a table, or of a list; None where there are none, or several files

    @property
    def folder(self) -> str:
        """The folder in the zip; empty for a file beside the folders."""
        return self.name.rpartition("/")[0].partition("/")[0]


def data_files(best: Mapping[str, Evidence], beside: Mapping[str, bytes]) -> dict[str, bytes]:
    """Every file of data by its path in the zip, sorted.

    Of the best run of each page all but pictures and weights, and of what else the book stages the
    tables of all runs over time and `data.json`.
    """
    files = {
        f"{page}/{artifact}": (run.folder / artifact).read_bytes()
        for page, run in best.items()
        for artifact in (*run.manifest["artifacts"], MANIFEST)
        if not artifact.endswith(LEFT_OUT)
    }
    files |= {
        path.removeprefix("data/"): content
        for path, content in beside.items()
        if path == DATA.file or path.startswith(f"{history.FOLDER}/")
    }
    return dict(sorted(files.items()))


def described(path: str) -> Table | None:
    """What is declared of a file, by its path in the zip; None if nothing is."""
    folder, _, name = path.partition("/")
    if not name:
        known: Iterable[Table] = (DATA,)
    elif folder in pages():
        page = pages()[folder]
        known = (*page.raw, *page.tables, *page.store.tables, *OF_EVERY_RUN)
    else:
        known = (run_facts.RUNS, REGRESSIONS, *map(history.table_of_page, pages()))
    return next((table for table in known if fnmatchcase(name or path, table.file)), None)


def groups(files: Mapping[str, bytes]) -> list[Group]:
    """The files by what they hold, in the order of their paths; nested ones by their pattern."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(files):
        table = described(path) if path.count("/") > 1 else None
        name = f"{path.partition('/')[0]}/{table.file}" if table else path
        found.setdefault(name, {})[path] = files[path]
    return [_group(pattern, mine) for pattern, mine in found.items()]


def _group(pattern: str, files: Mapping[str, bytes]) -> Group:
    table = described(next(iter(files))) or Table(pattern, UNKNOWN, ())
    read = [names_and_rows(path, content.decode()) for path, content in files.items()]
    names = dict.fromkeys(name for found, _ in read for name in found)
    known = {column.name: column for column in table.columns}
    columns = [known.get(name, Column(name, UNKNOWN)) for name in names]
    if len(files) == 1:
        return Group(pattern, files, table.text, columns, read[0][1])
    return Group(f"{pattern}, {len(files)} files", files, table.text, columns, None)


def names_and_rows(file: str, text: str) -> tuple[list[str], int | None]:
    """Columns and rows of a CSV file or a JSON list of objects, or the fields of a JSON object."""
    if file.endswith(".csv"):
        names, *rows = list(csv.reader(io.StringIO(text))) or [[]]
        return names, len(rows)
    if not file.endswith(".json"):
        return [], None
    content = json.loads(text)
    objects = content if isinstance(content, list) else [content]
    fields = dict.fromkeys(name for one in objects if isinstance(one, dict) for name in one)
    return list(fields), len(content) if isinstance(content, list) else None


def zipped(files: Mapping[str, bytes], best: Mapping[str, Evidence]) -> bytes:
    """The zip of these files of the best runs; equal files make equal bytes."""
    whole = dict(files) | {
        README: readme(best, groups(files)).encode(),
        LICENSE: (ROOT / LICENSE).read_bytes(),
    }
    sums = (f"{hashlib.sha256(whole[path]).hexdigest()}  {path}\n" for path in sorted(whole))
    whole[SUMS] = "".join(sums).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(whole):
            # Of one date, so that equal contents are equal bytes.
            entry = zipfile.ZipInfo(f"{PurePosixPath(ZIP).stem}/{path}", (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, whole[path], zipfile.ZIP_DEFLATED, compresslevel=9)
    return out.getvalue()


def readme(best: Mapping[str, Evidence], found: Iterable[Group]) -> str:
    """README.md of the zip: its runs, its files, and every column with its unit."""
    cited = citation()
    runs = ([page, *known_of(run).values()] for page, run in best.items())
    parts = [
        f"# Data of the {cited.title}, version {cited.version}",
        f"The files behind every number of the report; `sha256sum -c {SUMS}` checks them.",
        CONVENTIONS,
        "## Runs",
        _table(("page", "run", "preset", "device", "commit"), runs),
        "## Files and columns",
    ]
    for group in found:
        parts += [f"### `{group.name}`", group.holds]
        if group.columns:
            rows = ((f"`{column.name}`", column.unit, column.text) for column in group.columns)
            parts.append(_table(("name", "unit", "is"), rows))
    return "\n\n".join([*parts, cited.section])


def known_of(run: Evidence) -> dict[str, str]:
    """What tells a run from others: its name, preset, device and code."""
    known = {"run": run.name, "preset": run_facts.preset(run), "device": run_facts.machine(run)}
    return known | {"commit": (run.manifest["git"]["commit"] or "unknown")[:12]}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose cells are Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines)


def staged(runs: Sequence[Evidence | Refused], beside: Mapping[str, bytes]) -> dict[str, bytes]:
    """The page and the zip of the best runs, by path below results/; what is beside is linked."""
    best = run_facts.best_runs(runs)
    files = data_files(best, beside)
    archive, found = zipped(files, best), groups(files)
    parts = [
        "# Downloads",
        f"**All data in one file:** {{download}}`{ZIP}` ({size(len(archive))}, {len(files)} files "
        "of data). With it come a README of all columns and units, the license, and checksums.",
        CONVENTIONS,
    ]
    if not best:
        parts.append("No complete run yet: `make report` makes the first.")
    sections = {page.name: page.title for page in pages().values()}
    for folder, title in (sections | {"history": "History", "": "Headline numbers"}).items():
        if mine := [group for group in found if group.folder == folder]:
            parts.append(f"## {title}")
            if run := best.get(folder):
                facts = ", ".join(f"{name} {value}" for name, value in known_of(run).items())
                parts.append(f"{facts[0].upper()}{facts[1:]}.")
            rows = (_file(group, beside) for group in mine)
            parts.append(_table(("file", "size", "rows", "holds"), rows))
            parts.append(f"```{{dropdown}} Columns and fields: {title}\n{_dictionary(mine)}```")
    return {ZIP: archive, PAGE: "\n\n".join([*parts, citation().section]).encode()}


def _file(group: Group, beside: Mapping[str, bytes]) -> tuple[str, str, str, str]:
    """The row of a file, or of several: to download, or named where the zip alone has it whole."""
    [path, content] = next(iter(group.files.items()))
    name = path.rpartition("/")[2]
    places = [place for place in (f"data/{path}", name) if beside.get(place) == content]
    link = f"`{group.name.removeprefix(group.folder).lstrip('/')}`, in the zip"
    if len(group.files) == 1 and places:
        link = f"{{download}}`{name} <{places[0]}>`"
    n_rows = "" if group.n_rows is None else f"{group.n_rows:,}"
    return link, size(sum(map(len, group.files.values()))), n_rows, group.holds


def _dictionary(mine: Sequence[Group]) -> str:
    """Columns of all files: a sortable table each."""
    tables = ""
    for group in mine:
        if group.columns:
            rows = ({"name": c.name, "unit": c.unit, "is": c.text} for c in group.columns)
            tables += sortable(pd.DataFrame(rows), f"Columns of {group.name}") + "\n\n"
    return tables


def size(n_bytes: int) -> str:
    """A number of bytes as people say it, in KiB or MiB, on one line."""
    kib, space = n_bytes / 2**10, "\N{NO-BREAK SPACE}"
    return f"{kib:.1f}{space}KiB" if kib < 1000 else f"{kib / 2**10:.1f}{space}MiB"
