"""A page is a folder and a line of the registry, a column is a line: all else follows from them."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from psannlm import ROOT
from tests.forging import forge

COPIED = (
    "psannlm",
    "notebooks",
    "params",
    "book",
    "datasets",
    "pyproject.toml",
    "CITATION.cff",
    "LICENSE",
)
PARAMETERS = {"preset": "smoke", "base": ["respsann", "transformer"], "device": "cpu", "seed": 0}
COLUMN = '        Column("cells", "Records.", heading="cells", value=len),'
CELLS = (
    "from psannlm.evidence import session\nfrom psannlm.pages.toy.page import PAGE\n\n"
    "page = session.start(PAGE)\npage.machine()",
    "page.measure()",
    "page.answer()",
    'page.show("lengths")',
    'page.table("toy.csv")',
    "page.finish()",
)


def python(folder: Path, *arguments: str) -> str:
    """What the project in a folder prints."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done.stdout + done.stderr


def notebook():
    """A notebook of generic calls alone."""
    given = "\n".join(f"{name} = {value!r}" for name, value in PARAMETERS.items())
    cells = [
        new_markdown_cell("# Toy\n\n**Question.** How long are the names?"),
        new_code_cell(given, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, CELLS),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project with a page more, which has been run."""
    folder = tmp_path_factory.mktemp("project")
    skipped = shutil.ignore_patterns("__pycache__", "results", ".staged.json")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=skipped)
        else:
            shutil.copy(ROOT / name, folder)
    registry = folder / "psannlm" / "pages" / "registry.py"
    registry.write_text(registry.read_text().replace("NAMES = (", 'NAMES = (\n    "toy",'))
    toy = folder / "psannlm" / "pages" / "toy"
    shutil.copytree(ROOT / "tests" / "toy", toy, ignore=skipped)
    (toy / "__init__.py").touch()
    nbformat.write(notebook(), folder / "notebooks" / "toy.ipynb")
    for preset in ("smoke", "cpu", "gpu"):
        values = PARAMETERS | {"preset": preset}
        (folder / "params" / preset / "toy.yaml").write_text(yaml.safe_dump(values))
    said = python(folder, "-m", "psannlm", "report", "--only", "toy", "--no-book")
    assert "toy: complete" in said, said
    return folder


@pytest.fixture
def run(project) -> Path:
    [folder] = (project / "reports" / "benchmarks").iterdir()
    return folder


@pytest.mark.slow
def test_its_run_is_whole_its_table_computed_and_a_row_measured_again(project, run):
    manifest = json.loads((run / "run.json").read_text())
    files = {"toy.ipynb", "toy.csv", "letters.csv", "lengths_letters.svg", "README.md"}
    said = python(project, "-m", "psannlm", "rerun", str(run), "--row", "2")

    assert manifest["status"] == "complete"
    assert files <= set(manifest["artifacts"])
    assert (run / "toy.csv").read_text().splitlines()[1] == f"respsann,8,{8**0.5}"
    assert "row 2 of toy.csv" in said
    assert "page toy: transformer" in said
    assert "overall: INSIDE" in said


@pytest.mark.slow
def test_the_book_has_its_page_everywhere(project):
    stage = "from psannlm.publish import build; from pathlib import Path; "
    stage += "print(build.stage(Path('book/results')))"
    said = python(project, "-c", stage)
    results = project / "book" / "results"

    def text(name):
        return (results / name).read_text()

    assert (results / "toy.ipynb").exists(), said
    assert "- file: results/toy\n" in text("_toc.yml")
    assert "**How long are the names?**" in text("answers.md")
    assert "respsann 8" in text("answers.md")
    assert "Toy: respsann" in text("cards.md")
    assert "length of the name **8 letters**" in text("cards.md")
    headlines = {h["name"]: h["value"] for h in json.loads(text("data.json"))["headlines"]}
    assert headlines == {"toy.respsann.letters": 8.0, "toy.transformer.letters": 11.0}
    history = list(csv.DictReader(io.StringIO(text("data/history/toy.csv"))))
    assert [row["letters"] for row in history] == ["8", "11"]
    assert "length of the name" in text("history.md")
    assert "respsann: 8 letters" in text("data/history/runs.csv")
    downloads = text("downloads.md")
    assert "{download}`toy.csv <data/toy/toy.csv>`" in downloads
    assert "Square root of the letters." in downloads
    assert "row-toy-" in text("rows.md")


@pytest.mark.slow
def test_a_digit_that_its_records_deny_is_refused(project, run, tmp_path):
    check = "import sys; from pathlib import Path; from psannlm.evidence.runs import load; "
    check += "from psannlm.run.check import check; check(load(Path(sys.argv[1]))); print('sound')"
    forged = shutil.copytree(run, tmp_path / run.name)

    assert "sound" in python(project, "-c", check, str(run))
    forge(forged, "toy.csv", lambda text: text.replace("respsann,8,", "respsann,9,"))
    assert "letters is '9', the records give '8'" in python(project, "-c", check, str(forged))
    (forged / "toy.csv").write_text("base,letters,root\n")
    assert "toy.csv was altered" in python(project, "-c", check, str(forged))


@pytest.mark.slow
def test_a_column_of_one_line_stands_wherever_its_table_does(project):
    tables = project / "psannlm" / "pages" / "throughput" / "tables.py"
    text = tables.read_text()
    last = "        shared.DEVICE,\n"
    assert text.count(last) == 1
    tables.write_text(text.replace(last, f"{COLUMN}\n{last}"))
    source = next(
        path.parent
        for path in (ROOT / "reports" / "benchmarks").glob("*/run.json")
        if json.loads(path.read_text())["notebook"] == "throughput"
    )
    show = (
        "import sys; from pathlib import Path; from psannlm.evidence.page import run_info; "
        "from psannlm.evidence.runs import load; from psannlm.pages.registry import pages; "
        "from psannlm.evidence import verify; from psannlm.publish import downloads, history; "
        "run = load(Path(sys.argv[1])); page = pages()['throughput']; info = run_info(page, run); "
        "tables = page.tabulate(info.records, info); files = page.files(tables, info); "
        "print('csv', files['throughput.csv'].splitlines()[0]); "
        "print('page', page.tables[0].html(tables['throughput.csv'])); "
        "print('dictionary', downloads.described('throughput/throughput.csv')['cells'].text); "
        "print('history', history.table_of_page('throughput').names); "
        "print('problems', list(verify.problems(page, run)))"
    )
    said = python(project, "-c", show, str(source))
    tables.write_text(text)

    lines = dict(line.split(" ", 1) for line in said.splitlines())
    assert "cells" in lines["csv"].split(",")
    assert '<th scope="col">cells</th>' in lines["page"]
    assert lines["dictionary"] == "Records."
    assert "'cells'" in lines["history"]
    assert lines["problems"] == "[]"


BASE = """

class Doubled(Respsann):
    \"\"\"respsann whose MLP counts twice.\"\"\"

    def forward(self, x: Tensor, past: Rows | None = None, position: int = 0) -> Tensor:
        return super().forward(x, past, position) + x


BASES: """


@pytest.mark.slow
def test_a_base_of_one_class_and_one_line_stands_on_every_page_that_measures_bases(project):
    bases = project / "psannlm" / "model" / "bases.py"
    text = bases.read_text()
    more = text.replace("\n\nBASES: ", BASE, 1)
    more = more.replace('    "transformer": ', '    "doubled": Doubled,\n    "transformer": ', 1)
    bases.write_text(more)
    show = (
        "from psannlm.evidence.notebook import default_parameters as given; "
        "from psannlm.evidence.session import configuration; "
        "from psannlm.pages.registry import pages; from psannlm.checks import suite; "
        "from psannlm.pages.throughput.plan import plan, throughput; "
        "from psannlm.pages.memory.plan import memory_plan; "
        "from psannlm.pages.shootout.arms import arms_of; "
        "of = lambda name: configuration(pages()[name], given(name), name); "
        "config = of('throughput').model_copy(update={'min_seconds': 0.01}); "
        "print('validation', sum(base == 'doubled' for _, base in suite.plan(of('validation')))); "
        "print('memory', sum(c.setting.base == 'doubled' for c in memory_plan(of('memory')))); "
        "print('shootout', sum(arm.base == 'doubled' for arm in arms_of(of('shootout')))); "
        "cells = [c for c in plan(config) if c.base == 'doubled'][:1]; "
        "[found] = throughput(config, cells=cells); "
        "print('throughput', *(r.status for r in found))"
    )
    said = python(project, "-c", show)
    bases.write_text(text)

    counts = dict(line.split(" ", 1) for line in said.splitlines())
    assert counts["throughput"] == "ok ok", said
    assert all(int(counts[page]) > 0 for page in ("validation", "memory", "shootout")), said
