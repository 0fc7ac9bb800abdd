"""The first screen of README.md: what the committed evidence says, as a table and a figure."""

import re
from collections.abc import Sequence

from psannlm import REPORTS, ROOT
from psannlm.config.schema import ConfigError
from psannlm.evidence.page import run_info
from psannlm.evidence.runs import Evidence, Refused
from psannlm.files import write_atomically
from psannlm.pages.registry import pages
from psannlm.publish.landing import measured_on
from psannlm.publish.run_facts import best_runs, headlines_of, machine
from psannlm.run.check import checked_runs

README, FIGURE = ROOT / "README.md", ROOT / "book" / "findings.png"
BEGIN, END = "<!-- findings: `python -m psannlm readme` -->\n", "<!-- end of findings -->"
BLOCK = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)


def refresh() -> None:
    """Write table and figure anew from the committed evidence.

    Raises:
        ConfigError: README.md has no place for them.
    """
    runs = list(checked_runs(REPORTS))
    text = README.read_text(encoding="utf-8")
    if not BLOCK.search(text):
        raise ConfigError(f"README.md must have the lines {BEGIN.strip()!r} and {END!r}")
    write_atomically(FIGURE, figure(runs))
    write_atomically(README, BLOCK.sub(lambda _: f"{BEGIN}{findings(runs)}{END}", text))


def findings(runs: Sequence[Evidence | Refused]) -> str:
    """A row a page: its question, and the answer of its best run; then machine and dates."""
    found = {name: headlines_of(run) for name, run in best_runs(runs).items()}
    lines = ["| question | found |", "|---|---|"]
    for page in pages().values():
        if numbers := found.get(page.name):
            lines.append(f"| {page.question} | {page.summary(numbers)} |")
    shown = [numbers[0].run for numbers in found.values() if numbers]
    where = measured_on(shown, sorted({machine(run) for run in shown}))
    caption = "Speed of every base, from the committed run"
    return "\n".join([*lines, "", where, "", f"![{caption}](book/{FIGURE.name})", ""])


def figure(runs: Sequence[Evidence | Refused]) -> bytes:
    """Pixels of the figure that stands for the report, drawn from its run's records."""
    best = best_runs(runs)
    page = next(page for page in pages().values() if page.readme_figure and page.name in best)
    info = run_info(page, best[page.name])
    drawn = page.figures(page.tabulate(info.records, info), info)
    return drawn[page.readme_figure].png
