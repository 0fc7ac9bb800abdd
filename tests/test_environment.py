"""The machine is described without guesses, and without names of hosts or folders."""

import json
import subprocess

import torch

from psannlm.bench import environment

CPU = torch.device("cpu")


def test_the_description_is_json_and_names_what_matters():
    described = json.loads(json.dumps(environment.describe_environment(CPU)))

    assert described["software"]["packages"]["torch"] == torch.__version__
    assert described["settings"]["threads"] == torch.get_num_threads()
    assert described["cpu"]["cores"] >= 1
    assert described["gpu"] is None


def test_a_changed_file_makes_the_tree_dirty(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "file").write_text("one")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    clean = environment.describe_git(tmp_path)
    (tmp_path / "file").write_text("two")

    assert clean.commit
    assert not clean.dirty
    assert environment.describe_git(tmp_path) == (clean.commit, True)


def test_what_is_not_there_is_unknown_and_not_clean(tmp_path):
    assert environment.describe_git(tmp_path) == (None, None)
    assert environment.version_of("no-such-package-anywhere") is None
