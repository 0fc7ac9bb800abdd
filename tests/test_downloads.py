"""Downloads hold the evidence byte for byte, and describe every file and column with units."""

import hashlib
import io
import re
import tomllib
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml

from psannlm import REPORTS, ROOT, __version__
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Run, all_runs, load
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.registry import pages
from psannlm.publish import build as book
from psannlm.publish import downloads, history, landing
from tests.forging import forge
from tests.synthetic import start_manifest, throughput_config, throughput_run

PICTURES = (".svg", ".png")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return load(throughput_run(tmp_path_factory.mktemp("run")))


@pytest.fixture(scope="module")
def page(run):
    """The page of that run, nothing staged beside it."""
    return downloads.staged([run], {})[downloads.PAGE].decode()


@pytest.fixture(scope="module")
def best(tmp_path_factory, run):
    """The best runs of two pages, one with trainings below it."""
    folder = throughput_run(tmp_path_factory.mktemp("shootout"))
    (folder / "cells").mkdir()
    for name in ("cells/0a.json", "cells/0b.json", "cells/0c.json"):
        (folder / name).write_text("{}")
        forge(folder, name, lambda _: '{"key": "0", "arm": "gelu"}')
    for name in ("a.svg", "b.png", "c.safetensors"):
        (folder / name).write_bytes(b"")
        forge(folder, name, lambda _: "x")
    return {"throughput": run, "shootout": load(folder)}


@pytest.fixture(scope="module")
def files(best):
    beside = {
        "data/history/runs.csv": b"base\n1\n",
        "data/throughput/throughput.csv": b"not this one",
        "data.json": b"{}",
        "answers.md": b"no data",
    }
    return downloads.data_files(best, beside)


def unpacked(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as found:
        assert found.testzip() is None
        return {n.partition("/")[2]: found.read(n) for n in found.namelist()}


def test_every_artifact_but_pictures_and_weights_is_there_with_histories_and_headlines(best, files):
    for page, run in best.items():
        there = {p.relative_to(run.folder).as_posix() for p in run.folder.rglob("*") if p.is_file()}
        out = (*PICTURES, ".safetensors")
        wanted = {n for n in there if not n.endswith(out) and not n.startswith(".")}
        assert {n.removeprefix(f"{page}/") for n in files if n.startswith(f"{page}/")} == wanted
        assert any("/" in name for name in wanted) == (page == "shootout")
    assert files["history/runs.csv"] == b"base\n1\n"
    assert files["data.json"] == b"{}"
    assert "answers.md" not in files
    assert files["throughput/throughput.csv"] == best["throughput"].text("throughput.csv").encode()


def test_what_the_zip_holds_is_what_was_put_in_with_checksums_and_license(best, files):
    found = unpacked(downloads.zipped(files, best))

    assert {name: found[name] for name in files} == files
    assert set(found) - set(files) == {"README.md", "LICENSE", "SHA256SUMS"}
    assert found["LICENSE"] == (ROOT / "LICENSE").read_bytes()
    sums = dict(reversed(line.split("  ")) for line in found["SHA256SUMS"].decode().splitlines())
    assert sums == {
        name: hashlib.sha256(content).hexdigest()
        for name, content in found.items()
        if name != "SHA256SUMS"
    }


def test_equal_data_makes_equal_bytes_in_any_order(best, files, monkeypatch):
    first = downloads.zipped(files, best)
    monkeypatch.setattr("time.time", lambda: 2e9)

    again = downloads.zipped(dict(reversed(files.items())), best)

    assert hashlib.sha256(again).hexdigest() == hashlib.sha256(first).hexdigest()
    with zipfile.ZipFile(io.BytesIO(first)) as found:
        assert found.namelist() == sorted(found.namelist())
        assert {entry.date_time for entry in found.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_the_readme_names_every_file_every_column_and_every_run(best, files):
    found = downloads.groups(files)

    text = downloads.readme(best, found)

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
        assert all(fact in text for fact in downloads.known_of(run).values())
    assert "@software{" in text
    rows = {group.name: group.n_rows for group in found}
    assert rows["shootout/cells/*.json, 3 files"] is None
    samples = best["throughput"].text("samples.csv")
    assert rows["throughput/samples.csv"] == samples.count("\n") - 1


# The dictionary: what the end of a name says of its unit.
UNITS = {
    "_mib": "MiB", "_bytes": "bytes", "_seconds": "s", "tokens_per_s": "tokens/s",
    "flop_per_s": "FLOP/s", "_loss": "nats/token", "bits_per_byte": "bits/byte",
}  # fmt: skip


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Paths, and the names of the columns, of all committed evidence and what is made of it."""

    def fields(file, text):
        return downloads.names_and_rows(file, text)[0]

    runs = list(all_runs(REPORTS))
    found = {landing.DATA.file: fields("data.json", landing.document({}, []))}
    for run in runs:
        for name in (*run.manifest["artifacts"], "run.json"):
            if name.endswith((".csv", ".json")):
                path = f"{run.manifest['notebook']}/{name}"
                found[path] = found.get(path, []) + fields(name, run.text(name))
    for name, text in history.files(runs).items():
        if name.endswith(".csv"):
            found[f"history/{Path(name).name}"] = fields(name, text)
    manifest = start_manifest("throughput", throughput_config())
    run = Run.start("benchmarks", manifest, reports=tmp_path_factory.mktemp("resumed"))
    run.seal("failed", "killed")
    run.lock.release()
    found["throughput/run.json"] += list(Run.resume(run.folder, manifest).manifest)
    return found


def test_every_file_and_every_column_of_the_committed_evidence_is_described(published):
    tables = {path: downloads.described(path) for path in published}

    assert [path for path, table in tables.items() if table is None] == []
    missing = {
        f"{path}: {name}"
        for path, table in tables.items()
        for name in set(published[path]) - set(table.names)
    }
    assert missing == set()


def test_descriptions_are_one_line_with_the_unit_that_a_name_carries(published):
    columns = {(path, c.name): c for path in published for c in downloads.described(path).columns}

    assert [
        key for key, c in columns.items() if len(c.text) > 100 or not re.search(r"^.+\.$", c.text)
    ] == []
    assert [
        f"{key}: {c.unit}"
        for key, c in columns.items()
        for end, unit in UNITS.items()
        if c.name.endswith(end) and not c.nested and c.unit != unit
    ] == []


def test_a_file_goes_by_what_its_own_page_says_of_it_or_has_a_dash():
    [group] = downloads.groups({"throughput/other.csv": b"base,colour\n"})

    assert group.holds == UNKNOWN
    assert [column.text for column in group.columns] == [UNKNOWN, UNKNOWN]
    assert downloads.described("throughput/cells.csv").text == "One row a process and mode."
    assert downloads.described("throughput/run.json").file == "run.json"
    assert downloads.described("throughput/throughput.ipynb").file == "*.ipynb"
    ratio = pages()["throughput"].tables[0]["ratio"]
    assert downloads.described("history/throughput.csv")["ratio"] is ratio


@pytest.mark.parametrize(
    ("file", "text", "names", "rows"),
    [
        ("a.csv", "x,y\n1,2\n", ["x", "y"], 1),
        ("a.csv", 'x\n"1\n2"\n3\n', ["x"], 2),
        ("a.csv", "", [], 0),
        ("a.json", '[{"x": 1}, {"y": 2, "x": 0}]', ["x", "y"], 2),
        ("a.json", "[1, 2, 3]", [], 3),
        ("a.json", '{"z": [1]}', ["z"], None),
        ("a.log", "x", [], None),
    ],
)
def test_names_and_rows_are_read_from_tables_lists_and_objects(file, text, names, rows):
    assert downloads.names_and_rows(file, text) == (names, rows)


# The page


def test_every_file_has_a_row_with_its_size_rows_and_what_it_holds(run, page):
    for path, content in downloads.data_files({"throughput": run}, {}).items():
        name = path.removeprefix("throughput/")
        (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}`"))
        assert f"| {downloads.size(len(content))} |" in row
        assert not row.endswith("| — |")
    steps = run.text("samples.csv").count("\n") - 1
    assert f"| {steps:,} | One row a timed step. |" in page


def test_what_is_staged_is_linked_and_the_rest_is_in_the_zip(tmp_path):
    throughput_run(tmp_path)
    results = tmp_path / "book" / "results"

    book.stage(results, reports=tmp_path)

    text = (results / downloads.PAGE).read_text()
    links = re.findall(r"\{download\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    assert {downloads.ZIP, "data/throughput/throughput.csv", "data/history/runs.csv"} <= set(links)
    assert all((results / link).is_file() for link in links)
    assert "| `README.md`, in the zip |" in text
    assert "| `throughput.ipynb`, in the zip |" in text, "the page of that name is a shorter one"


def test_columns_are_tables_that_sort_below_the_run_that_is_offered(run, page):
    assert "Columns of throughput/samples.csv" in page
    assert "<td>seconds</td><td>s</td><td>Time of the step.</td>" in page
    assert 'class="dataframe sortable"' in page
    assert page.count("```{dropdown}") == 1
    assert f"Run {run.name}, preset" in page
    assert downloads.citation().bibtex in page


def test_without_a_run_page_and_zip_still_say_what_they_are():
    made = downloads.staged([], {})

    assert "No complete run yet" in made[downloads.PAGE].decode()
    assert set(unpacked(made[downloads.ZIP])) == {"README.md", "LICENSE", "SHA256SUMS"}


@pytest.mark.parametrize(
    ("n", "said"),
    [(51, "0.0 KiB"), (2048, "2.0 KiB"), (1_023_999, "1000.0 KiB"), (3 * 2**20, "3.0 MiB")],
)
def test_sizes_are_said_in_kib_or_mib(n, said):
    assert downloads.size(n) == said.replace(" ", "\N{NO-BREAK SPACE}")


# The citation


def test_the_citation_names_the_version_title_authors_and_license_of_the_project():
    book = yaml.safe_load((ROOT / "_config.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    content = yaml.safe_load(downloads.SOURCE.read_text())

    cited = downloads.citation()

    assert cited.version == __version__
    assert cited.title == book["title"]
    assert cited.authors == (book["author"],)
    assert cited.license == project["license"]
    assert cited.date.startswith(book["copyright"])
    assert content["cff-version"] == "1.2.0"
    assert set(content) >= {"message", "title", "authors", "abstract", "keywords", "type"}


def test_bibtex_says_what_the_file_says():
    cited = downloads.Citation("100% of R&D", ("A B", "C, D"), "1.2", "2031-04-09", "MIT")

    assert cited.bibtex == (
        "@software{psannlm_report_2031,\n"
        "  author = {{A B} and {C, D}},\n"
        "  title = {{100\\% of R\\&D}},\n"
        "  year = {2031},\n"
        "  month = {4},\n"
        "  version = {1.2},\n"
        "  note = {Software and data, MIT license}\n"
        "}\n"
    )


def test_persons_are_cited_by_family_and_given_names(tmp_path):
    path = tmp_path / downloads.SOURCE.name
    person = "  - {family-names: Noether, given-names: Emmy}"
    text = downloads.SOURCE.read_text().replace("  - name: The PSANN-LM benchmark authors", person)
    path.write_text(text)

    assert downloads.citation(path).authors == ("Noether, Emmy",)


@pytest.mark.parametrize("gone", ["title:", "version:", "license:", "date-released:"])
def test_a_file_that_lacks_something_is_refused_by_its_name(tmp_path, gone):
    path = tmp_path / downloads.SOURCE.name
    lines = downloads.SOURCE.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith(gone)))

    with pytest.raises(ConfigError, match=f"CITATION.cff must have .*{gone[:-1]}"):
        downloads.citation(path)
