"""The files of a shootout beside its tables: summary.json, metrics.json, leaderboard, README.md."""

import json
from typing import Any

import pandas as pd

from psannlm.evidence.page import RunInfo, Tables
from psannlm.evidence.table import plain_rows
from psannlm.evidence.text import duration, number
from psannlm.pages.shootout.arms import arms_of
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.plan import grid
from psannlm.pages.shootout.results import tuned
from psannlm.pages.shootout.tables import BOARD, FIRST, RUNS, SUMMARY, TUNING


def texts(tables: Tables, run: RunInfo[ShootoutConfig]) -> dict[str, str]:
    """leaderboard.md, summary.json, and metrics.json of each compared training."""
    arms, runs = tables[SUMMARY.file], plain_rows(tables[RUNS.file])
    summary = {"arms": plain_rows(arms), "runs": runs, "settings": _settings(tables, run.config)}
    metrics = {
        f"runs/{row['base']}_seed{row['seed']}/metrics.json": _json(
            {name: row[name] for name in FIRST} | row
        )
        for row in runs
    }
    board = f"# Shootout, {run.name}\n\n{leaderboard(arms, run.config.baseline)}\n"
    return {"leaderboard.md": board, "summary.json": _json(summary), **metrics}


def _settings(tables: Tables, config: ShootoutConfig) -> dict[str, Any]:
    """How arms were tuned and compared, and what the tuning has chosen."""
    return {
        "baseline": config.baseline,
        "match": config.match,
        "tuning_seed": config.tuning_seed,
        "seeds": list(config.seeds),
        "side_seeds": list(config.seeds[: config.side_seeds]),
        "grids": {
            arm.name: [tuned(arm.name, setting, config) for setting in grid(arm, config)]
            for arm in arms_of(config)
        },
        "chosen": {
            row["base"]: {name: row[name] for name in ("learning_rate", "sine_frequency")}
            for row in plain_rows(tables[TUNING.file])
            if row["chosen"]
        },
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def leaderboard(summary: pd.DataFrame, baseline: str) -> str:
    """Arms by place in Markdown, refused ones at the end, and what must be known beside."""
    view = BOARD.view(summary)
    headings = [heading.format(baseline=baseline) for heading in view]
    rows = [headings, ["---"] * len(headings), *view.itertuples(index=False, name=None)]
    lines = [
        *(f"| {' | '.join(map(_plain, row))} |" for row in rows),
        "",
        "A place is one more than the number of arms that are separated as better, all pairs "
        "corrected together. Losses are means over seeds on the validation split; a negative "
        "difference is a lower loss. A verdict needs a difference over seeds and over documents, "
        "corrected for all arms: one may be better than the baseline and share its place.",
    ]
    for row in plain_rows(summary):
        if row["refused"]:
            lines.append(f"\n{row['base']} has no place: {_plain(row['refused'])}.")
        if row["same_as"]:
            lines.append(
                f"\n{row['base']} is the same network as {row['same_as']}: the two are an A/A "
                "comparison, and share a place."
            )
    return "\n".join(lines)


def _plain(text: str) -> str:
    """The text on one line, and in one cell."""
    return " ".join(text.split()).replace("|", "\\|").removesuffix(".")


def readme(tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
    """README.md of a run folder: what was compared on what, and the leaderboard."""
    config, corpus, every = run.config, run.manifest["corpus"], tables["trainings"]
    tokens = tables[SUMMARY.file]["train_tokens"].dropna()
    lines = [
        f"# Shootout, {run.name}",
        f"Preset {config.preset}, on {run.device}. Every arm is trained on "
        f"{number(tokens.max(), ',.0f')} tokens of {corpus['path'] if corpus else config.corpus} "
        f"with {len(config.seeds)} seeds, {config.d_model} wide and {config.n_layers} layers deep, "
        f"after a tuning of {len(config.learning_rates)} settings each on the validation split.",
        leaderboard(tables[SUMMARY.file], config.baseline),
        f"{len(every)} trainings, {duration(every['train_seconds'].astype(float).sum())} of "
        "training together. Each is in `cells/`, the compared ones in `runs/` too; all other files "
        "follow from these.",
        f"Made by `{run.manifest['command']}`.\n",
    ]
    return "\n\n".join(lines)
