"""What a build of the book does beside its pages, without loading torch.

Before: the book's copy of the evidence is made anew, only if the evidence, the code or the
parameters have changed since, or if a staged file is no longer as it was written. Meanwhile: terms
lead to the glossary. After: MathJax is put in, and icons that no page uses are left out. The theme
ships each three times, as a script that draws it, as a font and as a rule of the style sheet; font
and rules are enough.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from filelock import FileLock
from fontTools import subset
from sphinx.addnodes import pending_xref

from psannlm import REPORTS, ROOT
from psannlm.files import InUseError, lock, sha256_of

STAMP = ".staged.json"
CONTENTS = "results/_toc.yml"  # the table of contents with all measured pages, below the book

SCRIPT = "scripts/fontawesome.js"
SHEET = "styles/pydata-sphinx-theme.css"
FONT = "vendor/fontawesome/webfonts/fa-solid-900.ttf"
WITHOUT = "// The font draws the icons; see styles/pydata-sphinx-theme.css.\n"

NAME = re.compile(r"\bfa-[a-z0-9-]+")
RULE = re.compile(r'((?:\.fa-[a-z0-9-]+:before,?)+)\{content:"\\[0-9a-f]+"\}')
# A sign of the font in a style sheet, by its number or as it is.
ESCAPED, PLAIN = re.compile(r'"\\(f[0-9a-f]{3})"'), re.compile("[\uf000-\uf8ff]")
PACKED = re.compile(r'url\([^)]*/fa-solid-900\.woff2\) format\("woff2"\),')

# Prose; tables, headings and captions stay as they are.
WHERE = (nodes.paragraph, nodes.admonition, nodes.note, nodes.warning)
NOT_IN = (
    nodes.reference, nodes.literal, nodes.literal_block, nodes.math, nodes.raw, nodes.title,
    nodes.table, nodes.caption, nodes.target, pending_xref,
)  # fmt: skip


class Staged(NamedTuple):
    """What is staged, and what a build needs to know of it."""

    inputs: str  # hash of everything that the pages were made from
    files: dict[str, str]  # hash of every staged file, by its path below the book
    warnings: list[str]  # of refused runs, by name; a build repeats them
    constants: dict[str, str]  # numbers of the method, for the prose that explains it


def wait_for_others(source: Path, say: Callable[[str], None]) -> FileLock | None:
    """Lock the book `source` once no other build writes there; None where none can write."""
    if not os.access(source, os.W_OK):
        return None
    try:
        return lock(source)
    except InUseError as other:
        say(f"waiting: {other}")
        return lock(source, patience=-1)


def prepare(source: Path) -> Staged:
    """Bring the folder results/ of the book `source` up to date; quick if nothing is new."""
    stamp, target = source / STAMP, source / "results"
    inputs = fingerprint(_inputs())
    before = _read(stamp)
    if before and before.inputs == inputs and before.files == _hashes(target):
        return before
    from psannlm.publish import build as book

    warnings = book.stage(target)
    staged = Staged(inputs, _hashes(target), warnings, book.constants())
    stamp.write_text(json.dumps(staged._asdict()), encoding="utf-8")
    return staged


def fingerprint(files: Iterable[Path]) -> str:
    """One hash of the paths and contents of files."""
    whole = hashlib.sha256()
    for path in files:
        whole.update(f"{path}\0{sha256_of(path)}".encode())
    return whole.hexdigest()


def copy_mathjax(output: Path) -> bool:
    """Put MathJax beside the pages, from the installed package; False if it is not installed."""
    try:
        package = importlib.metadata.distribution("sphinx-mathjax-offline")
    except importlib.metadata.PackageNotFoundError:
        return False
    source = Path(str(package.locate_file("sphinx-mathjax-offline/static/mathjax/tex-svg.js")))
    target = output / "_static" / source.name
    if not target.exists() or target.stat().st_size != source.stat().st_size:
        shutil.copyfile(source, target)
    return True


def _inputs() -> list[Path]:
    """The evidence, the code, the parameters, the book's own data, and what downloads cite."""
    found = [
        *REPORTS.rglob("*"),
        *(ROOT / "psannlm").rglob("*.py"),
        *(ROOT / "params").rglob("*.yaml"),
        *(ROOT / "book").glob("*.y*ml"),
        ROOT / "CITATION.cff",
        ROOT / "LICENSE",
    ]
    # What a run that is alive is about to rename is gone before it is read.
    return sorted(path for path in found if path.is_file() and not path.name.startswith("."))


def _hashes(folder: Path) -> dict[str, str]:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files}


def _read(stamp: Path) -> Staged | None:
    try:
        return Staged(**json.loads(stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # never staged, or by another version


def lighten(site: Path) -> None:
    """Leave out of a built site what draws icons that it does not show; other themes stay."""
    static = site / "_static"
    script, sheet, font = (static / name for name in (SCRIPT, SHEET, FONT))
    if not (script.is_file() and sheet.is_file() and font.is_file()):
        return
    script.write_text(WITHOUT, encoding="utf-8")
    # Pages ask for icons, and scripts while they are read.
    shown = [*site.rglob("*.html"), *(p for p in site.rglob("*.js") if p.name != "tex-svg.js")]
    names = {name for path in shown for name in NAME.findall(path.read_text(encoding="utf-8"))}

    def kept(rule: re.Match[str]) -> str:
        return rule[0] if names.intersection(NAME.findall(rule[1])) else ""

    rules = RULE.sub(kept, sheet.read_text(encoding="utf-8"))
    sheet.write_text(PACKED.sub("", rules), encoding="utf-8")
    sheets = [path.read_text(encoding="utf-8") for path in sorted(static.rglob("*.css"))]
    signs = {sign for text in sheets for sign in ESCAPED.findall(text)}
    signs |= {f"{ord(sign):x}" for text in sheets for sign in PLAIN.findall(text)}
    part = font.with_suffix(".part")
    options = ["--layout-features=", "--notdef-outline", f"--output-file={part}"]
    subset.main([str(font), f"--unicodes={','.join(signs)}", *options])
    part.replace(font)


def link_terms(page: nodes.document, terms: Collection[str]) -> None:
    """Put a reference to the glossary in place of each term's first mention in the prose of a page.

    A mention may be in the plural or begin a sentence. Of two terms that begin at the same place,
    the longer one is meant. The page is changed in place.
    """
    waiting = {term.lower(): term for term in terms}
    for text in list(_prose(page)):
        if not waiting:
            return
        parts: list[nodes.Node] = []
        rest = str(text)
        while waiting and (found := _pattern(waiting).search(rest)):
            mention = found.group()
            word = mention.lower()
            term = waiting.pop(word if word in waiting else word.removesuffix("s"))
            options = {"refdomain": "std", "reftype": "term", "refexplicit": True, "refwarn": True}
            reference = pending_xref("", reftarget=term, **options)
            reference.append(nodes.inline(mention, mention, classes=["xref", "std", "std-term"]))
            parts += [nodes.Text(rest[: found.start()]), reference]
            rest = rest[found.end() :]
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(rest)])


def _pattern(waiting: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(waiting, key=len, reverse=True)
    words = "|".join(re.escape(term) for term in longest_first)
    return re.compile(rf"(?<![\w/-])(?:{words})s?(?![\w/-])", re.IGNORECASE)


def _prose(page: nodes.document) -> Iterator[nodes.Text]:
    """Texts of paragraphs that stand in nothing that is set apart."""
    for text in page.findall(nodes.Text):
        above = [text.parent]
        while above[-1].parent is not None:
            above.append(above[-1].parent)
        apart = any(isinstance(node, NOT_IN) for node in above)
        if not apart and any(isinstance(node, WHERE) for node in above):
            yield text
