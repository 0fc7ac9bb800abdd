"""Files outside the project are published by their names, and found again by who has them."""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml

from psannlm import ROOT, places
from psannlm.config.parse import read_parameters
from psannlm.config.schema import FILE, ConfigError
from psannlm.evidence.runs import Refused, Run, all_runs, load
from psannlm.files import sha256_of, unlock
from psannlm.pages.registry import pages
from psannlm.pages.shootout.measure import own_tasks
from psannlm.places import as_published, located, public, published
from psannlm.run import preset as runner
from tests.repositories import write
from tests.synthetic_shootout import shootout_config
from tests.test_runs import NOW, START
from tests.tiny_trainings import training_config

PRIVATE = "/srv/größere Texte, alle/notes.txt"


@pytest.fixture(autouse=True)
def _nothing_is_known(monkeypatch, tmp_path):
    monkeypatch.setenv(places.VARIABLE, "")
    monkeypatch.setattr(places, "MEMORY", tmp_path / "memory")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("datasets/../README.md", "datasets/../README.md"),
        (str(ROOT / "datasets/lm/sample.txt"), "datasets/lm/sample.txt"),
        ("", ""),
        (PRIVATE, "notes.txt"),
        ("../else where/notes.txt", "notes.txt"),
        (f"{ROOT}-2/notes.txt", "notes.txt"),
    ],
)
def test_a_file_is_published_by_its_path_in_the_project_or_its_name_and_is_found_by_it(path, name):
    assert published(path) == name
    assert located(name) == Path(os.path.normpath(ROOT / path)) or name == path


def test_two_files_of_one_name_are_refused():
    assert published(PRIVATE) == published(PRIVATE) == "notes.txt"
    with pytest.raises(ConfigError, match=r"got notes\.txt twice; rename one"):
        published("/srv/other/notes.txt")


def test_every_parameter_that_names_a_file_is_known_to_do_so():
    for name, page in pages().items():
        for path in (ROOT / "params").glob(f"*/{name}.yaml"):
            named = {n for n, value in read_parameters(path).items() if "/" in str(value)}
            marked = {n for n, f in page.config.model_fields.items() if FILE in f.metadata}
            assert named <= marked <= {"corpus", "tokenizer_file", "lm_eval_folder"}


def test_every_module_asks_where_a_file_of_a_configuration_lies():
    direct = re.compile(r"ROOT / \w+\.(corpus|tokenizer_file|lm_eval_folder)")

    assert not [p for p in (ROOT / "psannlm").rglob("*.py") if direct.search(p.read_text())]


HOME, BOB = ("/".join(("", *parts)) for parts in (("home", "ann-lee", "w", ""), ("Users", "bob")))
TEXTS = {
    f"'{HOME}my.py', line 3": "'my.py', line 3",
    f"a\\n{HOME}my.py)": "a\\nmy.py)",
    f"\x1b[0;32m{HOME}my.py\x1b[0m": "\x1b[0;32mmy.py\x1b[0m",
    f"x={BOB}/a.txt:{BOB}": "x=a.txt:bob",
    f"{ROOT}/psannlm/files.py and {ROOT}": "psannlm/files.py and .",
    "/srv/größere Texte, alle-2/a is another": "/srv/größere Texte, alle-2/a is another",
    f"in {tempfile.gettempdir()}/cell-x1/task.json": "in task.json",
    f"</div> 3 tokens/s, https://a.org{HOME}": f"</div> 3 tokens/s, https://a.org{HOME}",
    f'"{PRIVATE}"': '"notes.txt"',
    json.dumps(PRIVATE): '"notes.txt"',
    PRIVATE.encode("unicode_escape").decode(): "notes.txt",
    json.dumps(PRIVATE.encode("unicode_escape").decode()): '"notes.txt"',
    os.path.relpath(PRIVATE, ROOT): "notes.txt",
    "/srv/größere Texte, alle/other.txt": "other.txt",
}


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_published_without_the_folders_of_this_machine(text):
    published(PRIVATE)

    assert public(text) == public(TEXTS[text]) == TEXTS[text]


def test_nothing_that_is_written_into_a_run_names_a_private_folder(tmp_path):
    config = as_published(training_config(corpus=PRIVATE))
    assert config == training_config(corpus="notes.txt")
    parameters = json.loads(config.model_dump_json())
    command = f"papermill a.ipynb b.ipynb -p corpus {PRIVATE}"
    given = START | NOW | {"parameters": parameters, "command": command}
    run = Run.start("benchmarks", given, reports=tmp_path)
    run.write("config_used.yaml", yaml.safe_dump(parameters))
    run.write("records.json", json.dumps({"reason": f"FileNotFoundError: {PRIVATE}"}))
    run.write("a.ipynb", json.dumps({"source": f"corpus = {PRIVATE!a}"}))
    run.seal("failed", f"ConfigError: {PRIVATE} is empty,\n{HOME}x.py")

    texts = [path.read_text() for path in run.folder.iterdir()]
    assert not re.search(r"srv|Texte|ann-lee", "".join(texts))
    assert load(run.folder).manifest["reason"] == "ConfigError: notes.txt is empty,\nx.py"


def test_a_refused_run_names_no_folder(tmp_path):
    (tmp_path / "benchmarks" / "20250101_000000" / "run.json").mkdir(parents=True)

    [refused] = all_runs(tmp_path)

    assert isinstance(refused, Refused)
    assert str(tmp_path) not in refused.reason


def test_a_run_goes_on_where_its_text_lies_and_asks_for_one_that_is_not_there(
    tmp_path, monkeypatch
):
    text = write(tmp_path / "private" / "notes.txt")
    corpus = {"path": published(str(text)), "sha256": sha256_of(text)}
    run = Run.start("benchmarks", START | NOW | {"corpus": corpus}, reports=tmp_path)
    run.seal("failed", "killed")
    unlock(run.lock)
    places.remember(run.folder.name)
    monkeypatch.setenv(places.VARIABLE, "")
    texts = []
    monkeypatch.setattr(runner, "run_notebook", lambda *_: texts.append(located("notes.txt")))

    runner.resume(run.folder)
    assert texts == [text]

    write(text, "others")
    with pytest.raises(ConfigError, match=r"notes\.txt has sha256 .* put that text, with the"):
        runner.resume(run.folder)
    shutil.rmtree(places.MEMORY)
    monkeypatch.setenv(places.VARIABLE, "")
    with pytest.raises(ConfigError, match=rf"notes\.txt is missing.* at {ROOT}/notes\.txt$"):
        runner.resume(run.folder)
    assert texts == [text]


def test_task_definitions_of_ones_own_are_published_by_name_and_hash(tmp_path):
    tasks = write(tmp_path / "tasks" / "deep" / "one.yaml", "task: one").parent.parent
    config = as_published(shootout_config(with_lm_eval=True, lm_eval_folder=str(tasks)))
    before = own_tasks(config)["lm_eval"]
    write(tasks / "deep" / "one.yaml", "task: other")
    after = own_tasks(config)["lm_eval"]

    assert before["path"] == after["path"] == "tasks"
    assert before["sha256"] != after["sha256"]
    assert own_tasks(shootout_config()) == {}
