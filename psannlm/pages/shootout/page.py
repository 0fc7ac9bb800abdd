"""The shootout page: every base and nonlinearity, tuned alike, trained alike and compared."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pandas as pd

from psannlm.evidence.figures import Figure
from psannlm.evidence.page import Page, RerunRequest, RunInfo, Tables, run_info
from psannlm.evidence.runs import Evidence
from psannlm.evidence.table import Column, Number, Row, plain_rows
from psannlm.evidence.text import duration, number
from psannlm.pages.shootout import bounds, figures, prose, results
from psannlm.pages.shootout import measure as measuring
from psannlm.pages.shootout import records as stored
from psannlm.pages.shootout import tables as made
from psannlm.pages.shootout.arms import all_arms, arms_of
from psannlm.pages.shootout.comparison import FEWEST_SEEDS, LEVEL, SMALLEST_EFFECT, by_seed
from psannlm.pages.shootout.plan import grid
from psannlm.pages.shootout.records import ShootoutConfig, ShootoutRecord, TrainingRecord


class ShootoutPage(Page[ShootoutConfig, ShootoutRecord]):
    """Arms by place, with the controls that tell what their differences come from."""

    name = "shootout"
    title = "Shootout"
    question = "Does it learn more than a plain transformer?"
    suffix = "_base_shootout"
    config = ShootoutConfig
    tables = made.PUBLISHED
    raw = made.RAW
    shown = (made.LAYERS, made.TASKS, made.FAILURES)
    store = stored.STORE
    constants: ClassVar[Mapping[str, str]] = {
        "alpha": f"{LEVEL:.0%}",
        "fewest_seeds": str(FEWEST_SEEDS),
        "smallest_loss_effect": f"{SMALLEST_EFFECT:g}",
        "fewest_values": str(results.FEWEST_VALUES),
    }
    usual_repeats = 1
    reducible: ClassVar[Mapping[str, float]] = {
        "evaluations": 2,  # points of a curve
        "side_seeds": FEWEST_SEEDS,
        "seeds": FEWEST_SEEDS,
        "train_megabytes": 0.5,
    }
    expected_seconds = staticmethod(measuring.expected_seconds)
    measure = staticmethod(measuring.measure)
    checks = staticmethod(measuring.checks)
    trainings = staticmethod(measuring.trainings)
    bounds = staticmethod(bounds.problems)
    summary = staticmethod(prose.summary)

    def names(self) -> Sequence[str]:
        return tuple(all_arms())

    def check_config(self, config: ShootoutConfig) -> None:
        arms_of(config)

    def total(self, config: ShootoutConfig) -> int:
        return len(measuring.all_cells(config)) + 1

    def tabulate(self, records: Sequence[ShootoutRecord], run: RunInfo[ShootoutConfig]) -> Tables:
        return made.tabulate(records, run.config)

    def figures(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> Mapping[str, Figure]:
        return figures.all_figures(tables, run.config)

    def answer(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        return prose.answer(tables, run.config)

    def reading(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        return prose.reading(tables, run.config)

    def section(self, name: str, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        return {"gain": prose.gain, "tasks": prose.tasks}[name](tables, run.config)

    def readme(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> str:
        """README.md of a run folder: what was compared on what, and the leaderboard."""
        config, corpus, every = run.config, run.manifest["corpus"], tables["trainings"]
        tokens = tables[made.SUMMARY.file]["train_tokens"].dropna()
        lines = [
            f"# Shootout, {run.name}",
            f"Preset {config.preset}, on {run.device}. Every arm is trained on "
            f"{number(tokens.max(), ',.0f')} tokens of "
            f"{corpus['path'] if corpus else config.corpus} with {len(config.seeds)} seeds, "
            f"{config.d_model} wide and {config.n_layers} layers deep, after a tuning of "
            f"{len(config.learning_rates)} settings each on the validation split.",
            leaderboard(tables[made.SUMMARY.file], config.baseline),
            f"{len(every)} trainings, {duration(every['train_seconds'].astype(float).sum())} of "
            "training together. Each is in `cells/`, the compared ones in `runs/` too; all other "
            "files follow from these.",
            run.origin,
        ]
        return "\n\n".join(lines)

    def files(self, tables: Tables, run: RunInfo[ShootoutConfig]) -> Mapping[str, str]:
        """leaderboard.md, summary.json, and metrics.json of each compared training."""
        arms, runs = tables[made.SUMMARY.file], plain_rows(tables[made.RUNS.file])
        settings = _settings(tables, run.config)
        summary = {"arms": plain_rows(arms), "runs": runs, "settings": settings}
        metrics = {
            f"runs/{row['base']}_seed{row['seed']}/metrics.json": _json(
                {name: row[name] for name in made.FIRST} | row
            )
            for row in runs
        }
        board = f"# Shootout, {run.name}\n\n{leaderboard(arms, run.config.baseline)}\n"
        found = {"leaderboard.md": board, "summary.json": _json(summary), **metrics}
        return {**super().files(tables, run), **found}

    def numbers(self, run: Evidence) -> Iterator[Number]:
        baseline, rows = run.manifest["parameters"]["baseline"], self.rows(run)
        for row in rows:
            for name in ("difference", "val_loss", "val_bits_per_byte"):
                if (name, row.values["base"]) != ("difference", baseline):
                    yield self.number(row, made.SUMMARY[name])
        yield from self._gain(run, {row.values["base"]: row for row in rows})

    def number(self, row: Row, column: Column) -> Number:
        if row.values["refused"]:
            row = replace(row, values={**row.values, "status": "refused"})
        return super().number(row, column)

    def found(self, run: Evidence) -> str:
        return prose.found(dict(row.values) for row in self.rows(run))

    def _gain(self, run: Evidence, rows: Mapping[str, Row]) -> Iterator[Number]:
        """The sine against gelu with the same learned gains, one planned comparison."""
        info = run_info(self, run)
        for found in results.gain_rows(results.Trainings.of(info.records, info.config).compared):
            arm, other = found["base"], found["other"]
            if (arm, other) != (results.SINE, results.SCALED) or not found["n"]:
                continue
            yield replace(
                self.number(rows[arm], made.DIFFERENCE),
                name=prose.GAIN,
                quantity=f"validation loss less that of {other}",
                setting=f"against {other}",
                value=found["difference"],
                status="ok",
                verdict=found["verdict"] if prose.has_verdict(info.config) else "",
                low=found["difference_low"],
                high=found["difference_high"],
                n=found["n"],
                is_main=False,
            )

    def measure_again(
        self, row: Row, request: RerunRequest[ShootoutConfig], records: Sequence[ShootoutRecord]
    ) -> list[ShootoutRecord]:
        return list(measuring.measure_again(row, request, stored.split(records)[0]))

    def replicates(
        self, records: Sequence[ShootoutRecord], row: Row, config: ShootoutConfig
    ) -> Mapping[str, Mapping[int, float]]:
        return {"val_loss": by_seed(_compared(records, row))}

    def failures(self, records: Sequence[ShootoutRecord], row: Row) -> list[str]:
        return [record.reason for record in _compared(records, row) if record.reason]


def _settings(tables: Tables, config: ShootoutConfig) -> dict[str, Any]:
    """How arms were tuned and compared, and what the tuning has chosen."""
    return {
        "baseline": config.baseline,
        "match": config.match,
        "tuning_seed": config.tuning_seed,
        "seeds": list(config.seeds),
        "side_seeds": list(config.seeds[: config.side_seeds]),
        "grids": {
            arm.name: [results.tuned(arm.name, setting, config) for setting in grid(arm, config)]
            for arm in arms_of(config)
        },
        "chosen": {
            row["base"]: {name: row[name] for name in ("learning_rate", "sine_frequency")}
            for row in plain_rows(tables[made.TUNING.file])
            if row["chosen"]
        },
    }


def _json(content: Any) -> str:
    return json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def leaderboard(summary: pd.DataFrame, baseline: str) -> str:
    """Arms by place in Markdown, refused ones at the end, and what must be known beside."""
    view = made.BOARD.view(summary)
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


def _compared(records: Sequence[ShootoutRecord], row: Row) -> list[TrainingRecord]:
    """The compared trainings of the arm of a row."""
    arm = row.values["base"]
    return [record for record in stored.split(records)[0] if record.final and record.arm == arm]


PAGE = ShootoutPage()
