"""What differs from the machine of a run is told by name, and rules out what it must."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.bench import environment
from psannlm.bench.environment import PREFIXES, WITHHELD, describe_environment
from psannlm.bench.provenance import describe_git
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Evidence
from psannlm.rerun.difference import Differing, after, environment_diff, lines
from psannlm.rerun.outcome import refuse_other_text

HERE = describe_environment(torch.device("cpu"))
CPU, PACKAGES, SETTINGS = HERE["cpu"], HERE["software"]["packages"], HERE["settings"]
QUIET = SETTINGS | {"variables": SETTINGS["variables"] | {"KMP_BLOCKTIME": "0"}}


@pytest.fixture(autouse=True)
def _same_variables(monkeypatch):
    """What a library of another test set for its own sake is no difference of machines."""
    for name in {*os.environ} - {*SETTINGS["variables"]}:
        if name.startswith(PREFIXES):
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
    ("changes", "differing", "no_verdict", "same_digits"),
    [
        ({}, {}, "", True),
        ({"settings": SETTINGS | {"threads": 99}}, {"threads": "99"}, "other settings", False),
        ({"settings": QUIET}, {"variable KMP_BLOCKTIME": "0"}, "other settings", False),
        ({"software": software(matplotlib="0.1")}, {"matplotlib": "0.1"}, "", True),
        ({"software": software(torch="0.1")}, {"torch": "0.1"}, "", False),
        ({"device": "A, 64 cores"}, {"device": "A, 64 cores"}, "another machine", False),
        ({"cpu": CPU | {"family": "0"}}, {"cpu family": "0"}, "another machine", False),
        ({"cpu": CPU | {"stepping": "0"}}, {"cpu stepping": "0"}, "another machine", True),
        ({"cpu": CPU | {"memory_limit_mib": 1}}, {"cpu memory_limit_mib": "1"}, "another machine",
         True),
        ({"cpu": {k: v for k, v in CPU.items() if k != "stepping"}}, {}, "", True),
    ],
    ids=[
        "nothing", "threads", "a variable", "a package that computes nothing", "torch",
        "another device", "another family", "another stepping", "less memory", "a fact not known",
    ],
)  # fmt: skip
def test_what_differs_is_named_and_rules_out_what_it_must(
    changes, differing, no_verdict, same_digits
):
    diff = environment_diff(run_of(**changes))

    assert {name: published for name, published, _ in diff.differing} == differing
    assert all(here != published for _, published, here in diff.differing)
    assert (diff.no_verdict, diff.same_digits) == (no_verdict, same_digits)
    assert diff.then["start"]["load_1min"] == 0.25


def test_every_package_is_compared_and_those_that_compute_by_name():
    changed = {f"package-{n}": "1" for n in range(9)} | {"nvidia-cublas": "1", "torch": "1"}
    here = HERE["software"] | {"distributions": HERE["software"]["distributions"] | changed}

    computing, others = environment_diff(run_of(software=here)).differing

    assert computing == Differing("package nvidia-cublas", "1", "absent")
    assert others.published.startswith("package-0 1, package-1 1, ")
    assert others.published.endswith(", and 3 more")


@pytest.mark.parametrize(
    ("name", "value", "published"),
    [
        ("OMP_PLACES", "{0:4},{4:4}", None),
        ("KMP_AFFINITY", "explicit,proclist=[0,3]", None),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=1", None),
        ("CUDA_VISIBLE_DEVICES", f"GPU-{'a1b2c3d4-' * 4}", None),
        ("LD_PRELOAD", "/srv/jane/lib/libjemalloc.so.2 /x/y.so", "libjemalloc.so.2:y.so"),
        ("TORCH_HOME", "/srv/jane/models", WITHHELD),
        ("CUDA_CACHE_PATH", "C:\\Users\\jane", WITHHELD),
        ("NVIDIA_API_KEY", "short", WITHHELD),
        ("TORCH_TOKEN", "short", WITHHELD),
        ("NCCL_SOCKET", "10.1.2.3:4444", WITHHELD),
        ("NCCL_COMM_ID", "node7:4444", WITHHELD),
        ("TORCH_OPAQUE", "a1" * 30, WITHHELD),
        ("OMP_NOTE", "jane@example.org", WITHHELD),
    ],
)
def test_a_variable_is_published_without_paths_secrets_and_addresses(
    name, value, published, monkeypatch
):
    monkeypatch.setenv(name, value)

    variables = describe_environment(torch.device("cpu"))["settings"]["variables"]
    assert variables[name] == (published or value)


def test_what_others_did_is_told_of_both_sides():
    run = run_of()
    run.manifest["conditions"]["during"] = {"others_cores": 0.25, "steal_share": None}

    report = "\n".join(lines(after(environment_diff(run))))

    assert "load of the minute before measuring: 0.25 when published, " in report
    assert "cores busy with other work before measuring: unknown when published, " in report
    assert "cores busy with other work while measuring: 0.25 when published, " in report


def test_a_repeat_has_no_more_threads_than_usable_cores(monkeypatch):
    limited = []
    monkeypatch.setattr(environment, "use_usable_cores", lambda: limited.append(True))

    environment_diff(run_of())

    assert limited


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
