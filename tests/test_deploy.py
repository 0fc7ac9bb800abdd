"""What the project is installed by fits together; the recipes for clusters do what they say."""

import json
import os
import re
import socket
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from psannlm import ROOT
from tests.tiny_trainings import training_config, write_text

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def pinned(text):
    """Requirements of a file, but for options and continuation lines, by name."""
    lines = (re.sub(r"\s*(\\|#.*)$", "", line) for line in text.splitlines())
    found = [Requirement(line) for line in lines if line[:1].isalpha()]
    return {canonicalize_name(one.name): one for one in found}


PINNED = pinned((ROOT / "requirements.txt").read_text())


def test_what_pyproject_lets_in_is_what_is_pinned():
    for text in PROJECT["dependencies"]:
        needed = Requirement(text)
        [version] = [spec.version for spec in PINNED[canonicalize_name(needed.name)].specifier]
        assert needed.specifier.contains(version), text


def test_the_lock_has_every_pin_but_torch_by_its_hashes_and_no_host():
    locked = pinned(LOCK)
    assert set(PINNED) - set(locked) == {"torch"}
    assert not [name for name in PINNED if name in locked and PINNED[name] != locked[name]]
    assert all("--hash=sha256:" in entry for entry in re.split(r"\n(?=\w)", LOCK)[1:])
    assert "://" not in LOCK


@pytest.mark.parametrize("version", [(3, 10), (3, 15)])
def test_a_python_that_torch_has_no_wheels_for_is_refused_before_anything_is_made(
    tmp_path, version
):
    python = tmp_path / "python"
    said = f"import sys; sys.version_info = {version}; exec(sys.argv[2])"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{said}" "$@"\n')
    python.chmod(0o755)
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    for name in ("requirements.txt", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).touch()
    done = subprocess.run(
        ["make", "setup", f"PYTHON={python}"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode
    assert "Python 3.11 to 3.14" in done.stderr
    assert f"this is {version[0]}.{version[1]}" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_the_container_of_the_editor_is_built_from_the_image_and_its_user():
    folder = ROOT / ".devcontainer"
    told = json.loads((folder / "devcontainer.json").read_text())
    image = (folder / told["build"]["dockerfile"]).read_text()
    assert f"USER {told['remoteUser']}" in image
    assert (folder / told["build"]["context"]).resolve() == ROOT


@pytest.fixture
def cluster(tmp_path):
    """Runs a batch script as a cluster of two nodes would, both of them this machine."""
    commands = {
        "scontrol": "echo localhost; echo localhost",
        # One task a node, all at once; srun fails if a task does.
        "srun": 'for n in $(seq "$SLURM_NNODES"); do "$@" & jobs="$jobs $!"; done; '
        'for job in $jobs; do wait "$job" || exit 1; done',
    }
    for name, body in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    tools = tmp_path / ".venv" / "bin"
    tools.mkdir(parents=True)
    for name, module in {"python": "", "torchrun": "-m torch.distributed.run "}.items():
        (tools / name).write_text(f'#!/bin/bash\nexec {sys.executable} {module}"$@"\n')
        (tools / name).chmod(0o755)

    def submit(script, *arguments, nodes, **variables):
        own = {
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT),
            "SLURM_SUBMIT_DIR": str(tmp_path), "SLURM_NNODES": str(nodes), "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-2]", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        return subprocess.run(
            ["bash", str(ROOT / "deploy" / script), *arguments],
            env=os.environ | own | variables, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    return submit


@pytest.mark.slow
def test_a_training_on_two_nodes_is_one_training_and_goes_on_when_submitted_again(
    cluster, tmp_path
):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    write_text(tmp_path)
    config = training_config(corpus=str(tmp_path / "text.txt"), epochs=1)
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    options = {"nodes": 2, "PROCESSES": "1", "PORT": str(port)}
    done = cluster("train.sbatch", "two.yaml", **options)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "checkpoints" / "two_7"
    assert done.stdout.count("validation: loss") == 1
    assert str(folder.name) in done.stdout
    found = json.loads((folder / "metrics.json").read_text())
    assert found["n_ranks"] == 2
    steps = (folder / "loss.csv").read_text()
    again = cluster("train.sbatch", "two.yaml", **options)
    assert again.returncode == 0, again.stderr
    assert (folder / "loss.csv").read_text() == steps


@pytest.mark.slow
def test_a_preset_on_a_cluster_is_the_command_of_the_readme(cluster, tmp_path):
    done = cluster("report.sbatch", nodes=1, PRESET="no_such_preset")
    assert done.returncode
    assert "error: " in done.stderr
    assert "no_such_preset" in done.stderr
