"""One zip of all published data: files, README with columns and units, license and checksums."""

import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from psannlm import ROOT
from psannlm.evidence.rows import TABLES
from psannlm.evidence.runs import MANIFEST, Evidence
from psannlm.publish.citation import citation
from psannlm.publish.columns import Column, dictionary, n_rows, names_of

ZIP = "psannlm-report-data.zip"
DATA, HISTORY = "data.json", "history"
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


@dataclass(frozen=True)
class Group:
    """Files that hold the same kind of thing: one, or all that a pattern names."""

    pattern: str
    files: Mapping[str, bytes]
    """By path in the zip."""

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
        return dictionary().holds(self.first)

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
    if path == DATA:
        return DATA
    of_a_page = parts[0] == "data" and parts[1] in TABLES
    return f"{HISTORY}/{parts[-1]}" if path.endswith(".csv") and not of_a_page else ""


def groups(files: Mapping[str, bytes]) -> list[Group]:
    """The files by what they hold, in the order of their paths; nested ones by their pattern."""
    known = dictionary()
    found: dict[str, dict[str, bytes]] = {}
    for path in sorted(files):
        name = known.pattern(path) if path.count("/") > 1 else path
        found.setdefault(name, {})[path] = files[path]
    made = []
    for pattern, mine in found.items():
        names = (name for path, text in mine.items() for name in names_of(path, text.decode()))
        columns = known.columns(next(iter(mine)), list(dict.fromkeys(names)))
        made.append(Group(pattern, mine, columns))
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
        *table(("page", "run", "preset", "device", "commit"), runs),
        "## Files and columns",
        "",
    ]
    for group in found:
        lines += [f"### `{group.name}`", "", group.holds, ""]
        if group.columns:
            rows = ((f"`{column.name}`", column.unit, column.what) for column in group.columns)
            lines += table(("name", "unit", "is"), rows)
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


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table, with an empty one behind."""
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"
    yield ""
