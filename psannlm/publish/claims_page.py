"""The page of claims: each sentence, whether it holds, and the rows that it stands on."""

from collections.abc import Sequence

from psannlm.publish.claims import CheckedClaim
from psannlm.publish.phrases import badge, date, link, machine

MOST_LINKS = 4
"""Rows that are linked one by one; of more, the first and the last."""

HEAD = """# Claims

What this book claims, and on which rows each claim stands. A claim is about the newest complete run
of its page, preset and device; every row that it selects must satisfy its condition, or the build
of this book fails and names the row. Its numbers are filled in from these rows.
"""


def claims_page(claims: Sequence[CheckedClaim]) -> str:
    """The page, as Markdown.

    Args:
        claims: Held against the evidence.
    """
    if not claims:
        return f"{HEAD}\nNothing is claimed of the runs that are shown here.\n"
    return "\n".join([HEAD, *(_entry(held) for held in claims)])


def _entry(held: CheckedClaim) -> str:
    claim = held.claim
    verdict = badge("does not hold" if held.problems else "holds")
    plan = f" <small>{', '.join(claim.plan)}</small>" if claim.plan else ""
    sentence = held.sentence or f"({claim.claim})"
    lines = [f"(claim-{claim.claim})=", f"- {sentence} {verdict}{plan}", ""]
    lines += [f"  `{problem}`\n" for problem in held.problems]
    if held.rows:
        row = held.rows[0]
        lines.append(
            f"  <small>`{claim.condition}`; {_rows(held)}; {machine(row)}, {date(row)}.</small>"
        )
    return "\n".join([*lines, ""])


def _rows(held: CheckedClaim) -> str:
    """Links to the rows."""
    rows = held.rows
    if len(rows) <= MOST_LINKS:
        return ", ".join(link(row, f"{row.file}, row {row.number}") for row in rows)
    ends = " to ".join(link(row, f"{row.file}, row {row.number}") for row in (rows[0], rows[-1]))
    return f"{len(rows)} rows, {ends}"
