"""What differs from the machine of a run is told by name, and rules out what it must."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.bench.environment import describe_environment, describe_git
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Evidence
from psannlm.rerun.environment_diff import Differing, environment_diff, refuse_other_text

HERE = describe_environment(torch.device("cpu"))


@pytest.fixture(autouse=True)
def _same_variables(monkeypatch):
    """What a library of another test set for its own sake is no difference of machines."""
    for name in {*os.environ} - {*HERE["settings"]["variables"]}:
        if name.startswith(("OMP_", "MKL_", "KMP_")):
            monkeypatch.delenv(name)


def run_of(corpus: dict[str, str] | None = None, **changes: Any) -> Evidence:
    """A run on this machine and code, but for changes of its environment."""
    manifest = {
        "environment": HERE | changes,
        "git": describe_git(),
        "conditions": {"start": {"load_1min": 0.25}},
        "corpus": corpus,
    }
    return Evidence(Path("reports/benchmarks/made_up"), manifest)


def test_on_the_same_machine_nothing_differs():
    found = environment_diff(run_of())

    assert found.differing == ()
    assert found.same_device
    assert found.same_digits
    assert found.then["load_1min"] == 0.25


def test_another_package_and_another_number_of_threads_are_named():
    software = HERE["software"]
    packages = software["packages"] | {"torch": "1.0", "numpy": "0.1"}
    changes = {
        "software": software | {"packages": packages},
        "settings": HERE["settings"] | {"threads": 99, "variables": {"OMP_TEST": "3"}},
    }

    found = environment_diff(run_of(**changes))

    told = {fact.name: fact for fact in found.differing}
    now = HERE["software"]["packages"]
    assert told["torch"] == Differing("torch", "1.0", now["torch"])
    assert told["numpy"].published == "0.1"
    assert told["threads"].published == "99"
    assert told["variable OMP_TEST"] == Differing("variable OMP_TEST", "3", "absent")
    assert found.same_device
    assert not found.same_digits


def test_threads_alone_rule_out_the_same_digits():
    found = environment_diff(run_of(settings=HERE["settings"] | {"threads": 99}))

    assert found.same_device
    assert not found.same_digits


def test_another_package_that_computes_nothing_leaves_the_digits():
    software = HERE["software"]
    packages = software["packages"] | {"matplotlib": "0.1"}

    found = environment_diff(run_of(software=software | {"packages": packages}))

    assert [fact.name for fact in found.differing] == ["matplotlib"]
    assert found.same_digits


def test_on_another_device_speeds_are_not_comparable():
    found = environment_diff(run_of(device="Another CPU, 64 cores"))

    assert not found.same_device
    assert not found.same_digits


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is missing without a GPU")
def test_a_kind_of_device_that_is_not_here_is_refused():
    run = run_of(device="NVIDIA H200", device_type="cuda")

    with pytest.raises(ConfigError, match=r"made_up was measured on NVIDIA H200 \(cuda\), and"):
        environment_diff(run)


def test_another_text_and_a_missing_one_are_refused_with_the_way_out():
    other = {"path": "datasets/lm/sample.txt", "sha256": "c" * 64}
    missing = {"path": "datasets/lm/none.txt", "sha256": "c" * 64}

    with pytest.raises(ConfigError, match=r"sample.txt has sha256 .* corpus build sample"):
        refuse_other_text(run_of(other))
    with pytest.raises(ConfigError, match=r"none.txt is missing.* corpus build none"):
        refuse_other_text(run_of(missing))
    refuse_other_text(run_of(None))
