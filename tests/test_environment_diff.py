"""What differs from the machine of a run is told by name, and rules out what it must."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.bench.environment import describe_environment
from psannlm.bench.provenance import describe_git
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Evidence
from psannlm.rerun.outcome import Differing, environment_diff, refuse_other_text

HERE = describe_environment(torch.device("cpu"))
PACKAGES = HERE["software"]["packages"]
MANY_THREADS = HERE["settings"] | {"threads": 99}


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


def software(**versions: str) -> dict[str, Any]:
    return HERE["software"] | {"packages": PACKAGES | versions}


@pytest.mark.parametrize(
    ("changes", "differing", "same_device", "same_digits"),
    [
        ({}, [], True, True),
        ({"settings": MANY_THREADS}, ["threads"], True, False),
        ({"software": software(matplotlib="0.1")}, ["matplotlib"], True, True),
        ({"software": software(torch="0.1")}, ["torch"], True, False),
        ({"device": "Another CPU, 64 cores"}, ["device"], False, False),
    ],
    ids=["nothing", "threads", "a package that computes nothing", "torch", "another device"],
)
def test_what_differs_is_named_and_rules_out_what_it_must(
    changes, differing, same_device, same_digits
):
    found = environment_diff(run_of(**changes))

    assert [fact.name for fact in found.differing] == differing
    assert (found.same_device, found.same_digits) == (same_device, same_digits)
    assert found.then["load_1min"] == 0.25


def test_a_difference_is_told_with_both_values():
    settings = MANY_THREADS | {"variables": {"OMP_TEST": "3"}}

    found = environment_diff(run_of(software=software(torch="1.0"), settings=settings))

    told = {fact.name: fact for fact in found.differing}
    assert told["torch"] == Differing("torch", "1.0", PACKAGES["torch"])
    assert told["threads"].published == "99"
    assert told["variable OMP_TEST"] == Differing("variable OMP_TEST", "3", "absent")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for what is missing without a GPU")
def test_a_kind_of_device_that_is_not_here_is_refused():
    with pytest.raises(ConfigError, match=r"made_up was measured on NVIDIA H200 \(cuda\), and"):
        environment_diff(run_of(device="NVIDIA H200", device_type="cuda"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sample", r"sample.txt has sha256 .* corpus build sample"),
        ("none", r"none.txt is missing.* corpus build none"),
    ],
)
def test_another_text_and_a_missing_one_are_refused_with_the_way_out(name, message):
    with pytest.raises(ConfigError, match=message):
        refuse_other_text(run_of({"path": f"datasets/lm/{name}.txt", "sha256": "c" * 64}))
    refuse_other_text(run_of(None))
