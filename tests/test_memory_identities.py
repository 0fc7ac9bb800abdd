"""A memory page that contradicts its records is refused even if every hash is right."""

import json

import pytest

from psannlm.evidence.runs import EvidenceError, load
from psannlm.files import MIB
from psannlm.run.check import check
from tests.forging import forge
from tests.synthetic_memory import failed_record, memory_record, memory_run, peer_record

WHERE = r"respsann, fp32, 32 tokens at 16, checkpointing off"


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Files of one honest run, to be copied."""
    return memory_run(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def folder(honest, tmp_path):
    """A run of the test's own."""
    mine = tmp_path / "benchmarks" / honest.name
    mine.mkdir(parents=True)
    for path in honest.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    return mine


def forge_json(folder, name, change):
    """Change the list of objects in a JSON file; `change` gets each object."""

    def rewrite(text):
        values = json.loads(text)
        return json.dumps([change(value) or value for value in values], indent=1) + "\n"

    forge(folder, name, rewrite)


def test_an_honest_run_passes(folder):
    check(load(folder))


def test_a_run_in_which_a_base_failed_passes(tmp_path):
    records = [
        failed_record(base="respsann", grad_checkpoint=False),
        memory_record(base="respsann", grad_checkpoint=True),
    ]

    check(load(memory_run(tmp_path, records=records, base=("respsann",))))


@pytest.mark.parametrize(
    "column",
    [
        "d_model", "n_layers", "vocab_size", "elapsed_s", "n_ok", "saved_mib", "peak_allocated_mib",
        "predicted_saved_mib", "predicted_peak_mib", "predicted_optimizer_mib", "rss_before_mib",
        "peak_rss_mib", "n_parameters",
    ],
)  # fmt: skip
def test_a_forged_number_is_named(folder, column):
    def lie(row):
        row[column] *= 1.0001

    forge_json(folder, "memory.json", lie)

    with pytest.raises(EvidenceError, match=rf"memory\.json: {WHERE}: {column} is .*records give"):
        check(load(folder))


def test_memory_of_a_cpu_that_is_called_that_of_cuda_is_named(folder):
    def lie(row):
        row["max_memory_mb"] = row["peak_allocated_mib"]

    forge_json(folder, "memory.json", lie)

    with pytest.raises(EvidenceError, match=r"max_memory_mb is .* the records give None"):
        check(load(folder))


def test_a_forged_verdict_on_a_prediction_is_named(tmp_path):
    records = [
        memory_record(base="respsann", grad_checkpoint=on, saved_bytes=3 * MIB, saved_kinds={})
        for on in (False, True)
    ]
    folder = memory_run(tmp_path, records=records, base=("respsann",))
    check(load(folder))  # a prediction that is off is a verdict, no lie

    forge(folder, "memory.json", lambda text: text.replace("not within 2%", "within 2%"))

    with pytest.raises(EvidenceError, match=r"saved_verdict is 'within 2%'.*'not within 2%'"):
        check(load(folder))


def test_an_interval_that_the_samples_do_not_bear_out_is_named(folder):
    def lie(row):
        row["elapsed_s_low"] /= 2

    forge_json(folder, "memory.json", lie)

    with pytest.raises(EvidenceError, match="elapsed_s lies outside its interval"):
        check(load(folder))


def test_a_base_without_its_other_half_is_missed(tmp_path):
    folder = memory_run(tmp_path, records=[memory_record()], base=("respsann",))

    with pytest.raises(EvidenceError, match="checkpointing on, which was asked for"):
        check(load(folder))


def test_a_row_that_was_dropped_is_missed(folder):
    forge(folder, "memory.json", lambda text: json.dumps(json.loads(text)[1:]))

    with pytest.raises(EvidenceError, match=rf"memory\.json: no row for {WHERE}"):
        check(load(folder))


def test_a_row_that_stands_there_twice_is_named(folder):
    def twice(text):
        rows = json.loads(text)
        return json.dumps([rows[0], *rows])

    forge(folder, "memory.json", twice)

    with pytest.raises(EvidenceError, match=rf"two rows for {WHERE}"):
        check(load(folder))


@pytest.mark.parametrize(
    "column",
    ["saved_less_mib", "saved_less_share", "peak_less_mib", "elapsed_with_s", "time_ratio"],
)
def test_a_forged_saving_is_named(folder, column):
    head, first, *rest = (folder / "savings.csv").read_text().splitlines(keepends=True)
    fields = first.split(",")
    at = head.strip().split(",").index(column)
    fields[at] = repr(float(fields[at]) * 1.001)
    forge(folder, "savings.csv", lambda text: "".join([head, ",".join(fields), *rest]))

    with pytest.raises(EvidenceError, match=rf"savings\.csv: .*respsann.*: {column} is"):
        check(load(folder))


def test_a_saving_that_was_dropped_is_missed(folder):
    forge(folder, "savings.csv", lambda text: "".join(text.splitlines(keepends=True)[:-1]))

    with pytest.raises(EvidenceError, match=r"savings\.csv: no row for"):
        check(load(folder))


def test_a_saving_of_nothing_that_was_measured_is_named(folder):
    forge(folder, "savings.csv", lambda text: text.replace("fast_sine,resp", "chunked_loss,sgrp"))

    with pytest.raises(EvidenceError, match=r"chunked_loss, sgrpsann.*no such pair"):
        check(load(folder))


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"peak_allocated_bytes": MIB}, "peak_allocated_bytes is .* bytes of parameters"),
        (
            {"saved_bytes": 20 * MIB, "saved_kinds": {}},
            ".* bytes of parameters and saved tensors",
        ),
        ({"saved_bytes": 9 * MIB}, "saved_kinds are .* bytes together, saved_bytes is"),
        ({"peak_rss_bytes": 2 * MIB}, "peak_rss_bytes is .* bytes of rss_before_bytes"),
        ({"peak_reserved_bytes": MIB}, "peak_reserved_bytes is .* of peak_allocated_bytes"),
        ({"seconds": (0.5, -0.1)}, "seconds must be positive"),
    ],
)
def test_what_no_machine_could_measure_is_refused(tmp_path, lie, message):
    records = [memory_record(base="respsann", **lie), memory_record(grad_checkpoint=True)]
    folder = memory_run(tmp_path, records=records, base=("respsann",))

    with pytest.raises(EvidenceError, match=rf"memory_records\.json: block 0, {WHERE}: {message}"):
        check(load(folder))


def test_a_prediction_for_another_network_is_named(tmp_path):
    other = memory_record(n_parameters=7)
    folder = memory_run(
        tmp_path, records=[other, memory_record(grad_checkpoint=True)], base=("respsann",)
    )

    with pytest.raises(EvidenceError, match=rf"{WHERE}: predicted bytes of parameters is .* 28"):
        check(load(folder))


def test_samples_that_are_not_those_of_the_records_are_named(folder):
    forge(folder, "samples.csv", lambda text: text.replace(",0,0.", ",0,1.", 1))

    with pytest.raises(EvidenceError, match=r"samples\.csv: is not what the records"):
        check(load(folder))


def test_a_process_that_stands_there_twice_is_named(tmp_path):
    records = [memory_record(), memory_record(), memory_record(grad_checkpoint=True)]

    with pytest.raises(EvidenceError, match="stands there twice"):
        check(load(memory_run(tmp_path, records=records, base=("respsann",))))


@pytest.mark.parametrize("name", ["memory.json", "savings.csv", "memory_records.json", "peer.csv"])
def test_a_file_that_cannot_be_read_is_refused_not_a_crash(folder, name):
    forge(folder, name, lambda text: "")

    with pytest.raises(EvidenceError, match="cannot be checked"):
        check(load(folder))


def test_a_ratio_to_the_published_package_that_is_forged_is_named(tmp_path):
    folder = memory_run(tmp_path, peers=[peer_record()])
    check(load(folder))

    forge(folder, "peer.csv", lambda text: text.replace(",0.4,", ",0.39,"))

    with pytest.raises(EvidenceError, match=r"peer\.csv: package 1\.0, fp32: ratio is 0\.39"):
        check(load(folder))


def test_a_package_that_was_measured_but_is_not_shown_is_missed(tmp_path):
    folder = memory_run(tmp_path, peers=[peer_record()])

    forge(folder, "peer.csv", lambda text: text.splitlines(keepends=True)[0])

    with pytest.raises(EvidenceError, match=r"peer\.csv: 0 rows for 1 records"):
        check(load(folder))
