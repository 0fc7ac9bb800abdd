"""What no shootout could have measured, and trainings and gates that contradict each other."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import combinations, pairwise
from typing import Any

from psannlm.bench.steps import stated_peak
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape
from psannlm.pages.shootout import plan
from psannlm.pages.shootout import records as stored
from psannlm.pages.shootout.arms import arms_of, is_scaled
from psannlm.pages.shootout.gates import NOISY_BOUND, TRAINED_BOUND, end_alike
from psannlm.pages.shootout.records import Gate, ShootoutConfig, ShootoutRecord, TrainingRecord
from psannlm.train.recorder import UNSTEADY_SHARE

TOLERANCE = 1e-9  # relative: the same sums in another order differ by rounding at most
LARGEST_LOSS = 100.0  # nats per token: a network that has diverged predicts less badly than that
LOSS_RANGE = f"must lie between 0 and {LARGEST_LOSS:g} nats"
PARAMETER_BYTES = 4  # the trained weights are float32, whatever precision products are in

NEEDED = (  # fields of every training that came to its end
    "n_steps", "train_tokens", "train_loss", "train_seconds", "train_tokens_per_s", "val_loss",
    "val_top1", "val_tokens", "val_bytes", "leak",
)  # fmt: skip
TEST = ("test_loss", "test_top1", "test_tokens", "test_bytes")  # of those that are compared alone
POSITIVE = (
    "val_tokens", "val_bytes", "test_tokens", "test_bytes", "n_steps", "train_seconds",
    "train_tokens_per_s", "overhead_seconds",
)  # fmt: skip

RANGES: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (("train_loss", "val_loss", "test_loss"), LOSS_RANGE, lambda loss: 0 < loss < LARGEST_LOSS),
    (("val_top1", "test_top1"), "must lie between 0 and 1", lambda share: 0 <= share <= 1),
    (POSITIVE, "must be positive", lambda value: 0 < value < math.inf),
    (("leak",), "must be at least 0", lambda leak: leak >= 0),
)
"""What fields must be, where they are known."""


def problems(records: Sequence[ShootoutRecord], config: ShootoutConfig) -> Iterator[str]:
    """What a complete shootout states that its request does not ask for, or that cannot be.

    Leaks and distances of untrained networks are taken as they are: there are no weights to
    measure them again.
    """
    trainings, gates = stored.split(records)
    later = plan.after_tuning(config, plan.choose(config, trainings))
    cells = plan.distinct([*plan.tunings(config), *later], config)
    for record in trainings:
        cell = cells.pop(record.key, None)
        unknown = f"key {record.key!r} is that of no training of this shootout"
        found = [unknown] if cell is None else impossible(record, cell, config)
        yield from (f"{stored.PREFIX}{record.key}.json: {problem}" for problem in found)
    for key, cell in cells.items():
        yield f"{stored.PREFIX}{key}.json: is missing, {cell.arm.name} with seed {cell.seed}"
    yield from unequal(trainings)
    for problem in _gate_problems(gates, trainings, config):
        yield f"{stored.GATES.file}: {problem}"


def impossible(record: TrainingRecord, cell: plan.Cell, config: ShootoutConfig) -> Iterator[str]:
    """What a training states that cannot be, or that is not what its cell was to be."""
    yield from _not_its_cell(record, cell, config)
    if record.status != "ok":
        if not record.reason:
            yield "it failed, and no reason is given"
        if record.val_loss is not None or record.test_loss is not None:
            yield "it failed, and states a loss"
        return
    needed = (*NEEDED, *(TEST if record.final else ()))
    if missing := [name for name in needed if getattr(record, name) is None]:
        yield f"{', '.join(missing)} must be known of a training that came to its end"
        return
    for part in (_bounds, _course, _documents, _sides):
        yield from part(record, config)
    if bool(record.learned) != is_scaled(cell.arm, config):
        yield "learned must hold the parameters of the nonlinearity, if it has any"


def unequal(records: Iterable[TrainingRecord]) -> Iterator[str]:
    """Budgets and texts that differ between trainings which should have them in common."""
    ended = [record for record in records if record.status == "ok"]
    for name in ("n_steps", "val_tokens", "val_bytes", "test_tokens", "test_bytes", "documents"):
        known = [(record.key, getattr(record, name)) for record in ended if getattr(record, name)]
        if name == "documents":
            known = [(key, tuple(one.n_tokens for one in found)) for key, found in known]
        for key, value in known[1:]:
            first, right = known[0]
            if value != right:
                mine, other = (
                    f"{len(one)} with {sum(one)} together" if name == "documents" else repr(one)
                    for one in (value, right)
                )
                rule = f"{name} must be the same in all trainings"
                yield f"{stored.PREFIX}{key}.json: {rule}, got {mine} and {other} of {first}"


def differs(name: str, stated: Any, expected: Any, source: str) -> Iterator[str]:
    """The message that `stated` is not what `source` gives, unless it is."""
    if isinstance(expected, float) and isinstance(stated, int | float):
        same = math.isclose(stated, expected, rel_tol=TOLERANCE, abs_tol=1e-12)
    else:
        same = stated == expected
    if not same:
        yield f"{name} is {stated!r}, {source} gives {expected!r}"


def _not_its_cell(record: TrainingRecord, cell: plan.Cell, config: ShootoutConfig) -> Iterator[str]:
    network = plan.training_of(cell, config).network
    cost = cost_of(network, Shape(1, config.context_length))
    asked = {"setting": cell.setting, "seed": cell.seed, "final": cell.final}
    asked |= {"arm": cell.arm.name, "base": cell.arm.base}
    built = {"d_mlp": network.d_mlp, "n_parameters": cost.n_parameters}
    built |= {"flops_per_token": 3 * cost.model_flops // config.context_length}
    for source, expected in (("its key", asked), ("the network", built)):
        for name, value in expected.items():
            yield from differs(name, getattr(record, name), value, source)
    stated = [name for name in (*TEST, "scores") if getattr(record, name) not in (None, ())]
    if stated and not record.final:
        names = ", ".join(stated)
        yield f"{names}: only compared trainings may see the test split and be asked"


def _bounds(record: TrainingRecord, config: ShootoutConfig) -> Iterator[str]:
    for names, rule, holds in RANGES:
        for name in names:
            if (value := getattr(record, name)) is not None and not holds(value):
                yield f"{name} {rule}, got {value!r}"
    held = PARAMETER_BYTES * record.n_parameters
    for name in ("peak_allocated_bytes", "peak_rss_bytes"):
        peak = getattr(record, name)
        if peak is not None and peak <= held:
            yield f"{name} is {peak}, which cannot hold the {held} bytes of its parameters"
    speed, n_steps = record.train_tokens_per_s or math.inf, record.n_steps or 0
    peak_rate, rate = stated_peak(record.device, config.precision), speed * record.flops_per_token
    if peak_rate is not None and rate > peak_rate:
        yield f"train_tokens_per_s is {rate:.3g} FLOP/s, {record.device} can do {peak_rate:.3g}"
    # A half of the steady steps takes at least their median each.
    steady = n_steps - int(UNSTEADY_SHARE * n_steps)
    least = (steady + 1) // 2 * config.batch_tokens / speed
    if (record.train_seconds or 0.0) < least * (1 - TOLERANCE):
        needed = f"train_tokens_per_s needs {least!r} at least"
        yield f"train_seconds is {record.train_seconds!r}, {needed}"


def _course(record: TrainingRecord, config: ShootoutConfig) -> Iterator[str]:
    """Steps, tokens and the curve, which ends where the training does."""
    tokens = (record.n_steps or 0) * config.batch_tokens
    yield from differs("train_tokens", record.train_tokens, tokens, "n_steps * batch_tokens")
    if not record.curve:
        yield "its curve has no evaluation"
        return
    for i, point in enumerate(record.curve):
        expected = point.step * config.batch_tokens
        yield from differs(f"curve[{i}]: tokens", point.tokens, expected, "its step")
        if not 0 < point.val_loss < LARGEST_LOSS:
            yield f"curve[{i}]: val_loss {LOSS_RANGE}"
    for what in ("step", "seconds"):
        values = [0, *(getattr(point, what) for point in record.curve)]
        if not all(one < other for one, other in pairwise(values)):
            yield f"curve: {what} must rise from above zero"
    last = record.curve[-1]
    for what, name in (("step", "n_steps"), ("val_loss", "val_loss"), ("seconds", "train_seconds")):
        expected = getattr(record, name)
        yield from differs(f"curve: the last {what}", getattr(last, what), expected, name)


def _documents(record: TrainingRecord, _: ShootoutConfig) -> Iterator[str]:
    if not record.documents:
        if record.final:
            yield "documents must be known of a training that is compared"
        return
    n_tokens = sum(document.n_tokens for document in record.documents)
    yield from differs("val_tokens", record.val_tokens, n_tokens, "the sum of documents")
    if any(document.nats < 0 or document.n_tokens < 0 for document in record.documents):
        yield "documents must have nats and tokens of at least 0"
    elif n_tokens:
        loss = math.fsum(document.nats for document in record.documents) / n_tokens
        yield from differs("val_loss", record.val_loss, loss, "the mean of documents")


def _sides(record: TrainingRecord, config: ShootoutConfig) -> Iterator[str]:
    """Learned parameters, and results of lm-eval."""
    for row in record.learned:
        values = (row.before, row.after, row.low, row.high)
        if not all(map(math.isfinite, values)) or row.low > row.high:
            yield f"learned: {row.layer}, {row.part} must be finite, with low at most high"
    for score in record.scores:
        where = f"scores: {score.task}, {score.metric}"
        if not 0 < score.n_items <= config.lm_eval_limit:
            yield f"{where}: n_items must lie between 1 and lm_eval_limit, got {score.n_items}"
        if score.stderr is not None and not score.stderr >= 0:
            yield f"{where}: stderr must be at least 0, got {score.stderr!r}"
        if score.items:
            yield from differs(f"{where}: n_items", score.n_items, len(score.items), "items")
            mean = math.fsum(score.items) / len(score.items)
            yield from differs(f"{where}: value", score.value, mean, "the mean of items")


def _gate_problems(
    gates: Sequence[Gate], records: Sequence[TrainingRecord], config: ShootoutConfig
) -> Iterator[str]:
    names = [arm.name for arm in arms_of(config)]
    if [gate.arm for gate in gates] != names:
        yield f"its arms are not {', '.join(names)}, each once"
        return
    for i, gate in enumerate(gates):
        yield from (f"{gate.arm}: {found}" for found in _leak_problems(gate, records))
        if gate.nearest not in ("", *names) or gate.nearest == gate.arm:
            yield f"{gate.arm}: nearest must be another arm, got {gate.nearest!r}"
        if not gate.distance >= 0:
            yield f"{gate.arm}: distance must be at least 0, got {gate.distance!r}"
        firsts = [other.arm for other in gates[:i] if not other.same_as]
        if gate.same_as and gate.same_as not in firsts:
            yield f"{gate.arm}: same_as must be an arm before it, got {gate.same_as!r}"
    for one, other in combinations(gates, 2):
        is_one = (one.same_as or one.arm) == (other.same_as or other.arm)
        if not is_one and end_alike(one.arm, other.arm, records):
            yield f"{other.arm} ends as {one.arm} does with every seed, and is not its same"


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
