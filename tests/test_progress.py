"""The bar shows what a training tells, from where it goes on to its last step."""

import io
import re

from psannlm.train.progress import ProgressBar
from psannlm.train.recorder import Progress


def progress(step: int, n_steps: int = 4, mfu: float | None = 0.375) -> Progress:
    return Progress(step, n_steps, 2.34567, tokens_per_s=12345.6, mfu=mfu, seconds_left=1.0)


def drawn(*told: Progress) -> list[str]:
    """Each state of the bar."""
    screen = io.StringIO()
    bar = ProgressBar(screen)
    for one in told:
        bar(one)
    return [line for line in re.split(r"[\r\n]", screen.getvalue()) if line.strip()]


def test_the_bar_shows_loss_speed_and_share_of_the_machine_if_it_is_known() -> None:
    last = drawn(*(progress(step) for step in (1, 2, 3, 4)))[-1]

    assert "loss 2.346, 12,346 tokens/s, MFU 38%" in last
    assert "4/4" in last
    assert last.startswith("100%")
    assert "MFU" not in drawn(progress(4, mfu=None))[-1]


def test_a_training_that_goes_on_starts_where_it_was() -> None:
    first, *_, last = drawn(*(progress(step, n_steps=100) for step in range(90, 101)))

    assert " 89/100 " in first
    assert " 100/100 " in last


def test_every_step_is_counted_and_a_bar_closed_after_the_last_can_be_drawn_again() -> None:
    bar = ProgressBar(io.StringIO())

    for _ in range(2):
        for step in (1, 10, 20):
            bar(progress(step, n_steps=30))
        assert bar.bar is not None
        assert bar.bar.n == 20
        bar(progress(30, n_steps=30))
        assert bar.bar is None
