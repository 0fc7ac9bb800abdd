"""Run folders: whole, or refused by name when altered; their rows are numbered and selected."""

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from psannlm import ROOT
from psannlm.evidence.runs import Evidence, EvidenceError, Run, all_runs, best_run, load
from psannlm.evidence.table import rows_of, table_of
from tests.forging import writable
from tests.synthetic import throughput_run

START = {"notebook": "throughput", "preset": "cpu"}
NOW = {
    "parameters": {"seed": 0},
    "git": {"commit": "a", "dirty": False},
    "environment": {"device": "here"},
}


def begun(reports) -> Run:
    return Run.start("benchmarks", START | NOW, reports=reports)


@pytest.fixture
def run(tmp_path) -> Run:
    """A run that has just begun, in the folder of the test."""
    return begun(tmp_path)


def test_a_run_is_complete_once_it_is_sealed_and_loads_with_what_it_was_given(run):
    run.write("data.csv", "a,b\n1,2\n")
    assert not load(run.folder).is_complete
    run.seal("complete")

    evidence = load(run.folder)

    assert evidence.is_complete
    assert evidence.text("data.csv") == "a,b\n1,2\n"
    assert set(evidence.manifest["artifacts"]) == {"data.csv"}
    with pytest.raises(EvidenceError, match="nothing to resume"):
        Run.resume(run.folder, NOW)


def test_folders_are_named_by_their_start_and_a_suffix_and_never_collide(tmp_path):
    plain = [begun(tmp_path).folder for _ in range(2)]
    suffixed = Run.start("benchmarks", START | NOW, reports=tmp_path, suffix="_base_shootout")

    assert suffixed.folder.name.endswith("_base_shootout")
    assert suffixed.manifest["run"] == suffixed.folder.name
    assert [run.folder for run in all_runs(tmp_path)] == [*plain, suffixed.folder]
    for folder in (*plain, suffixed.folder):
        assert time.strptime(folder.name[:15], "%Y%m%d_%H%M%S")


@pytest.mark.parametrize("position", [0, 3, -2])
def test_one_changed_byte_in_any_artifact_is_refused(tmp_path, position):
    folder = writable(throughput_run(tmp_path))
    for name in load(folder).manifest["artifacts"]:
        content = (folder / name).read_bytes()
        damaged = bytearray(content)
        damaged[position] ^= 1
        (folder / name).write_bytes(damaged)

        with pytest.raises(EvidenceError, match=f"{folder.name}: {name} was altered"):
            load(folder)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("status", ["failed", "interactive"])
def test_a_sealed_run_is_read_only_and_checked_until_it_goes_on_and_writes_anew(tmp_path, status):
    folder = throughput_run(tmp_path, status=status)
    manifest, samples = load(folder).manifest, folder / "samples.csv"
    files = [path for path in folder.iterdir() if not path.name.startswith(".")]
    assert {path.stat().st_mode & 0o222 for path in files} == {0}
    samples.chmod(0o644)
    samples.write_text("altered")
    with pytest.raises(EvidenceError, match=rf"{folder.name}: samples\.csv was altered"):
        load(folder)

    run = Run.resume(folder, manifest)
    run.write("samples.csv", "another")

    assert load(folder).manifest["status"] == "running"
    run.seal("complete")
    assert load(folder).text("samples.csv") == "another"
    assert not samples.stat().st_mode & 0o222
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        ("core.autocrlf", lambda content: content.replace(b"\n", b"\r\n")),
        ("cut short", lambda content: content[: len(content) // 2]),
        ("git lfs pull", lambda content: b"version https://git-lfs.github.com/spec/v1\noid 0\n"),
        ("nbstripout", lambda content: content.replace(b'"output_type"', b'"x"')),
    ],
)
def test_what_altered_a_file_is_named_with_the_command_that_restores_it(tmp_path, cause, change):
    folder = writable(throughput_run(tmp_path))
    path = folder / ("throughput.ipynb" if cause == "nbstripout" else "cells.csv")
    path.write_bytes(change(path.read_bytes()))

    with pytest.raises(
        EvidenceError, match=f"was altered, .*{cause}.*git checkout -- {folder.name}`"
    ):
        load(folder)


@pytest.fixture
def nested(run):
    """A run with artifacts in folders, sealed."""
    for name in NESTED:
        run.write(name, "{}\n")
    run.seal("complete")
    return writable(run.folder)


NESTED = {"summary.csv", "cells/0a.json", "runs/gelu_seed0/metrics.json"}


def test_artifacts_may_lie_in_folders_and_one_that_is_missing_is_refused(nested):
    evidence = load(nested)
    assert set(evidence.manifest["artifacts"]) == NESTED
    assert evidence.text("runs/gelu_seed0/metrics.json") == "{}\n"

    (nested / "cells" / "0a.json").unlink()

    with pytest.raises(EvidenceError, match=r"cells/0a\.json is missing"):
        load(nested)


@pytest.mark.parametrize("name", ["notes.txt", "cells/0b.json"])
def test_a_file_that_the_run_did_not_write_is_refused_by_name_but_for_a_hidden_one(nested, name):
    (nested / "cells" / ".0b.json.123.tmp").write_text("half")
    assert load(nested).is_complete
    (nested / name).write_text("{}")

    with pytest.raises(EvidenceError, match=rf"{nested.name}: {name} is not named in run\.json"):
        load(nested)


@pytest.mark.parametrize("name", ["../{}.txt", "cells/../../{}.txt", "{}", "..\\{}.txt"])
def test_an_artifact_that_leaves_the_folder_is_refused(run, name):
    elsewhere = run.folder.parent / "outside.txt"
    elsewhere.write_text("sealed with the rest")
    run.write("cells/0a.json", "{}\n")
    run.artifacts = {name.format(elsewhere if name == "{}" else "outside")}
    if "\\" in name:
        (run.folder / next(iter(run.artifacts))).write_text("")
    run.seal("complete")

    with pytest.raises(EvidenceError, match="is no path below the run's folder"):
        load(run.folder)


def test_a_run_goes_on_in_its_folder_with_its_artifacts_and_facts_and_no_half_written_file(run):
    for name in NESTED:
        run.write(name, "old")
    run.state(corpus={"sha256": "c"})
    for hidden in ("cells/.0b.json.123.tmp", ".cache/deep/file"):
        (run.folder / hidden).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / hidden).write_text("none of the run's")

    run.lock.release()  # as its end would
    resumed = Run.resume(run.folder, NOW)
    assert resumed.artifacts == NESTED
    with pytest.raises(EvidenceError, match=f"{run.folder.name} was begun with another corpus"):
        resumed.state(corpus={"sha256": "d"})
    resumed.state(corpus={"sha256": "c"}, tokenizer=None)
    resumed.write("summary.csv", "new")
    resumed.seal("complete")

    whole = load(run.folder)
    assert whole.is_complete
    assert whole.manifest["corpus"] == {"sha256": "c"}
    assert set(whole.manifest["artifacts"]) == NESTED
    assert len(whole.manifest["resumed_at"]) == 1
    assert (whole.text("summary.csv"), whole.text("cells/0a.json")) == ("new", "old")


@pytest.mark.parametrize(
    ("change", "message"),
    [({"preset": "gpu"}, r"run\.json was altered"), ({"schema": 99}, "must be 1, got 99")],
)
def test_a_changed_manifest_and_an_unknown_schema_are_refused(nested, change, message):
    path = nested / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))

    with pytest.raises(EvidenceError, match=message):
        load(nested)


@pytest.mark.parametrize("content", ["", "{", "[1]", "null"])
def test_a_manifest_that_is_no_manifest_is_refused(tmp_path, run, content):
    (run.folder / "run.json").write_text(content)

    [refused] = all_runs(tmp_path)

    assert run.folder.name in refused.reason


def test_a_folder_that_cannot_be_written_is_named_with_the_way_out(tmp_path):
    (tmp_path / "benchmarks").write_text("a file stands where the folder should")

    with pytest.raises(EvidenceError, match=r"benchmarks cannot be written.*PSANNLM_REPORTS"):
        begun(tmp_path)


KILLED = """
import sys, pathlib
from psannlm.evidence.runs import Run
run = Run.start("benchmarks", {"notebook": "throughput", "preset": "cpu"},
                reports=pathlib.Path(sys.argv[1]))
for i in range(100):
    run.write(f"file{i % 7}.csv", str(i) * 20000)
    print(i, flush=True)
run.seal("complete")
print("sealed", flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [0, 1, 30, 99, 100])
def test_a_run_killed_at_any_point_is_never_taken_for_complete(tmp_path, lines):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        printed = [process.stdout.readline().strip() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        printed += process.stdout.read().split()

    for run in all_runs(tmp_path):
        sealed = isinstance(run, Evidence) and run.is_complete
        # The manifest may be in place an instant before the word of it is out.
        assert not sealed or "99" in printed


def test_a_run_goes_on_with_its_parameters_on_its_machine_alone(run):
    run.lock.release()
    with pytest.raises(EvidenceError, match="begun with other parameters"):
        Run.resume(run.folder, NOW | {"parameters": {"seed": 1}})
    with pytest.raises(EvidenceError, match="another machine, device here and not there"):
        Run.resume(run.folder, NOW | {"environment": {"device": "there"}})


def test_the_best_run_is_the_newest_complete_one_of_the_highest_preset(tmp_path):
    _, newest = (throughput_run(tmp_path, preset="cpu") for _ in range(2))
    throughput_run(tmp_path, preset="gpu", status="failed")
    smoke = throughput_run(tmp_path, preset="smoke")

    assert best_run("throughput", list(all_runs(tmp_path))).folder == newest
    assert (smoke / ".gitignore").read_text() == "*\n", "it keeps itself out of git"
    assert not (newest / ".gitignore").exists()


def evidence(preset: str, started_at: str, **parameters) -> Evidence:
    """A complete run of which nothing is on disk."""
    manifest = {"notebook": "validation", "status": "complete", "parameters": parameters}
    return Evidence(ROOT / started_at, manifest | {"preset": preset, "started_at": started_at})


def test_a_run_of_some_checks_takes_the_place_of_a_whole_one_only_by_its_preset():
    whole, some = evidence("cpu", "1", only=[]), evidence("cpu", "2", only=["GPU-08"])
    higher = evidence("gpu", "0", only=["GPU-08"])

    assert best_run("validation", [whole, some]) == whole
    assert best_run("validation", [some]) == some
    assert best_run("validation", [whole, higher]) == higher


def test_rows_are_numbered_from_the_line_below_the_head_selected_and_name_what_repeats_them(
    tmp_path,
):
    run, file = load(throughput_run(tmp_path)), "throughput.csv"
    lines, rows = run.text(file).splitlines(), rows_of(run, file)

    for row in rows:
        assert lines[row.number].startswith(f"{run.folder.name},{row.values['base']},")
        assert row.command == f"python -m psannlm rerun reports/{run.name} --row {row.number}"
        assert row.label == f"row-throughput-{run.folder.name}-{row.number}"
    selected = rows_of(run, file, "verdict == 'baseline'")
    assert selected
    for row in selected:
        assert row.values == rows[row.number - 1].values
        assert (row.values["ratio"], row.values["ratio_low"]) == (1, None)
    with pytest.raises(ValueError, match=r"cannot select by 'speed > 1'.*speed"):
        rows_of(run, file, "speed > 1")


@pytest.mark.parametrize(
    ("content", "n"),
    [('[{"x": 1}, {"x": 2}]', 2), ('{"x": 1}', 1), ('{"findings": [{"x": 1}, {"x": 3}]}', 2)],
)
def test_a_list_of_entries_and_a_single_object_are_tables_too(tmp_path, content, n):
    (tmp_path / "a.json").write_text(content)
    run = Evidence(tmp_path, {"notebook": "x"})

    assert list(table_of(run, "a.json").index) == list(range(1, n + 1))
    assert rows_of(run, "a.json")[0].values == {"x": 1}
