"""The zip holds the evidence byte for byte, describes all of it, and is the same each time."""

import hashlib
import io
import json
import zipfile
from fnmatch import fnmatchcase

import pytest

from psannlm import REPORTS, ROOT
from psannlm.evidence.rows import TABLES
from psannlm.evidence.runs import all_runs, best_run, load
from psannlm.publish.data_archive import ZIP, data_files, groups, readme, run_facts, zipped
from tests.forging import forge
from tests.synthetic import throughput_run

FOLDER = f"{ZIP.removesuffix('.zip')}/"
PICTURES = {".svg", ".png"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The best runs of two pages, one with trainings below it, and what is staged beside them."""
    folder = throughput_run(tmp_path_factory.mktemp("shootout"))
    (folder / "cells").mkdir()
    for key in ("0a", "0b", "0c"):
        (folder / "cells" / f"{key}.json").write_text("{}")
        forge(folder, f"cells/{key}.json", lambda _: '{"key": "0", "arm": "gelu"}')
    best = {
        "throughput": load(throughput_run(tmp_path_factory.mktemp("run"))),
        "shootout": load(folder),
    }
    beside = {
        "throughput_history.csv": b"base\n1\n",
        "data/history/rows.csv": b"base\n2\n",
        "data/throughput/throughput.csv": b"not this one",
        "data.json": b"{}",
        "answers.md": b"no data",
    }
    return best, beside


def unpacked(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        assert found.testzip() is None
        return {n.removeprefix(FOLDER): found.read(n) for n in found.namelist()}


def test_every_artifact_but_pictures_is_there_with_histories_and_headlines(made):
    best, beside = made

    files = data_files(best, beside)

    for page, run in best.items():
        there = {p.relative_to(run.folder).as_posix() for p in run.folder.rglob("*") if p.is_file()}
        wanted = {n for n in there if not n.endswith(tuple(PICTURES)) and not n.startswith(".")}
        assert {n.removeprefix(f"{page}/") for n in files if n.startswith(f"{page}/")} == wanted
        assert any("/" in name for name in wanted) == (page == "shootout")
    assert files["history/throughput_history.csv"] == b"base\n1\n"
    assert files["history/rows.csv"] == b"base\n2\n"
    assert files["data.json"] == b"{}"
    assert "answers.md" not in files
    assert files["throughput/throughput.csv"] == best["throughput"].text("throughput.csv").encode()


def test_pictures_and_weights_stay_out(tmp_path):
    folder = throughput_run(tmp_path)
    run = load(folder)
    for name in ("a.svg", "b.png", "c.safetensors"):
        run.manifest["artifacts"][name] = ""
        (folder / name).write_bytes(b"x")

    assert not [
        n for n in data_files({"throughput": run}, {}) if n[-4:] in (".svg", ".png", "sors")
    ]


def test_what_the_zip_holds_is_what_was_put_in_with_checksums_and_license(made):
    best, beside = made
    files = data_files(best, beside)

    found = unpacked(zipped(files, best))

    assert {name: found[name] for name in files} == files
    assert set(found) - set(files) == {"README.md", "LICENSE", "SHA256SUMS"}
    assert found["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    sums = dict(reversed(line.split("  ")) for line in found["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in found.items()
        if name != "SHA256SUMS"
    }


def test_equal_data_makes_equal_bytes_in_any_order(made, monkeypatch):
    best, beside = made
    files = data_files(best, beside)
    first = zipped(files, best)
    monkeypatch.setattr("time.time", lambda: 2e9)

    again = zipped(dict(reversed(files.items())), best)

    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(first).hexdigest()
    with zipfile.ZipFile(io.BytesIO(first)) as found:
        assert found.namelist() == sorted(found.namelist())
        assert {entry.date_time for entry in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_readme_names_every_file_every_column_and_every_run(made):
    best, beside = made
    files = data_files(best, beside)
    found = groups(files)

    text = readme(best, found)

    headings = [line for line in text.splitlines() if line.startswith("### ")]
    named = [heading[5:-1].partition(", ")[0] for heading in headings]
    assert all(any(fnmatchcase(file, name) for name in named) for file in files)
    assert len(headings) < len(files), "cells share a heading"
    (many,) = (h for h in headings if "cells/" in h)
    assert "shootout/cells/*.json, 3 files" in many
    for group in found:
        part = text.split(f"### `{group.name}`\n")[1].split("\n### ")[0]
        assert group.holds in part
        assert all(f"| `{column.name}` | " in part for column in group.columns)
    for run in best.values():
        assert all(fact in text for fact in run_facts(run).values())
    assert "@software{" in text


def test_a_group_of_one_file_counts_its_rows_and_one_of_many_its_files(made):
    best, beside = made
    found = {group.pattern: group for group in groups(data_files(best, beside))}

    table, cells = found["throughput/samples.csv"], found["shootout/cells/*.json"]

    assert table.n_rows == best["throughput"].text("samples.csv").count("\n") - 1
    assert cells.n_rows is None
    assert cells.n_bytes == sum(
        p.stat().st_size for p in (best["shootout"].folder / "cells").iterdir()
    )


def test_without_a_run_the_zip_still_says_what_it_is():
    found = unpacked(zipped({}, {}))

    assert set(found) == {"README.md", "LICENSE", "SHA256SUMS"}


@pytest.mark.slow
def test_the_committed_evidence_is_in_the_zip_byte_for_byte():
    runs = list(all_runs(REPORTS))
    best = {page: run for page in TABLES if (run := best_run(page, runs)) is not None}

    found = unpacked(zipped(data_files(best, {}), best))

    for page, run in best.items():
        manifest = json.loads(found[f"{page}/run.json"])
        for name, expected in manifest["artifacts"].items():
            is_picture = name[-4:] in PICTURES
            assert (f"{page}/{name}" in found) != is_picture
            if not is_picture:
                assert hashlib.sha256(found[f"{page}/{name}"]).hexdigest() == expected
        assert run.folder.name == manifest["run"]
