"""Downloads: every published file with its columns and their units, one zip, how to cite it."""

import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
import yaml

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.evidence import text as views
from psannlm.evidence.runs import MANIFEST, Evidence
from psannlm.evidence.table import DEVICE, REASON, STARTED_AT, Column, Table
from psannlm.pages.registry import pages
from psannlm.publish import regressions
from psannlm.publish.history import table_of_page
from psannlm.publish.landing import DATA
from psannlm.publish.run_facts import RUNS, best_runs

PAGE = "downloads.md"
ZIP = "psannlm-report-data.zip"
HISTORY = "history"
README, SUMS, LICENSE = "README.md", "SHA256SUMS", "LICENSE"
LEFT_OUT = (".svg", ".png", ".safetensors", ".pt", ".bin")
"""Pictures, which the page shows, and weights, which are no evidence."""

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Time of every file in the zip, so that equal contents are equal bytes."""

CONVENTIONS = """\
- Numbers carry every digit that was computed. What is unknown is empty in CSV and null in JSON.
- A MiB is 2**20 bytes. FLOP counts matrix products only. Times of day are UTC.
- A loss is in nats per token. The ends of an interval are named `_low` and `_high`.
- `run.json` of each page names the machine, the code, the command, and the sha256 of every file.
  Pictures are left out: they follow from the data.
"""

ENVIRONMENT = (
    DEVICE,
    Column("device_type", "cpu or cuda."),
    Column("cpu", "Name, cores, instructions, and memory in MiB of the processor's machine."),
    Column("gpu", "Name, memory, driver and limits of the GPU; null without one."),
    Column("software", "Operating system, Python, CUDA, compiler, and versions of packages."),
    Column(
        "settings", "Threads, precision of float32 products, environment variables that matter."
    ),
)
MANIFEST_COLUMNS = (
    Column("schema", "Version of this format."),
    Column("run", "Run folder, named by its start in UTC."),
    Column("notebook", "Notebook that made the run."),
    Column("preset", "Set of parameter files, smoke, cpu or gpu."),
    Column("command", "Command that made the run."),
    Column("git", "Commit of the code, and whether files had been changed."),
    Column("parameters", "Every parameter, defaults too."),
    Column("environment", "The machine and its software, as in system.json."),
    Column("conditions", "Load, memory and clocks of the machine at start and end."),
    Column("seeds", "Seeds of the run."),
    Column("corpus", "Path and sha256 of the text, bytes of its splits; null without one."),
    Column("tokenizer", "Kind, size and sha256 of the tokenizer; null without one."),
    Column("status", "running, complete, failed or interrupted."),
    REASON,
    STARTED_AT,
    Column("resumed_at", "When an interrupted run went on, in UTC."),
    Column("ended_at", "When it ended, in UTC."),
    Column("artifacts", "sha256 of every file of the run, by its path."),
    Column("sha256", "Hash of the rest of this manifest."),
)
OF_EVERY_RUN = (
    Table(
        MANIFEST,
        "Manifest: command, code, machine, parameters, status, sha256 of every file.",
        MANIFEST_COLUMNS,
    ),
    Table("system.json", "Machine and software of the run.", ENVIRONMENT),
    Table("config_used.yaml", "Resolved parameters of the run.", ()),
    Table("README.md", "The result in short.", ()),
    Table("*.ipynb", "The executed notebook.", ()),
)
"""Files that every run has."""

SOURCE = ROOT / "CITATION.cff"
SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "&%$#_{}"})


@dataclass(frozen=True)
class Citation:
    """What a citation needs to name."""

    title: str
    authors: tuple[str, ...]
    version: str
    date: str
    """Of the version, as 2026-01-31."""

    license: str

    @property
    def bibtex(self) -> str:
        """An entry for a bibliography."""
        year, month, _ = self.date.split("-")
        authors = " and ".join(f"{{{name.translate(SPECIAL)}}}" for name in self.authors)
        fields = {
            "author": authors,
            "title": f"{{{self.title.translate(SPECIAL)}}}",
            "year": year,
            "month": str(int(month)),
            "version": self.version,
            "note": f"Software and data, {self.license} license",
        }
        lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@software{{psannlm_report_{year},\n{lines}\n}}\n"


@dataclass(frozen=True)
class Group:
    """Files that hold the same kind of thing: one, or all that a pattern names."""

    pattern: str
    files: Mapping[str, bytes]
    """By path in the zip."""

    table: Table | None
    """What is declared of them."""

    columns: Sequence[Column]

    @property
    def first(self) -> str:
        """Path of the first file."""
        return next(iter(self.files))

    @property
    def name(self) -> str:
        """For people: the path, or the pattern and how many files it names."""
        return self.first if len(self.files) == 1 else f"{self.pattern}, {len(self.files)} files"

    @property
    def holds(self) -> str:
        """What one of the files holds, in a sentence."""
        return self.table.text if self.table else views.UNKNOWN

    @property
    def n_bytes(self) -> int:
        """Of all files."""
        return sum(len(content) for content in self.files.values())

    @property
    def n_rows(self) -> int | None:
        """Rows of a table, or of a list; None where there are no rows, or several files."""
        if len(self.files) > 1:
            return None
        return n_rows(self.first, self.files[self.first].decode())


def staged(runs: Sequence[Evidence], beside: Mapping[str, bytes]) -> dict[str, bytes]:
    """The page and the zip, by path below results/.

    Args:
        runs: Sound ones; the best of each page gives its data.
        beside: Everything else that is staged, by path below results/.
    """
    best = best_runs(runs)
    files = data_files(best, beside)
    archive = zipped(files, best)
    return {ZIP: archive, PAGE: downloads_page(best, files, beside, len(archive)).encode()}


def downloads_page(
    best: Mapping[str, Evidence],
    files: Mapping[str, bytes],
    beside: Mapping[str, bytes],
    zip_bytes: int,
) -> str:
    """The page as Markdown.

    Args:
        best: Of each page, the run whose data it offers.
        files: Everything in the zip, by path in it.
        beside: What is staged, by path below results/; only that can be linked.
        zip_bytes: Size of the zip.
    """
    found = groups(files)
    lines = [
        "# Downloads",
        "",
        f"**All data in one file:** {{download}}`{ZIP}` ({size(zip_bytes)}, {len(files)} files of "
        "data). With it come a README of all columns and units, the license, and checksums.",
        "",
        CONVENTIONS,
    ]
    if not best:
        lines += ["No complete run yet: `make report` makes the first.", ""]
    sections = {page.name: page.title for page in pages().values()}
    sections |= {HISTORY: "History", "": "Headline numbers"}
    for folder, title in sections.items():
        if mine := [group for group in found if _folder(group.first) == folder]:
            lines += [f"## {title}", "", *_about(best.get(folder)), *_files(mine, beside)]
            lines += _dictionary(mine, title)
    lines += ["## How to cite", "", "```bibtex", citation().bibtex.rstrip(), "```", ""]
    return "\n".join(lines)


def data_files(best: Mapping[str, Evidence], beside: Mapping[str, bytes]) -> dict[str, bytes]:
    """Every file of data by its path in the zip, sorted.

    Args:
        best: Of each page, the run whose artifacts are taken, all but pictures and weights.
        beside: What else the book stages, by path below results/: the tables of all runs over time
            are taken, and `data.json` if it is there.
    """
    files = {
        f"{page}/{artifact}": (run.folder / artifact).read_bytes()
        for page, run in best.items()
        for artifact in (*run.manifest["artifacts"], MANIFEST)
        if not artifact.endswith(LEFT_OUT)
    }
    files |= {place: beside[path] for path in beside if (place := _place(path))}
    return dict(sorted(files.items()))


def _place(path: str) -> str:
    """Where in the zip a staged file lies that belongs to no page; empty if it is left out."""
    parts = PurePosixPath(path).parts
    if path == DATA.file:
        return path
    of_a_page = parts[0] == "data" and parts[1] in pages()
    return f"{HISTORY}/{parts[-1]}" if path.endswith(".csv") and not of_a_page else ""


def described(path: str) -> Table | None:
    """What is declared of a file, by its path in the zip; None if nothing is."""
    folder, _, name = path.partition("/")
    if not name:
        known: Iterable[Table] = (DATA,)
    elif folder == HISTORY:
        known = (RUNS, regressions.REGRESSIONS, *map(table_of_page, pages()))
    else:
        page = pages()[folder]
        known = (*page.raw, *page.tables, *page.store.tables, *OF_EVERY_RUN)
    return next((table for table in known if fnmatchcase(name or path, table.file)), None)


def groups(files: Mapping[str, bytes]) -> list[Group]:
    """The files by what they hold, in the order of their paths; nested ones by their pattern."""
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(files):
        table = described(path) if path.count("/") > 1 else None
        name = f"{path.partition('/')[0]}/{table.file}" if table else path
        found.setdefault(name, {})[path] = files[path]
    made = []
    for pattern, mine in found.items():
        names = (name for path, text in mine.items() for name in names_of(path, text.decode()))
        table = described(next(iter(mine)))
        known = {column.name: column for column in table.columns} if table else {}
        unknown = (known.get(n, Column(n, views.UNKNOWN)) for n in dict.fromkeys(names))
        made.append(Group(pattern, mine, table, list(unknown)))
    return made


def zipped(files: Mapping[str, bytes], best: Mapping[str, Evidence]) -> bytes:
    """The zip of these files; equal files make equal bytes.

    Args:
        files: By path in the zip.
        best: Of each page, the run that they are from.
    """
    whole = dict(files) | {
        README: readme(best, groups(files)).encode(),
        LICENSE: (ROOT / LICENSE).read_bytes(),
    }
    sums = (f"{hashlib.sha256(whole[path]).hexdigest()}  {path}\n" for path in sorted(whole))
    whole[SUMS] = "".join(sums).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for path in sorted(whole):
            entry = zipfile.ZipInfo(f"{PurePosixPath(ZIP).stem}/{path}", EARLIEST)
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            archive.writestr(entry, whole[path], zipfile.ZIP_DEFLATED, compresslevel=9)
    return out.getvalue()


def readme(best: Mapping[str, Evidence], found: Iterable[Group]) -> str:
    """README.md of the zip: its runs, its files, and every column with its unit."""
    cited = citation()
    runs = ([page, *run_facts(run).values()] for page, run in best.items())
    lines = [
        f"# Data of the {cited.title}, version {cited.version}",
        "",
        f"The files behind every number of the report; `sha256sum -c {SUMS}` checks them.",
        "",
        CONVENTIONS,
        "## Runs",
        "",
        *lines_of(("page", "run", "preset", "device", "commit"), runs),
        "## Files and columns",
        "",
    ]
    for group in found:
        lines += [f"### `{group.name}`", "", group.holds, ""]
        if group.columns:
            rows = ((f"`{column.name}`", column.unit, column.text) for column in group.columns)
            lines += lines_of(("name", "unit", "is"), rows)
    lines += ["## How to cite", "", "```bibtex", cited.bibtex.rstrip(), "```", ""]
    return "\n".join(lines)


def run_facts(run: Evidence) -> dict[str, str]:
    """What tells a run from others: its name, preset, device and code."""
    manifest = run.manifest
    return {
        "run": run.name,
        "preset": manifest["preset"],
        "device": manifest["environment"]["device"],
        "commit": (manifest["git"]["commit"] or "unknown")[:12],
    }


def lines_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table, with an empty one behind."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""


def names_of(file: str, text: str) -> list[str]:
    """Names of the columns of a CSV file, or of the fields of a JSON object or list of objects.

    Args:
        file: Its name; of other files than CSV and JSON nothing is known.
        text: Its content.
    """
    if file.endswith(".csv"):
        return next(csv.reader(io.StringIO(text)), [])
    if not file.endswith(".json"):
        return []
    content = json.loads(text)
    objects = content if isinstance(content, list) else [content]
    return list(dict.fromkeys(name for one in objects if isinstance(one, dict) for name in one))


def n_rows(file: str, text: str) -> int | None:
    """Rows of a CSV file below its head, or entries of a JSON list; None of other files."""
    if file.endswith(".csv"):
        return max(sum(1 for _ in csv.reader(io.StringIO(text))) - 1, 0)
    if file.endswith(".json"):
        content = json.loads(text)
        return len(content) if isinstance(content, list) else None
    return None


def citation(path: Path = SOURCE) -> Citation:
    """The citation that a file in the Citation File Format asks for.

    Raises:
        ConfigError: The file cannot be read, or lacks what a citation needs.
    """
    try:
        content: Mapping[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Citation(
            title=content["title"],
            authors=tuple(_name(author) for author in content["authors"]),
            version=str(content["version"]),
            date=str(content["date-released"]),
            license=content["license"],
        )
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path.name} must have title, authors, version, date-released and license: {error}; "
            "mend it as the Citation File Format 1.2.0 asks"
        ) from None


def _name(author: Mapping[str, str]) -> str:
    """Of an entity, or of a person."""
    return (
        author["name"] if "name" in author else f"{author['family-names']}, {author['given-names']}"
    )


def size(n_bytes: int) -> str:
    """A number of bytes as people say it, in KiB or MiB, on one line."""
    kib = n_bytes / 2**10
    said = f"{kib:.1f} KiB" if kib < 1000 else f"{kib / 2**10:.1f} MiB"
    return said.replace(" ", "\N{NO-BREAK SPACE}")


def _folder(path: str) -> str:
    return path.partition("/")[0] if "/" in path else ""


def _about(run: Evidence | None) -> list[str]:
    if run is None:
        return []
    facts = ", ".join(f"{name} {value}" for name, value in run_facts(run).items())
    return [f"{facts[0].upper()}{facts[1:]}.", ""]


def _files(mine: Sequence[Group], beside: Mapping[str, bytes]) -> list[str]:
    """A row a file, or a row for all of one pattern."""
    rows = [
        (_link(group, beside), size(group.n_bytes), _count(group.n_rows), group.holds)
        for group in mine
    ]
    return list(lines_of(("file", "size", "rows", "holds"), rows))


def _link(group: Group, beside: Mapping[str, bytes]) -> str:
    """The file to download, or its name where only the zip has it to the byte."""
    path = group.first
    name = path.rpartition("/")[2]
    content = group.files[path]
    staged_as = next((p for p in (f"data/{path}", name) if beside.get(p) == content), None)
    if len(group.files) > 1 or staged_as is None:
        return f"`{group.name.removeprefix(_folder(path)).lstrip('/')}`, in the zip"
    return f"{{download}}`{name} <{staged_as}>`"


def _count(rows: int | None) -> str:
    return "" if rows is None else f"{rows:,}"


def _dictionary(mine: Sequence[Group], title: str) -> list[str]:
    """Columns of all files, folded: a sortable table each."""
    tables: list[Any] = []
    for group in mine:
        if group.columns:
            frame = pd.DataFrame([(c.name, c.unit, c.text) for c in group.columns])
            frame.columns = pd.Index(["name", "unit", "is"])
            tables += [views.sortable(frame, f"Columns of {group.name}"), ""]
    return [f"```{{dropdown}} Columns and fields: {title}", *tables, "```", ""]
