"""The trainings of a shootout by what they are for, and which arms may be ranked after them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from psannlm.pages.shootout.arms import arms_of
from psannlm.pages.shootout.comparison import FEWEST_SEEDS
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.gates import Gate
from psannlm.pages.shootout.plan import Cell, Chosen, choose, finals, key_of, tunings
from psannlm.pages.shootout.records import TrainingRecord


@dataclass(frozen=True)
class Trainings:
    """The records of a shootout, sorted."""

    config: ShootoutConfig
    by_key: Mapping[str, TrainingRecord]
    chosen: Chosen
    compared: Mapping[str, list[TrainingRecord]]
    """Of every arm, in the order of arms: its final trainings by seed, failed ones too."""

    unfit: Mapping[str, str]
    """Arms that are not compared, each with the reason: the gates', or that training is missing."""

    @classmethod
    def of(
        cls, records: Iterable[TrainingRecord], gates: Sequence[Gate], config: ShootoutConfig
    ) -> "Trainings":
        """Sort the records; those of other shootouts are left out.

        Args:
            records: Of all trainings so far.
            gates: An arm without one is not ranked.
            config: Of the shootout.
        """
        by_key = {record.key: record for record in records}
        chosen = choose(config, by_key.values())
        compared: dict[str, list[TrainingRecord]] = {arm.name: [] for arm in arms_of(config)}
        for cell in finals(config, chosen):
            if (record := by_key.get(key_of(cell, config))) is not None:
                compared[cell.arm.name].append(record)
        why = {gate.arm: gate.refused for gate in gates}
        missing = _missing(tunings(config), by_key, config)
        reasons = {
            name: why[name]
            if why.get(name)
            else _unfinished(found, config, missing.get(name, 0), is_gated=name in why)
            for name, found in compared.items()
        }
        return cls(config, by_key, chosen, compared, {k: v for k, v in reasons.items() if v})

    @property
    def fit(self) -> dict[str, list[TrainingRecord]]:
        """The final trainings of the arms that are compared."""
        return {name: found for name, found in self.compared.items() if name not in self.unfit}

    @property
    def unplaced(self) -> dict[str, str]:
        """Arms that get no place, each with the reason.

        Those that are not compared, and those of which so many seeds failed that nothing could be
        separated from them: they would share the first place for having failed.
        """
        needed = min(FEWEST_SEEDS, len(self.config.seeds))
        ended = {name: len(by_seed(found)) for name, found in self.fit.items()}
        few = {
            name: f"{n} of {len(self.config.seeds)} seeds came to their end, a place needs {needed}"
            for name, n in ended.items()
            if n < needed
        }
        return {**self.unfit, **few}

    def of_cell(self, cell: Cell) -> TrainingRecord | None:
        """The record of a training, if it is there."""
        return self.by_key.get(key_of(cell, self.config))


def good(records: Iterable[TrainingRecord]) -> list[TrainingRecord]:
    """Those that came to their end."""
    return [record for record in records if record.status == "ok"]


def by_seed(records: Iterable[TrainingRecord]) -> dict[int, float]:
    """Validation losses of the trainings that came to their end."""
    return {r.seed: r.val_loss for r in good(records) if r.val_loss is not None}


def _missing(
    cells: Iterable[Cell], by_key: Mapping[str, TrainingRecord], config: ShootoutConfig
) -> dict[str, int]:
    """How many of the cells of each arm are not there yet."""
    found: dict[str, int] = {}
    for cell in cells:
        if key_of(cell, config) not in by_key:
            found[cell.arm.name] = found.get(cell.arm.name, 0) + 1
    return found


def _unfinished(
    found: Sequence[TrainingRecord], config: ShootoutConfig, untuned: int, *, is_gated: bool
) -> str:
    """Why an arm cannot be ranked by these trainings; empty if it can."""
    if untuned:
        return f"{untuned} of its tunings are not there yet"
    if not found:
        return "no setting to compare it at: every tuning failed, or its trainings are not there"
    if len(found) < len(config.seeds):
        return f"{len(config.seeds) - len(found)} of its {len(config.seeds)} seeds are not there"
    if not by_seed(found):
        return "every compared training failed"
    return "" if is_gated else "it was not examined by the gates"
