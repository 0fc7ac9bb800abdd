"""The files of a shootout: tables as CSV and JSON, the leaderboard, and the way back."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from psannlm.config.parse import parse
from psannlm.evidence.runs import Evidence
from psannlm.pages.shootout.arms import arms_of, is_scaled
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.curves import document_rows
from psannlm.pages.shootout.gates import gates_csv, read_gates
from psannlm.pages.shootout.leaderboard import leaderboard, readme
from psannlm.pages.shootout.plan import grid
from psannlm.pages.shootout.records import Setting, TrainingRecord, from_json
from psannlm.pages.shootout.results import Trainings
from psannlm.pages.shootout.tables import DOCUMENTS, Shootout, frame, shootout_of
from psannlm.pages.throughput.records import to_csv

CELLS, GATES = "cells/", "gates.csv"
"""Where the trainings lie, a file each, and what the gates found: all else follows from these."""

FIRST = ("val_loss", "val_ppl", "val_top1_acc", "train_tokens_per_s", "peak_cuda_mem_gb")
"""Names that open metrics.json."""

TABLES = ("tuning", "ablation", "scales", "curves", "matched", "learned", "scores")
"""Of a shootout, each a CSV file of its name."""


def cell_file(record: TrainingRecord) -> str:
    """Where a training is kept."""
    return f"{CELLS}{record.key}.json"


def files(shootout: Shootout, manifest: Mapping[str, Any]) -> dict[str, str]:
    """The files of a run that state its result, by name; those of its trainings are there already.

    Args:
        shootout: What is stated.
        manifest: Of the run.

    Raises:
        ConfigError: The manifest's parameters are no configuration.
    """
    config = config_of(manifest)
    trainings = Trainings.of(shootout.records, shootout.gates, config)
    return {
        "summary.json": _json(
            {
                "arms": rows_of(shootout.summary),
                "runs": rows_of(shootout.runs),
                "settings": _settings(config, trainings),
            }
        ),
        "summary.csv": csv_of(shootout.summary),
        "runs.csv": csv_of(shootout.runs),
        **{f"{name}.csv": csv_of(getattr(shootout, name)) for name in TABLES},
        "documents.csv": csv_of(frame(document_rows(trainings), DOCUMENTS)),
        GATES: gates_csv(shootout.gates),
        **dict(_metrics(shootout)),
        "leaderboard.md": leaderboard(shootout, manifest),
        "README.md": readme(shootout, manifest),
    }


def config_of(manifest: Mapping[str, Any]) -> ShootoutConfig:
    """The configuration of a run.

    Raises:
        ConfigError: The manifest's parameters are none.
    """
    return parse(ShootoutConfig, manifest["parameters"], source="parameters")


def read(run: Evidence) -> Shootout:
    """What a complete run states, computed from its trainings and gates.

    Raises:
        ConfigError: The manifest's parameters are no configuration.
        OSError: A file is missing.
        TypeError: A training or a gate lacks a field.
        ValueError: A file cannot be read.
    """
    return shootout_of(trainings_of(run), read_gates(run.text(GATES)), config_of(run.manifest))


def trainings_of(run: Evidence) -> list[TrainingRecord]:
    """The trainings of a complete run, by name of their file.

    Raises:
        OSError: A file is missing.
        TypeError: A training lacks a field.
        ValueError: A file cannot be read.
    """
    names = [name for name in sorted(run.manifest["artifacts"]) if name.startswith(CELLS)]
    return [from_json(run.text(name)) for name in names]


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table, None where a value is unknown."""
    plain = table.astype(object).where(table.notna(), None)
    return [{str(k): v for k, v in row.items()} for row in plain.to_dict("records")]


def csv_of(table: pd.DataFrame) -> str:
    """CSV of a table: what is unknown is empty, floats keep every digit."""
    return to_csv(list(table.columns), (list(row.values()) for row in rows_of(table)))


def _metrics(shootout: Shootout) -> Iterator[tuple[str, str]]:
    """Name and content of metrics.json of each compared training."""
    for row in rows_of(shootout.runs):
        first = {name: row[name] for name in FIRST}
        yield f"runs/{row['base']}_seed{row['seed']}/metrics.json", _json(first | row)


def _settings(config: ShootoutConfig, trainings: Trainings) -> dict[str, Any]:
    """How arms were tuned and compared, and what the tuning has chosen."""
    return {
        "baseline": config.baseline,
        "match": config.match,
        "tuning_seed": config.tuning_seed,
        "seeds": list(config.seeds),
        "side_seeds": list(config.seeds[: config.side_seeds]),
        "grids": {
            arm.name: [_setting(one, scaled=is_scaled(arm, config)) for one in grid(arm, config)]
            for arm in arms_of(config)
        },
        "chosen": {
            arm.name: _setting(trainings.chosen[arm.name], scaled=is_scaled(arm, config))
            for arm in arms_of(config)
            if arm.name in trainings.chosen
        },
    }


def _setting(setting: Setting, *, scaled: bool) -> dict[str, Any]:
    """What a tuning varies; an arm without an initial frequency has none."""
    return {
        "learning_rate": setting.learning_rate,
        "sine_frequency": setting.sine_frequency if scaled else None,
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
