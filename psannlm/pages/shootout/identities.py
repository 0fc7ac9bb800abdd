"""What must hold between the files of a shootout and the trainings that they were computed from."""

from collections.abc import Iterator, Sequence

from psannlm.evidence.runs import Evidence
from psannlm.evidence.verify import differences
from psannlm.pages.shootout.arms import arms_of
from psannlm.pages.shootout.bounds import TOLERANCE, impossible, unequal
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.files import (
    CELLS,
    FIRST,
    GATES,
    cell_file,
    config_of,
    files,
    trainings_of,
)
from psannlm.pages.shootout.gates import FEWEST_SEEDS, NOISY_BOUND, TRAINED_BOUND, Gate, read_gates
from psannlm.pages.shootout.plan import Cell, after_tuning, choose, distinct, tunings
from psannlm.pages.shootout.records import TrainingRecord
from psannlm.pages.shootout.tables import Shootout, shootout_of

METRICS = "runs/"
"""Folder of the compared trainings."""

REQUIRED = (
    "summary.json", "summary.csv", "runs.csv", "tuning.csv", "ablation.csv", "scales.csv",
    "curves.csv", "matched.csv", "learned.csv", "scores.csv", "documents.csv", GATES,
    "leaderboard.md", "README.md",
)  # fmt: skip
"""Files of every shootout; what later code makes beside them, an earlier run need not have."""

FIXED = ("arms", "runs", "settings", "base", "arm", "seed", *FIRST)
"""Columns and fields by which others read the files: never left out, never renamed."""


def problems(run: Evidence) -> Iterator[str]:
    """What a run states that its trainings do not bear out, or that no training could reach.

    Every file that follows from trainings and gates is made once more and compared, intervals too.
    Leaks and distances of untrained networks are taken from gates.csv: there are no weights to
    measure them again.
    """
    try:
        config = config_of(run.manifest)
        records = trainings_of(run)
        gates = read_gates(run.text(GATES))
        for found in (
            _cell_problems(run, records, config),
            unequal(records),
            _gate_problems(gates, records, config),
            _file_problems(run, shootout_of(records, gates, config)),
        ):
            yield from found
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        yield f"cannot be checked: {type(error).__name__}: {error}"


def expected_cells(config: ShootoutConfig, records: Sequence[TrainingRecord]) -> dict[str, Cell]:
    """The trainings that a complete shootout holds, by their key."""
    chosen = choose(config, records)
    return distinct([*tunings(config), *after_tuning(config, chosen)], config)


def _cell_problems(
    run: Evidence, records: Sequence[TrainingRecord], config: ShootoutConfig
) -> Iterator[str]:
    """Trainings that are missing, under another name, too many, or impossible."""
    names = [name for name in sorted(run.manifest["artifacts"]) if name.startswith(CELLS)]
    cells = expected_cells(config, records)
    for name, record in zip(names, records, strict=True):
        if name != cell_file(record):
            yield f"{name}: key is {record.key!r}, which is not the file's name"
        elif record.key not in cells:
            yield f"{name}: key {record.key!r} is that of no training of this shootout"
        else:
            for problem in impossible(record, cells[record.key], config):
                yield f"{name}: {problem}"
    for key in cells.keys() - {record.key for record in records}:
        cell = cells[key]
        yield f"{CELLS}{key}.json: is missing, {cell.arm.name} with seed {cell.seed}"


def _gate_problems(
    gates: Sequence[Gate], records: Sequence[TrainingRecord], config: ShootoutConfig
) -> Iterator[str]:
    names = [arm.name for arm in arms_of(config)]
    if [gate.arm for gate in gates] != names:
        yield f"{GATES}: its arms are not {', '.join(names)}, each once"
        return
    for i, gate in enumerate(gates):
        where = f"{GATES}: {gate.arm}"
        yield from (f"{where}: {found}" for found in _leak_problems(gate, records))
        if gate.nearest not in ("", *names) or gate.nearest == gate.arm:
            yield f"{where}: nearest must be another arm, got {gate.nearest!r}"
        if not gate.distance >= 0:
            yield f"{where}: distance must be at least 0, got {gate.distance!r}"
        firsts = [other.arm for other in gates[:i] if not other.same_as]
        if gate.same_as and gate.same_as not in firsts:
            yield f"{where}: same_as must be an arm before it, got {gate.same_as!r}"
    first = {gate.arm: gate.same_as or gate.arm for gate in gates}
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            if _end_alike(one, other, records) and first[one] != first[other]:
                yield f"{GATES}: {other} ends as {one} does with every seed, and is not its same"


def _leak_problems(gate: Gate, records: Sequence[TrainingRecord]) -> Iterator[str]:
    """A leak that is refused or passed against its bound, or hides that of a training."""
    if gate.bound not in (NOISY_BOUND, TRAINED_BOUND):
        yield f"bound must be {NOISY_BOUND!r} or {TRAINED_BOUND!r}, got {gate.bound!r}"
    is_leaking = not gate.leak <= gate.bound
    if is_leaking != bool(gate.refused):
        yield f"leak is {gate.leak!r} with bound {gate.bound!r}, refused says {gate.refused!r}"
    leaks = [r.leak for r in records if r.arm == gate.arm and r.final and r.leak is not None]
    if gate.bound == TRAINED_BOUND and gate.leak not in leaks:
        yield f"leak is {gate.leak!r}, which is that of no compared training"
    worst = max(leaks, default=0.0)
    if gate.leak / gate.bound < worst / TRAINED_BOUND * (1 - TOLERANCE):
        yield f"leak is {gate.leak!r}, a training's is nearer to its bound with {worst!r}"


def _end_alike(one: str, other: str, records: Sequence[TrainingRecord]) -> bool:
    """Whether two arms have the same losses to the last bit, with every seed that both have."""
    mine, theirs = (
        {r.seed: r.val_loss for r in records if r.arm == name and r.final and r.status == "ok"}
        for name in (one, other)
    )
    shared = mine.keys() & theirs.keys()
    return len(shared) >= FEWEST_SEEDS and all(mine[seed] == theirs[seed] for seed in shared)


def _file_problems(run: Evidence, shootout: Shootout) -> Iterator[str]:
    """Files that are not what the trainings and the gates give."""
    there = run.manifest["artifacts"]
    expected = files(shootout, run.manifest)
    for name, text in expected.items():
        if name in there:
            yield from differences(name, run.text(name), text, fixed=FIXED)
        elif name in REQUIRED or name.startswith(METRICS):
            yield f"{name}: is missing"
    for name in there:
        if name.startswith(METRICS) and name not in expected:
            yield f"{name}: no such training was compared"
