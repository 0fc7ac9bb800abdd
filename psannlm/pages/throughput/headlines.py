"""Headline numbers of speed: tokens per second and the ratio to the baseline, a pair a row."""

from collections.abc import Iterator

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import Evidence
from psannlm.pages.throughput.prose import MODES
from psannlm.publish.headline import Headline, read

CLAIM = "BMRK-02"


def headlines(run: Evidence) -> Iterator[Headline]:
    """Of each base, batch, mode and precision; the baseline's second measurement is left out."""
    baseline = run.manifest["parameters"]["baseline"]
    for row in rows_of(run):
        values = row.values
        if values["label"] != values["base"]:
            continue
        base, tokens, mode = values["base"], int(values["batch_tokens"]), values["mode"]
        stem = f"throughput.{base}.{tokens}.{mode}.{values['precision']}"
        about = f"{base}, {tokens:,} tokens a step, {MODES[mode]}, {values['precision']}"
        yield read(
            row,
            "tokens_per_s",
            name=f"{stem}.tokens_per_s",
            claim=CLAIM,
            about=about,
            quantity="speed",
            unit="tokens/s",
            verdict=values["verdict"] or "",
        )
        if base != baseline:
            yield read(
                row,
                "ratio",
                name=f"{stem}.ratio",
                claim=CLAIM,
                about=about,
                quantity=f"speed as a ratio to {baseline}",
                unit=f"× {baseline}",
                verdict=values["verdict"] or "",
            )
