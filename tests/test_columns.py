"""Every column of every published file is described, and nothing is described that is not there."""

from pathlib import Path

import pytest

from psannlm import REPORTS
from psannlm.checks.suite import CHECKS
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Run, all_runs, load
from psannlm.evidence.text import UNKNOWN
from psannlm.publish import headline_data
from psannlm.publish import history as history_page
from psannlm.publish.columns import SOURCE, Dictionary, dictionary, n_rows, names_of
from tests.synthetic import start_manifest, throughput_config, throughput_run
from tests.synthetic_memory import memory_run
from tests.synthetic_peer import peer_run
from tests.synthetic_shootout import shootout_run
from tests.trainings import training_run
from tests.validations import made_up_checks, validation_run

UNITS = {
    "_mib": "MiB",
    "_bytes": "bytes",
    "_seconds": "s",
    "tokens_per_s": "tokens/s",
    "flop_per_s": "FLOP/s",
    "_loss": "nats/token",
    "bits_per_byte": "bits/byte",
}
"""What the end of a name says of its unit."""


def named(run):
    """The names that each file of a run has."""
    page = run.manifest["notebook"]
    artifacts = [*run.manifest.get("artifacts", {}), "run.json"]
    return {
        f"{page}/{name}": names_of(name, run.text(name))
        for name in artifacts
        if name.endswith((".csv", ".json"))
    }


def undescribed(found):
    """The columns and the files that the dictionary has no word on."""
    known = dictionary()
    columns = [
        f"{file}: {column.name}"
        for file, names in found.items()
        for column in known.columns(file, names)
        if column.what == UNKNOWN
    ]
    return columns + [file for file in found if known.holds(file) == UNKNOWN]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The names in all committed evidence, its histories, and the tables still to be measured."""
    runs = list(all_runs(REPORTS))
    found = {}
    for run in runs:
        for file, names in named(run).items():
            found[file] = list(dict.fromkeys([*found.get(file, []), *names]))
    for name, text in history_page.files(runs).items():
        if name.endswith(".csv"):
            found[f"history/{Path(name).name}"] = names_of(name, text)
    found["data.json"] = names_of("data.json", headline_data.document([], []))
    compared = load(peer_run(tmp_path_factory.mktemp("compared"), n_repeats=1))
    found |= {file: [*found.get(file, []), *names] for file, names in named(compared).items()}
    reports = tmp_path_factory.mktemp("resumed")
    manifest = start_manifest("throughput", throughput_config())
    run = Run.start("benchmarks", manifest, reports=reports)
    run.seal("failed", "killed")
    found["throughput/run.json"] += list(Run.resume(run.folder, manifest).manifest)
    return found


def described(file, name):
    [column] = dictionary().columns(file, [name])
    return column.what


def test_one_name_with_two_meanings_is_described_by_file():
    for name in ("p", "p_holm"):
        found = {described(f"shootout/{file}", name) for file in ("summary.csv", "ablation.csv")}
        assert len(found) == 2


def test_every_check_is_among_those_that_the_column_names():
    said = described("history/validation.csv", "check")

    assert all(name in said for name in CHECKS if not "GPU-01" < name < "GPU-08")


def test_every_column_and_field_of_the_committed_evidence_is_described(published):
    assert undescribed(published) == []


@pytest.mark.slow
def test_every_column_and_field_of_a_made_up_run_is_described(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    folders = [
        throughput_run(tmp_path),
        training_run(tmp_path),
        memory_run(tmp_path, n_repeats=1),
        shootout_run(tmp_path),
        validation_run(tmp_path, only="GPU-01"),
    ]

    for folder in folders:
        assert undescribed(named(load(folder))) == []


def test_no_description_is_of_a_column_that_does_not_exist(published):
    known = dictionary()
    there = {pattern: set() for pattern in known.files}
    for file, names in published.items():
        there[known.pattern(file)] |= set(names)

    idle = [
        f"{pattern}: {name}"
        for pattern, entry in known.files.items()
        for name in entry.columns
        if name not in there[pattern]
    ]
    unused = [
        name
        for name in known.shared
        if not any(name in names - set(known.files[p].columns) for p, names in there.items())
    ]

    assert (idle, unused) == ([], [])


def test_an_entry_says_nothing_that_is_said_for_all_files():
    known = dictionary()

    again = [
        f"{pattern}: {name}"
        for pattern, entry in known.files.items()
        for name, said in entry.columns.items()
        if known.shared.get(name) == said
    ]

    assert again == []


def test_a_unit_agrees_with_the_name_that_carries_one(published):
    known = dictionary()

    wrong = [
        f"{file}: {column.name} [{column.unit}]"
        for file, names in published.items()
        for column in known.columns(file, names)
        for end, unit in UNITS.items()
        if column.name.endswith(end) and not column.name.startswith("predicted_kinds")
        if column.unit != unit
    ]

    assert wrong == []


def test_every_description_is_one_line_that_ends_with_a_full_stop():
    known = dictionary()
    said = [*known.shared.values(), *(entry.holds for entry in known.files.values())]
    said += [text for entry in known.files.values() for text in entry.columns.values()]

    assert [text for text in said if "\n" in text or not text.endswith((".", "]"))] == []
    assert [text for text in said if len(text) > 100] == []


def test_a_name_means_what_its_own_file_says_before_what_all_say():
    known = dictionary()

    (own,) = known.columns("memory/peer.csv", ["saved_mib"])
    (shared,) = known.columns("memory/memory.json", ["saved_mib"])
    (alike,) = known.columns("history/throughput.csv", ["ratio"])

    assert own.what == "What ours keeps for backward, without checkpointing."
    assert shared.what.startswith("Counted memory")
    assert own.unit == shared.unit == "MiB"
    assert [alike] == known.columns("throughput/throughput.csv", ["ratio"])


def test_what_is_not_described_has_a_dash():
    known = dictionary()

    assert known.holds("throughput/other.csv") == UNKNOWN
    assert [c.what for c in known.columns("throughput/other.csv", ["base", "colour"])] == [
        known.shared["base"],
        UNKNOWN,
    ]


def test_a_file_goes_by_its_own_name_before_a_pattern():
    known = Dictionary({}, dictionary().files)

    assert known.pattern("shootout/cells/0a.json") == "shootout/cells/*.json"
    assert known.pattern("memory/run.json") == "*/run.json"
    assert known.pattern("memory/peer.csv") == "memory/peer.csv"
    assert known.pattern("else") == "else"


def test_names_and_rows_are_read_from_tables_lists_and_objects():
    assert names_of("a.csv", "x,y\n1,2\n") == ["x", "y"]
    assert names_of("a.json", '[{"x": 1}, {"y": 2, "x": 0}]') == ["x", "y"]
    assert names_of("a.json", '{"z": [1]}') == ["z"]
    assert names_of("a.log", "x") == []
    assert n_rows("a.csv", 'x\n"1\n2"\n3\n') == 2
    assert n_rows("a.json", "[1, 2, 3]") == 3
    assert n_rows("a.json", "{}") is None
    assert n_rows("a.md", "x") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("shared: {}", "must have `shared` columns and `files`"),
        ("files: {a.csv: {holdz: x}}\nshared: {}", "holdz"),
        ("{", "mend it"),
        ("shared: {}\nfiles: {a: {holds: x, like: b}}", "a is like b, which is not described"),
    ],
)
def test_a_dictionary_that_cannot_be_read_is_refused(tmp_path, text, said):
    path = tmp_path / SOURCE.name
    path.write_text(text)

    with pytest.raises(ConfigError, match=said):
        dictionary(path)
