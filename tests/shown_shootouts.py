"""Tables of shootouts made up once for the tests of what their page shows, and changes of them."""

from dataclasses import replace
from functools import cache
from typing import Any

import pandas as pd

from psannlm.pages.shootout.records import DocumentLoss
from psannlm.pages.shootout.tables import tabulate
from tests.synthetic_shootout import gates, records, shootout_config

ARMS = ("respsann", "gelu", "gelu_scaled")
CONFIG = shootout_config(base=ARMS, scales=(1.0, 2.25), evaluations=4, match="width")
RECORDS = records(CONFIG)
Shown = dict[str, pd.DataFrame]


@cache
def shown() -> Shown:
    """Three arms with three seeds each, an ablation, two scales."""
    return dict(tabulate([*RECORDS, *gates(CONFIG)], CONFIG))


@cache
def all_failed() -> Shown:
    """The same arms, but no training came to its end."""
    failed = records(CONFIG, fails=lambda cell: True)
    return dict(tabulate([*failed, *gates(CONFIG)], CONFIG))


def with_summary(base: str, **changes: Any) -> Shown:
    """The same shootout, but for cells of an arm's row in its summary."""
    summary = shown()["summary.csv"].astype(object)
    for name, value in changes.items():
        summary.loc[summary["base"] == base, name] = value
    return {**shown(), "summary.csv": summary}


def shifted(nats: dict[str, float]) -> Shown:
    """The same shootout, but for losses of arms that are so many nats per token higher."""
    found = [
        replace(
            record,
            val_loss=record.val_loss + more,
            documents=tuple(
                DocumentLoss(d.nats + more * d.n_tokens, d.n_tokens) for d in record.documents
            ),
        )
        for record in RECORDS
        for more in [nats.get(record.arm, 0.0)]
    ]
    return dict(tabulate([*found, *gates(CONFIG)], CONFIG))


def only(*arms: str) -> Shown:
    """The same shootout as if it had no other arms, but for what was computed from them."""
    return {
        name: table[table["base"].isin(arms)] if "base" in table else table
        for name, table in shown().items()
    }
