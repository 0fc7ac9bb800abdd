"""Numbers are written by their unit, and a verdict is a sign and a word beside its colour."""

import pytest

from psannlm.publish.phrases import badge, date, link, machine, measured
from tests.published import headline, made_up_row

ROW = made_up_row("throughput", {}, 7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "0.500 (0.250 – 0.750) × transformer"),
        ({"value": None}, "—"),
        ({"unit": "MiB", "low": None}, "0.5 MiB"),
        ({"unit": "of all", "low": None}, "50% of all"),
        ({"unit": "", "value": 2.5e-7, "low": None}, "2.50e-07"),
        (
            {"unit": "nats per token", "quantity": "loss less that of gelu"},
            "+0.500 (+0.250 to +0.750) nats per token",
        ),
        ({"unit": "nats per token", "quantity": "loss"}, "0.500 (0.250 – 0.750) nats per token"),
    ],
)
def test_a_number_is_written_with_interval_and_unit(changes, said):
    assert measured(headline(ROW, **changes)) == said


def test_a_verdict_is_told_by_sign_and_word():
    assert badge("passed") == '<span class="verdict good">✓ passed</span>'
    assert badge("slower") == '<span class="verdict bad">✗ slower</span>'
    assert badge("not <separated>") == '<span class="verdict open">○ not &lt;separated&gt;</span>'
    assert badge("") == ""


def test_a_row_is_linked_and_tells_machine_and_day():
    assert link(ROW) == f"[raw row](#{ROW.label})"
    assert (machine(ROW), date(ROW)) == ("a device", "2026-01-02")
