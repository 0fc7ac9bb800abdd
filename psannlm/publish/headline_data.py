"""data.json: every headline number and every claim, for programs to read."""

import json
from collections.abc import Sequence
from typing import Any

from psannlm.evidence.rows import Row
from psannlm.publish.claims import CheckedClaim
from psannlm.publish.headline import Headline

SCHEMA = 1


def document(found: Sequence[Headline], claims: Sequence[CheckedClaim]) -> str:
    """Text of data.json; the same evidence gives the same text.

    Args:
        found: The headlines of the best runs.
        claims: Held against the evidence.
    """
    rows = [*(h.row for h in found), *(row for held in claims for row in held.rows)]
    runs = {row.run.name: _run(row) for row in rows}
    content = {
        "schema": SCHEMA,
        "runs": [runs[name] for name in sorted(runs)],
        "headlines": [_headline(headline) for headline in found],
        "claims": [_claim(held) for held in claims],
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _run(row: Row) -> dict[str, Any]:
    manifest = row.run.manifest
    return {
        "run": row.run.name,
        "page": row.page,
        "preset": manifest["preset"],
        "device": manifest["environment"]["device"],
        "measured_at": manifest["started_at"],
        "commit": manifest["git"]["commit"],
        "sha256": manifest["sha256"],
    }


def _headline(headline: Headline) -> dict[str, Any]:
    names = (
        "name", "claim", "about", "quantity", "value", "low", "high", "unit", "target", "verdict",
    )  # fmt: skip
    known = {name: getattr(headline, name) for name in names}
    run = _run(headline.row)
    place = {name: run[name] for name in ("page", "run", "preset", "device", "measured_at")}
    return known | place | _place(headline.row) | {"command": headline.row.command}


def _place(row: Row) -> dict[str, Any]:
    return {
        "file": row.file,
        "row": row.number,
        "sha256": row.run.manifest["artifacts"][row.file],
    }


def _claim(held: CheckedClaim) -> dict[str, Any]:
    return {
        "claim": held.claim.claim,
        "plan": list(held.claim.plan),
        "sentence": held.sentence,
        "condition": held.claim.condition,
        "holds": not held.problems,
        "problems": list(held.problems),
        "rows": [{"run": row.run.name} | _place(row) for row in held.rows],
    }
