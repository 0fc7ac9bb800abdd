"""What a training leaves comes back from its file as it was."""

import json
import random
from typing import Any

import pytest

from psannlm.evidence.store import types_of
from psannlm.pages.shootout import records
from psannlm.pages.shootout.records import Point, Score, Setting, TrainingRecord, from_json
from psannlm.train.recorder import Document
from tests.synthetic_shootout import final

REASON = 'out of memory: "tried", 3\nlines'
FAILED = vars(final("gelu", 3, status="failed", reason=REASON, flops_per_token=10**13))


def drawn(seed: int) -> TrainingRecord:
    """A finished training with numbers of every size."""
    draw = random.Random(seed)

    def number() -> float:
        return draw.choice((-1, 1)) * draw.random() * 10 ** draw.randint(-300, 300)

    def some(make: Any) -> tuple[Any, ...]:
        return tuple(make() for _ in range(draw.randint(0, 4)))

    numbers = {
        name: number() if kind == float | None else draw.randint(0, 10**12)
        for name, kind in types_of(TrainingRecord).items()
        if kind in (float | None, int | None) and draw.random() < 0.8
    }
    parts = tuple(part for part in ("amplitude", "frequency", "decay") if draw.random() < 0.5)
    learned = "blocks.0.mlp", "decay"
    rows = {
        "curve": some(lambda: Point(draw.randint(1, 9), 9**9, number(), number())),
        "documents": some(lambda: Document(number(), draw.randint(0, 9999))),
        "learned": some(lambda: records.Learned(*learned, *(number() for _ in range(4)))),
        "scores": some(lambda: Score("lambada", "acc", number(), None, 3, 0.25, some(number))),
    }
    known = {"status": "ok", "reason": "", "compiled": draw.choice((None, False, True))}
    setting = Setting(number(), number(), number(), parts)
    return TrainingRecord(**FAILED | known | numbers | rows | {"setting": setting})


def test_records_survive_their_file_to_the_last_digit() -> None:
    for record in (TrainingRecord(**FAILED), *map(drawn, range(100))):
        back = from_json(record.as_json())

        assert back == record
        assert isinstance(hash(back), int)
        assert [point.val_loss for point in back.curve] == [point[3] for point in record.curve]
        assert [score.items for score in back.scores] == [score[6] for score in record.scores]


def test_a_number_that_is_none_is_not_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        final("gelu", 3, float("nan")).as_json()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda values: values | {"luck": 1}, "luck"),
        (lambda values: {name: v for name, v in values.items() if name != "arm"}, "arm"),
        (lambda values: values | {"val_loss": "low"}, "val_loss"),
    ],
    ids=["unknown", "missing", "of another type"],
)
def test_a_field_that_is_none_is_refused(change: Any, named: str) -> None:
    values = json.loads(TrainingRecord(**FAILED).as_json())

    with pytest.raises(ValueError, match=named):
        from_json(json.dumps(change(values)))
