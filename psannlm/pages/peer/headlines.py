"""Headline numbers against the published package: ours as a ratio to it, row by row."""

from collections.abc import Iterator

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import Evidence
from psannlm.pages.peer.cells import OURS
from psannlm.publish.headline import Headline, read

WORK = {
    "forward": "forward",
    "train_step": "training step",
    "generate": "generation",
    "saved": "saved for backward",
}


def headlines(run: Evidence) -> Iterator[Headline]:
    """Of each base, setting, work and precision in which both were measured."""
    peer = run.manifest["parameters"]["peer"]
    for row in rows_of(run, f"side == '{OURS}' and ratio == ratio"):
        values = row.values
        base, setting, work = values["base"], values["setting"], values["work"]
        yield read(
            row,
            "ratio",
            name=f"peer.{base}.{setting}.{work}.{values['precision']}.ratio",
            claim="",
            about=f"{base}, {setting}, {WORK[work]}, {values['precision']}",
            quantity=f"{'bytes' if work == 'saved' else 'speed'} as a ratio to {peer}",
            unit=f"× {peer}",
            verdict=values["verdict"] or "",
        )
