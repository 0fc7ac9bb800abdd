"""What no machine can have measured of memory is told, and what one can have is let pass."""

import math

import pytest

from psannlm.files import MIB
from psannlm.pages.memory.limits import impossible
from tests.synthetic_memory import PARAMETERS, memory_record

SAVED = memory_record().saved_bytes
WEIGHTS = "bytes of parameters"


def test_what_can_be_is_let_pass():
    assert list(impossible(memory_record())) == []


def test_what_was_not_measured_contradicts_nothing():
    unknown = dict.fromkeys(
        ("saved_bytes", "peak_allocated_bytes", "rss_before_bytes", "peak_rss_bytes")
    )

    assert list(impossible(memory_record(**unknown, saved_kinds={}))) == []


def test_a_bound_that_is_just_reached_is_let_pass():
    peak = PARAMETERS + SAVED
    tight = {"peak_allocated_bytes": peak, "rss_before_bytes": peak, "peak_rss_bytes": peak}

    assert list(impossible(memory_record(**tight))) == []
    assert list(impossible(memory_record(**tight, peak_reserved_bytes=peak))) == []
    assert len(list(impossible(memory_record(**tight | {"peak_allocated_bytes": peak - 1})))) == 1


@pytest.mark.parametrize("seconds", [(), (0.5, 0.0), (-0.1,), (math.inf,), (0.5, math.nan)])
def test_a_step_takes_some_time_and_comes_to_an_end(seconds):
    [problem] = impossible(memory_record(seconds=seconds))

    assert problem == f"seconds must be positive and finite, got {seconds}"


def test_kinds_of_saved_tensors_are_together_what_was_saved():
    kinds = {"float32 (2, 16, 16)": 3 * MIB, "int64 (2, 16)": 4 * MIB}

    [problem] = impossible(memory_record(saved_kinds=kinds))

    assert problem == f"saved_kinds are {7 * MIB} bytes together, saved_bytes is {SAVED}"
    assert list(impossible(memory_record(saved_kinds=kinds, saved_bytes=7 * MIB))) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"peak_allocated_bytes": PARAMETERS + SAVED - 1},
            f"{PARAMETERS + SAVED} {WEIGHTS} and saved tensors",
        ),
        (
            {"peak_reserved_bytes": 19 * MIB - 1, "peak_allocated_bytes": 19 * MIB},
            f"{19 * MIB} bytes of peak_allocated_bytes",
        ),
        (
            {"peak_rss_bytes": 100 * MIB - 1, "rss_before_bytes": 100 * MIB},
            f"{100 * MIB} bytes of rss_before_bytes",
        ),
        ({"peak_rss_bytes": PARAMETERS - 1, "rss_before_bytes": 0}, f"{PARAMETERS} {WEIGHTS}"),
    ],
)
def test_a_peak_is_not_below_what_it_holds(changes, said):
    [problem] = impossible(memory_record(**changes))

    name, value = next(iter(changes.items()))
    assert problem == f"{name} is {value}, less than the {said}"


def test_on_a_gpu_the_weights_are_not_in_main_memory():
    small = {"rss_before_bytes": 1, "peak_rss_bytes": PARAMETERS - 1}

    assert list(impossible(memory_record(**small, peak_reserved_bytes=64 * MIB))) == []
    assert len(list(impossible(memory_record(**small)))) == 1


def test_weights_are_counted_as_float32_in_every_precision():
    record = memory_record(precision="bf16", peak_allocated_bytes=PARAMETERS - 1, saved_bytes=None)

    problems = list(impossible(record))

    assert f"peak_allocated_bytes is {PARAMETERS - 1}, less than the {PARAMETERS} {WEIGHTS}" in (
        problems
    )


def test_all_that_is_wrong_is_told():
    wrong = {"seconds": (), "peak_allocated_bytes": 0, "peak_rss_bytes": 0}

    told = [problem.split()[0] for problem in impossible(memory_record(**wrong))]

    assert told == ["seconds"] + ["peak_allocated_bytes"] * 2 + ["peak_rss_bytes"] * 2
