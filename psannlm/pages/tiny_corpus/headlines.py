"""Headline numbers of a training: perplexity against its target, and bits per byte."""

from collections.abc import Iterator

from psannlm.evidence.rows import rows_of
from psannlm.evidence.runs import Evidence
from psannlm.publish.headline import Headline, read

CLAIM = "BMRK-01"


def headlines(run: Evidence) -> Iterator[Headline]:
    """Perplexity and bits per byte on the validation split, and on the test split."""
    [row] = rows_of(run)
    base, wanted = row.values["base"], row.values["target_perplexity"]
    about = f"{base}, {row.values['epochs']:g} epochs of {row.values['corpus_path']}"
    missing = "" if row.values["target_reached"] is None else "not reached"
    yield read(
        row,
        "perplexity",
        name=f"tiny_corpus.{base}.perplexity",
        claim=CLAIM,
        about=about,
        quantity="validation perplexity",
        unit="per token",
        target=f"at most {wanted:g}",
        verdict="reached" if row.values["target_reached"] else missing,
    )
    for column, quantity, unit in (
        ("bits_per_byte", "validation text", "bits per byte"),
        ("test_perplexity", "test perplexity", "per token"),
        ("test_bits_per_byte", "test text", "bits per byte"),
    ):
        yield read(
            row,
            column,
            name=f"tiny_corpus.{base}.{column}",
            claim=CLAIM,
            about=about,
            quantity=quantity,
            unit=unit,
        )
