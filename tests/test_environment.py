"""The machine is described without guesses, and without names of hosts or folders."""

import json
import subprocess

import pytest
import torch

from psannlm.bench import environment
from psannlm.config import ConfigError

CPU = torch.device("cpu")


def test_the_description_is_json_and_names_what_matters():
    described = json.loads(json.dumps(environment.describe_environment(CPU)))

    assert described["software"]["packages"]["torch"] == torch.__version__
    assert described["settings"]["threads"] == torch.get_num_threads()
    assert described["cpu"]["cores"] >= 1
    assert described["gpu"] is None


def test_cuda_without_a_device_is_refused_with_the_way_out(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    with pytest.raises(ConfigError, match="use device: cpu or auto"):
        environment.select_device("cuda")


def test_auto_takes_the_cpu_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert environment.select_device("auto") == CPU


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)

    assert environment.missing_compiler(CPU) == (
        "no C++ compiler found (looked for g++, clang++, c++)"
    )


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


def test_a_folder_without_git_is_unknown_not_clean(tmp_path):
    assert environment.describe_git(tmp_path) == (None, None)


def test_an_uninstalled_package_has_no_version():
    assert environment.version_of("no-such-package-anywhere") is None
