"""Headline numbers of a shootout: each arm's difference to the baseline, and the gain control."""

from collections.abc import Iterator

from psannlm.evidence.rows import Row, rows_of
from psannlm.evidence.runs import Evidence
from psannlm.pages.shootout import files as shootout_files
from psannlm.pages.shootout import gain_control as shootout_gain
from psannlm.pages.shootout.prose import has_verdict
from psannlm.publish.headline import Headline, read

CLAIM = "BMRK-04"
GAIN = "shootout.respsann.difference_to_gelu_scaled"
"""Name of what is left of the sine where gains are the same."""


def headlines(run: Evidence) -> Iterator[Headline]:
    """Of each arm that was compared, the baseline without a difference."""
    baseline = run.manifest["parameters"]["baseline"]
    rows = {row.values["base"]: row for row in rows_of(run)}
    for arm, row in rows.items():
        verdict = row.values["verdict"] or ""
        if row.values["refused"]:
            verdict = "refused"
        about = f"{arm}, {row.values['n_seeds']} seeds"
        if arm != baseline:
            yield read(
                row,
                "difference",
                name=f"shootout.{arm}.difference",
                claim=CLAIM,
                about=about,
                quantity=f"validation loss less that of {baseline}",
                unit="nats per token",
                verdict=verdict,
            )
        for column, quantity, unit in (
            ("val_loss", "validation loss", "nats per token"),
            ("val_bits_per_byte", "validation text", "bits per byte"),
        ):
            yield read(
                row,
                column,
                name=f"shootout.{arm}.{column}",
                claim=CLAIM,
                about=about,
                quantity=quantity,
                unit=unit,
                verdict=verdict,
            )
    if {shootout_gain.SINE, shootout_gain.SCALED} <= set(rows):
        yield from _gain(run, rows[shootout_gain.SINE])


def _gain(run: Evidence, row: Row) -> Iterator[Headline]:
    """The sine against gelu with the same learned gains, one planned comparison."""
    shootout = shootout_files.read(run)
    found = shootout_gain.contrast(shootout, shootout_gain.SINE, shootout_gain.SCALED)
    if not found.seeds.n:
        return
    yield Headline(
        name=GAIN,
        claim=CLAIM,
        about=f"{shootout_gain.SINE} against {shootout_gain.SCALED}, {found.seeds.n} seeds",
        quantity=f"validation loss less that of {shootout_gain.SCALED}",
        value=found.seeds.mean,
        low=found.seeds.low,
        high=found.seeds.high,
        unit="nats per token",
        target="",
        verdict=found.verdict if has_verdict(run.manifest["parameters"]) else "",
        row=row,
    )
