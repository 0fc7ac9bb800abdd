"""Shootouts made up once for the tests of what their page shows, and changes of them."""

from dataclasses import replace
from functools import cache
from typing import Any

from psannlm.pages.shootout.records import DocumentLoss
from psannlm.pages.shootout.tables import Shootout, shootout_of
from tests.synthetic_shootout import gates, records, shootout_config

ARMS = ("respsann", "gelu", "gelu_scaled")
CONFIG = shootout_config(base=ARMS, scales=(1.0, 2.25), evaluations=4, match="width")
ASKED = CONFIG.model_dump(mode="json")


@cache
def shown() -> Shootout:
    """Three arms with three seeds each, an ablation, two scales."""
    return shootout_of(records(CONFIG), gates(CONFIG), CONFIG)


@cache
def all_failed() -> Shootout:
    """The same arms, but no training came to its end."""
    return shootout_of(records(CONFIG, fails=lambda cell: True), gates(CONFIG), CONFIG)


def with_summary(base: str, **changes: Any) -> Shootout:
    """The same shootout, but for cells of an arm's row in its summary."""
    summary = shown().summary.astype(object)
    for name, value in changes.items():
        summary.loc[summary["base"] == base, name] = value
    return replace(shown(), summary=summary)


def shifted(nats: dict[str, float]) -> Shootout:
    """The same shootout, but for losses of arms that are so many nats per token higher."""
    found = [
        replace(
            record,
            val_loss=record.val_loss + more,
            documents=tuple(
                DocumentLoss(d.nats + more * d.n_tokens, d.n_tokens) for d in record.documents
            ),
        )
        for record in shown().records
        for more in [nats.get(record.arm, 0.0)]
    ]
    return shootout_of(found, gates(CONFIG), CONFIG)


def only(*arms: str) -> Shootout:
    """The same shootout as if it had no other arms, but for what was computed from them."""
    tables = {
        name: table[table["base"].isin(arms)]
        for name, table in vars(shown()).items()
        if name not in ("records", "gates")
    }
    return replace(shown(), records=[r for r in shown().records if r.arm in arms], **tables)
