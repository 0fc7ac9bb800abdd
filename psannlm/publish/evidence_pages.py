"""What the landing page shows of the evidence, with the pages of claims and raw rows behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psannlm.evidence.rows import Row
from psannlm.evidence.runs import Evidence, Refused, best_run
from psannlm.pages.registry import CONFIGS
from psannlm.publish import claims, headline_data
from psannlm.publish.cards import cards
from psannlm.publish.claims import CheckedClaim
from psannlm.publish.claims_page import claims_page
from psannlm.publish.headlines import Headline, headlines
from psannlm.publish.landing import answers
from psannlm.publish.raw_rows import files_beside, rows_page
from psannlm.publish.run_facts import complete_runs, machine


@dataclass(frozen=True)
class LandingData:
    """Everything that is stated of the evidence, number by number."""

    runs: Sequence[Evidence | Refused]
    best: dict[str, Evidence]
    found: list[Headline]
    claims: list[CheckedClaim]

    @classmethod
    def of(cls, runs: Sequence[Evidence | Refused], path: Path | None) -> "LandingData":
        """What is stated of these runs.

        Args:
            runs: All runs, each checked.
            path: File of the claims about them, if there is one.
        """
        sound = [run for run in runs if isinstance(run, Evidence)]
        chosen = {name: best_run(name, sound) for name in CONFIGS}
        best = {name: run for name, run in chosen.items() if run is not None}
        return cls(runs, best, headlines(best), claims.held(path, runs) if path else [])

    @property
    def others(self) -> list[list[Headline]]:
        """Of each other whole run with the page, preset and device of a best one, newest first."""
        found = [
            headlines({name: run})
            for name, best in self.best.items()
            for run in reversed(complete_runs(self.runs, name))
            if run is not best and _kind(run) == _kind(best)
        ]
        return [of_run for of_run in found if of_run]

    @property
    def rows(self) -> list[Row]:
        """That it was read from, some of them more than once."""
        return [*(h.row for h in self.found), *(row for held in self.claims for row in held.rows)]

    def pieces(self) -> dict[str, str]:
        """Pages and parts of pages, by the name of their file in book/results/."""
        return {
            "answers.md": refused(self.runs) + answers(self.found, self.others),
            "cards.md": cards(self.found),
            "claims.md": claims_page(self.claims),
            "rows.md": rows_page(self.rows, self.best),
            "data.json": headline_data.document(self.found, self.claims),
        }

    def files(self) -> dict[str, bytes]:
        """Files that lie beside the page of raw rows, by their place in book/results/."""
        return files_beside(self.rows, self.best)


def _kind(run: Evidence) -> tuple[str, str, bool]:
    return machine(run), run.manifest["preset"], bool(run.manifest["parameters"].get("only"))


def refused(runs: Sequence[Evidence | Refused]) -> str:
    """A warning that names every refused run and the reason; nothing where there is none."""
    reasons = [run.reason for run in runs if isinstance(run, Refused)]
    if not reasons:
        return ""
    said = "\n".join(f"- `{reason}`" for reason in reasons)
    return f"```{{warning}}\nEvidence that is refused, and used nowhere:\n\n{said}\n```\n\n"
