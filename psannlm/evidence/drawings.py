"""SVG beside SVG on one page: each with names of its own, and no digit that no screen shows."""

import re

DRAWING = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
NAME = re.compile(r'\sid="([^"]*)"')
USE = re.compile(r'(url\(#|href="#)([^)"]+)')
PLACE = re.compile(r'\s(?:d|x|y|x1|x2|y1|y2|width|height|transform|points)="[^"]*"')
DIGITS = re.compile(r"(\.\d\d)\d+")
METADATA = re.compile(r"<metadata>.*?</metadata>", re.DOTALL)
FONTS = re.compile(r"font-family: [^;\"]*\binherit(?:; )?")  # a list with inherit in it is void
GAP = re.compile(r">\s+<")


def with_unique_ids(html: str, page: str) -> str:
    """The HTML with every drawing slim, and its names told apart from those of all others.

    Args:
        html: May hold any number of drawings, or none.
        page: Distinguishes this HTML from other pieces of the same page.
    """
    count = 0

    def own(drawing: re.Match[str]) -> str:
        nonlocal count
        count += 1
        return slim(drawing[0], f"{page}-{count}")

    return DRAWING.sub(own, html)


def slim(drawing: str, prefix: str) -> str:
    """One drawing without names that nothing refers to, gaps and digits below a hundredth point.

    Args:
        drawing: SVG text.
        prefix: Begins the names that are left.
    """
    used = {name for _, name in USE.findall(drawing)}
    drawing = NAME.sub(
        lambda found: f' id="{prefix}-{found[1]}"' if found[1] in used else "", drawing
    )
    drawing = USE.sub(lambda found: f"{found[1]}{prefix}-{found[2]}", drawing)
    drawing = GAP.sub("><", FONTS.sub("", METADATA.sub("", drawing)))
    return PLACE.sub(_rounded, drawing)


def _rounded(place: re.Match[str]) -> str:
    return " " + " ".join(DIGITS.sub(r"\1", place[0]).split())
