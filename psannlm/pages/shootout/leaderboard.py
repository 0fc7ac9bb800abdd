"""The leaderboard of a shootout in Markdown, and README.md of its run folder around it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from psannlm.evidence.text import UNKNOWN, duration, interval, number
from psannlm.pages.shootout.comparison import LEVEL
from psannlm.pages.shootout.tables import Shootout

COLUMNS = (
    "place", "base", f"val loss, nats/token ({1 - LEVEL:.0%} interval)", "val ppl", "bits/byte",
    "top-1", "difference to {baseline} (interval)", "verdict", "tokens/s", "peak CUDA, GB",
    "parameters", "seeds",
)  # fmt: skip


def leaderboard(shootout: Shootout, manifest: Mapping[str, Any]) -> str:
    """leaderboard.md: arms by place, refused ones at the end, and what must be known beside."""
    return "\n".join([f"# Shootout, {manifest['run']}", "", *_body(shootout, manifest), ""])


def readme(shootout: Shootout, manifest: Mapping[str, Any]) -> str:
    """README.md of a run folder: what was compared on what, and the leaderboard."""
    parameters, corpus = manifest["parameters"], manifest["corpus"]
    text = parameters["corpus"] if corpus is None else corpus["path"]
    tokens = shootout.summary["train_tokens"].dropna()
    lines = [
        f"# Shootout, {manifest['run']}",
        "",
        f"Preset {manifest['preset']}, on {manifest['environment']['device']}. Every arm is "
        f"trained on {number(tokens.max(), ',.0f')} tokens of {text} with "
        f"{len(parameters['seeds'])} seeds, {parameters['d_model']} wide and "
        f"{parameters['n_layers']} layers deep, after a tuning of "
        f"{len(parameters['learning_rates'])} settings each on the validation split.",
        "",
        *_body(shootout, manifest),
        "",
        f"{len(shootout.records)} trainings, {_seconds(shootout)} of training together. Each is "
        "in `cells/`, the compared ones in `runs/` too; all other files follow from these.",
        "",
        f"Made by `{manifest['command']}`.",
        "",
    ]
    return "\n".join(lines)


def _seconds(shootout: Shootout) -> str:
    return duration(sum(record.train_seconds or 0.0 for record in shootout.records))


def _body(shootout: Shootout, manifest: Mapping[str, Any]) -> Iterator[str]:
    baseline = manifest["parameters"]["baseline"]
    rows = shootout.summary.to_dict("records")
    yield _line(name.format(baseline=baseline) for name in COLUMNS)
    yield _line("---" for _ in COLUMNS)
    for row in rows:
        yield _line(_cells(row))
    yield ""
    yield (
        "A place is one more than the number of arms that are separated as better, all pairs "
        "corrected together. Losses are means over seeds on the validation split; a negative "
        "difference is a lower loss. A verdict needs a difference over seeds and over documents, "
        "corrected for all arms: one may be better than the baseline and share its place."
    )
    for row in rows:
        if row["refused"]:
            yield f"\n{row['base']} has no place: {_plain(row['refused'])}."
        if row["same_as"]:
            yield (
                f"\n{row['base']} is the same network as {row['same_as']}: the two are an A/A "
                "comparison, and share a place."
            )


def _cells(row: Mapping[Any, Any]) -> Iterator[str]:
    yield number(row["place"], "d")
    yield row["base"]
    yield interval(row["val_loss"], row["val_loss_low"], row["val_loss_high"], ".4f")
    yield number(row["val_ppl"], ",.2f")
    yield number(row["val_bits_per_byte"], ".4f")
    yield number(row["val_top1_acc"], ".1%")
    yield interval(row["difference"], row["difference_low"], row["difference_high"], "+.4f")
    yield row["verdict"] or ("refused" if row["refused"] else UNKNOWN)
    yield number(row["train_tokens_per_s"], ",.0f")
    yield number(row["peak_cuda_mem_gb"], ".2f")
    yield number(_known(row["n_parameters"]), ",.0f")
    failed = f" ({row['n_failed']} failed)" if row["n_failed"] else ""
    yield f"{row['n_seeds']}{failed}"


def _known(value: Any) -> Any:
    return None if pd.isna(value) else value


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_plain(cell) for cell in cells)} |"


def _plain(text: str) -> str:
    """The text on one line, and in one cell."""
    return " ".join(text.split()).replace("|", "\\|").removesuffix(".")
