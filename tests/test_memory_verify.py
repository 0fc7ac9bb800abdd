"""A memory run that contradicts its records, or a record that no machine could make, is refused."""

import json
import math
import shutil

import pytest

from psannlm.evidence import verify
from psannlm.files import MIB
from psannlm.pages.memory.page import PAGE
from psannlm.pages.memory.records import impossible
from tests import pages
from tests.forging import forge, with_more
from tests.synthetic_memory import (
    PARAMETERS,
    committed_run,
    failed_record,
    memory_record,
    memory_run,
    peer_record,
)

SAVED = memory_record().saved_bytes
ON = memory_record(grad_checkpoint=True)


def problems(folder):
    return pages.problems(PAGE, folder)


def wrong(**changes):
    """What is impossible of a process with these changes."""
    return list(impossible(memory_record(**changes)))


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Files of one honest run, to be copied."""
    return memory_run(tmp_path_factory.mktemp("honest"), peers=[peer_record()])


@pytest.fixture
def folder(honest, tmp_path):
    """A run of the test's own."""
    return shutil.copytree(honest, tmp_path / "benchmarks" / honest.name)


def test_honest_runs_pass(folder, tmp_path):
    records = [failed_record(base="respsann"), ON]

    assert problems(folder) == []
    assert problems(memory_run(tmp_path / "b", records=records, base=("respsann",))) == []
    assert list(verify.problems(PAGE, committed_run())) == []


@pytest.mark.parametrize(
    "column",
    [
        "d_model", "n_layers", "vocab_size", "elapsed_s", "elapsed_s_low", "n_ok", "saved_mib",
        "peak_allocated_mib", "predicted_saved_mib", "predicted_peak_mib", "peak_rss_mib",
        "predicted_optimizer_mib", "rss_before_mib", "n_parameters",
    ],
)  # fmt: skip
def test_a_forged_number_is_named(folder, column):
    def lie(text):
        rows = json.loads(text)
        rows[0][column] *= 1.0001
        return json.dumps(rows)

    forge(folder, "memory.json", lie)

    [problem] = problems(folder)
    assert problem.startswith(f"memory.json: [0].{column} is ")
    assert "the records give" in problem


@pytest.mark.parametrize(
    "column",
    ["saved_less_mib", "saved_less_share", "peak_less_mib", "elapsed_with_s", "time_ratio"],
)
def test_a_forged_saving_is_named(folder, column):
    forge(folder, "savings.csv", with_more(column))

    [problem] = problems(folder)
    assert problem.startswith("savings.csv: row 1, respsann fp32: " + column)


@pytest.mark.parametrize(
    ("name", "stated", "lie", "said"),
    [
        ("memory.json", '"within 2%"', '"not within 2%"', "saved_verdict is 'not within 2%'"),
        ("memory.json", '"max_memory_mb": null', '"max_memory_mb": 9.0', "max_memory_mb is 9.0"),
        ("savings.csv", "fast_sine", "chunked_loss", "saver is 'chunked_loss'"),
        ("peer.csv", ",0.4,", ",0.39,", "ratio is '0.39'"),
        ("samples.csv", ",0,0.", ",0,1.", "samples.csv: row 1"),
        ("README.md", "| 10.0 | 4.0 |", "| 10.0 | 3.0 |", "is '3.0'"),
        ("memory_records.json", "[", "", "cannot be computed"),
        ("memory.json", "[", "", "cannot be computed"),
    ],
)
def test_what_the_records_do_not_bear_out_is_named(folder, name, stated, lie, said):
    assert stated in (folder / name).read_text()
    forge(folder, name, lambda text: text.replace(stated, lie, 1))

    assert any(said in problem for problem in problems(folder))


@pytest.mark.parametrize("name", ["savings.csv", "peer.csv", "README.md"])
def test_a_row_that_was_dropped_is_missed(folder, name):
    def drop(text):
        row = next(line for line in text.splitlines(keepends=True) if "respsann" in line)
        return text.replace(row, "")

    forge(folder, name, drop)

    assert any("rows" in problem for problem in problems(folder))


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([memory_record()], "checkpointing on, which was asked for"),
        ([memory_record(), memory_record(), ON], "two of its records have one key"),
        ([memory_record(n_parameters=7), ON], "predicted parameters are"),
        ([memory_record(seconds=()), ON], "seconds must be positive and finite"),
        ([memory_record(), ON, peer_record(saved_bytes=7)], "peer_records.json: fp32: saved_kinds"),
    ],
)
def test_records_that_cannot_be_those_of_the_run_are_refused(tmp_path, records, said):
    folder = memory_run(tmp_path, records=records, base=("respsann",))

    assert any(said in problem for problem in problems(folder))


def test_what_can_be_is_let_pass_and_a_bound_that_is_just_reached():
    names = ("saved_bytes", "peak_allocated_bytes", "rss_before_bytes", "peak_rss_bytes")
    tight = dict.fromkeys(names[1:], PARAMETERS + SAVED)

    assert wrong() == []
    assert wrong(**dict.fromkeys(names), saved_kinds={}) == []
    assert wrong(**tight) == []
    assert wrong(**tight, peak_reserved_bytes=PARAMETERS + SAVED) == []


@pytest.mark.parametrize("seconds", [(), (0.5, 0.0), (-0.1,), (math.inf,), (0.5, math.nan)])
def test_a_step_takes_some_time_and_comes_to_an_end(seconds):
    assert wrong(seconds=seconds) == [f"seconds must be positive and finite, got {seconds}"]


def test_kinds_of_saved_tensors_are_together_what_was_saved():
    kinds = {"float32 (2, 16, 16)": 3 * MIB, "int64 (2, 16)": 4 * MIB}

    said = f"saved_kinds are {7 * MIB} bytes together, saved_bytes is {SAVED}"
    assert wrong(saved_kinds=kinds) == [said]
    assert wrong(saved_kinds=kinds, saved_bytes=7 * MIB) == []


NOTHING_SAVED = {"saved_bytes": 0, "saved_kinds": {}, "peak_rss_bytes": None}


@pytest.mark.parametrize(
    ("name", "held", "beside", "of_what"),
    [
        ("peak_allocated_bytes", PARAMETERS + SAVED, {}, "parameters and saved tensors"),
        ("peak_allocated_bytes", PARAMETERS, NOTHING_SAVED, "parameters"),
        ("peak_reserved_bytes", SAVED, {"peak_allocated_bytes": SAVED}, "peak_allocated_bytes"),
        ("peak_rss_bytes", SAVED, {"rss_before_bytes": SAVED}, "rss_before_bytes"),
        ("peak_rss_bytes", PARAMETERS, {"rss_before_bytes": 0}, "parameters"),
    ],
)
def test_a_peak_is_not_below_what_it_holds(name, held, beside, of_what):
    found = wrong(**beside, **{name: held - 1})

    assert f"{name} is {held - 1}, less than the {held} bytes of {of_what}" in found


def test_on_a_gpu_the_weights_are_not_in_main_memory():
    small = {"rss_before_bytes": 1, "peak_rss_bytes": PARAMETERS - 1}

    assert wrong(**small, peak_reserved_bytes=64 * MIB) == []
    assert len(wrong(**small)) == 1
