"""What a built book shows beside its text: icons that its pages use, links to the glossary.

The theme ships every icon three times: as a script that draws them, as a font, and as a rule of the
style sheet each. Font and rules are enough, and of both what no page uses is left out.
"""

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from docutils import nodes
from fontTools import subset
from sphinx.addnodes import pending_xref

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
