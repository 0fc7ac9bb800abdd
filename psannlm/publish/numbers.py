"""The numbers that a run published: each with its base, setting, interval, noise floor and row."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from psannlm.evidence import text as views
from psannlm.evidence.rows import Row, rows_of
from psannlm.evidence.runs import Evidence
from psannlm.pages.memory.worker import DEFAULT
from psannlm.pages.peer import cells as peer_cells
from psannlm.pages.throughput.prose import MODES

Rule = Literal["noise", "single", "counted", "interval", "check", "sum"]
"""How two runs are compared: by intervals beyond the noise floor; by the machine's noise floor, for
single runs without an interval; beyond a fixed share; by intervals alone; by pass or fail; not."""


@dataclass(frozen=True)
class Quantity:
    """What a number is of."""

    name: str
    unit: str
    higher_is_better: bool
    rule: Rule
    pattern: str
    """In which it is shown."""


SPEED = Quantity("speed", "tokens/s", True, "noise", ",.0f")
TRAINING_SPEED = Quantity("training speed", "tokens/s", True, "single", ",.0f")
CHECK = Quantity("check", "", True, "check", ".0f")
PASSED = Quantity("checks passed", "", True, "sum", ".0f")
KEPT = Quantity("kept for backward", "MiB", False, "counted", ",.1f")
STEP = Quantity("time of a step", "s", False, "noise", ".4f")
BITS = Quantity("validation text", "bits per byte", False, "counted", ".3f")
LOSS = Quantity("validation loss", "nats a token", False, "interval", ".4f")
RATIO = Quantity("speed, ours to the published package's", "×", True, "noise", ".3f")
KEPT_RATIO = Quantity("kept for backward, ours to theirs", "×", False, "counted", ".3f")


@dataclass(frozen=True)
class Number:
    """One published number; rows of two runs with equal `key` can be compared."""

    run: Evidence
    quantity: Quantity
    base: str
    setting: str
    """In words: all that tells it from the other numbers of this quantity and base."""

    value: float | None
    """None where it failed, was refused or was skipped; `status` says which."""

    status: str
    row: int | None
    """In the run's published table, from 1; None of a sum over rows."""

    low: float | None = None
    high: float | None = None
    floor: float | None = None
    """The noise floor that its row states."""

    n: int = 1
    """Processes or trainings behind the interval."""

    is_main: bool = True
    """Whether it is one of those that a page is known by."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What it is a number of."""
        return self.quantity.name, self.base, self.setting

    @property
    def shown(self) -> str:
        """As people read it."""
        if self.value is None or self.quantity.rule == "check":
            return self.status
        said = views.interval(self.value, self.low, self.high, self.quantity.pattern)
        return f"{said} {self.quantity.unit}".strip()


def numbers_of(run: Evidence) -> list[Number]:
    """Every number of a complete run that a history follows, in the order of its table."""
    return list(OF_PAGE[run.manifest["notebook"]](run))


def _validation(run: Evidence) -> Iterator[Number]:
    passed: dict[str, int] = {}
    total: dict[str, int] = {}
    for row in rows_of(run):
        base, status = str(row.values["base"] or ""), str(row.values["status"])
        value = None if status == "skipped" else float(status == "passed")
        check = str(row.values["check"])
        yield Number(run, CHECK, base, check, value, status, row.number, is_main=False)
        passed[base] = passed.get(base, 0) + (status == "passed")
        total[base] = total.get(base, 0) + 1
    for base, n in passed.items():
        yield Number(run, PASSED, base, f"of {total[base]} checks", float(n), "ok", None)


def _throughput(run: Evidence) -> Iterator[Number]:
    for row in rows_of(run):
        known = row.values
        again = known["label"] != known["base"]
        setting = f"{MODES[known['mode']]}, {_tokens(known)}, {known['precision']}"
        setting += ", measured again" if again else ""
        yield _number(row, SPEED, setting, "tokens_per_s", is_main=not again)


def _memory(run: Evidence) -> Iterator[Number]:
    asked = run.manifest["parameters"]
    for row in rows_of(run):
        known = row.values
        own = known["context_length"] == asked["context_length"]
        setting = f"{_tokens(known)}, {known['context_length']:,} a sequence, {known['amp']}, "
        setting += "checkpointed" if known["grad_checkpoint"] else "not checkpointed"
        setting += "" if known["variant"] == DEFAULT else f", {known['variant']}"
        first = known["batch_tokens"] == asked["batch_tokens"][0]
        is_main = own and first and known["variant"] == DEFAULT
        yield _number(row, KEPT, setting, "saved_mib", is_main=is_main)
        yield _number(row, STEP, setting, "elapsed_s", is_main=False)


def _training(run: Evidence) -> Iterator[Number]:
    for row in rows_of(run):
        yield _number(row, BITS, "", "bits_per_byte")
        yield _number(row, TRAINING_SPEED, "", "tokens_per_s", is_main=False)


def _shootout(run: Evidence) -> Iterator[Number]:
    for row in rows_of(run):
        yield _number(row, LOSS, "", "val_loss")


def _peer(run: Evidence) -> Iterator[Number]:
    for row in rows_of(run):
        known = row.values
        if known["side"] != peer_cells.OURS:
            continue
        work = MODES.get(known["work"], known["work"])
        setting = f"{work}, {known['setting']}, {_tokens(known)}, {known['precision']}"
        quantity = KEPT_RATIO if known["work"] == "saved" else RATIO
        yield _number(row, quantity, setting, "ratio")


OF_PAGE: Mapping[str, Callable[[Evidence], Iterator[Number]]] = {
    "validation": _validation,
    "throughput": _throughput,
    "memory": _memory,
    "tiny_corpus": _training,
    "shootout": _shootout,
    "peer": _peer,
}
"""Of each page: the numbers of one of its runs."""


def _number(
    row: Row, quantity: Quantity, setting: str, column: str, *, is_main: bool = True
) -> Number:
    known = row.values
    status = "refused" if known.get("refused") else str(known.get("status") or "ok")
    value = known[column] if status == "ok" else None
    return Number(
        run=row.run,
        quantity=quantity,
        base=str(known["base"]),
        setting=setting,
        value=value,
        status=status if status != "ok" or value is not None else "unknown",
        row=row.number,
        low=known.get(f"{column}_low"),
        high=known.get(f"{column}_high"),
        floor=known.get("noise_floor"),
        n=int(known.get("n_ok") or known.get("n_seeds") or 1),
        is_main=is_main,
    )


def _tokens(known: Mapping[str, Any]) -> str:
    return f"{known['batch_tokens']:,} tokens a step"
