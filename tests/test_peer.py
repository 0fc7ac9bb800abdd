"""The published package is installed apart and counted there, or a record says why not."""

import zipfile
from pathlib import Path

import pytest
import torch

from psannlm import CACHE
from psannlm.bench import processes
from psannlm.config.schema import ConfigError
from psannlm.pages.peer import package as peer
from psannlm.pages.peer.package import environment, measure_peer
from tests.synthetic_memory import memory_config

CONFIG = memory_config(peer="psannlm==9.9.9", precision=("fp32", "bf16"))


def wheel(folder: Path, files: dict[str, str], version: str = "9.9.9") -> None:
    """An installable package `psannlm` of these files."""
    info = f"psannlm-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: psannlm\nVersion: {version}\n"
        "Requires-Dist: torch\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"psannlm-{version}-py3-none-any.whl", "w") as archive:
        for name, text in (files | {f"{info}/RECORD": listed}).items():
            archive.writestr(name, text)


@pytest.fixture
def index(tmp_path, monkeypatch) -> Path:
    """A folder of packages, the only one that is looked into."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


NETWORK = """
from dataclasses import dataclass
from torch import nn


@dataclass
class ResPSANNTransformerConfig:
    vocab_size: int
    d_model: int
    n_layers: int
    n_heads: int
    d_mlp: int
    positional_encoding: str
    attn_impl: str


class ResPSANNTransformer(nn.Sequential):
    def __init__(self, config):
        super().__init__(
            nn.Embedding(config.vocab_size, config.d_model),
            nn.Linear(config.d_model, config.vocab_size, bias=False),
        )
"""


@pytest.mark.slow
def test_a_package_is_installed_once_and_counted_in_an_interpreter_of_its_own(index, tmp_path):
    empty = dict.fromkeys(["psannlm/__init__.py", "psannlm/lm/__init__.py"], "")
    empty["psannlm/lm/models/__init__.py"] = ""
    wheel(index, empty | {"psannlm/lm/models/transformer_respsann.py": NETWORK})

    one = memory_config(peer="psannlm==9.9.9", precision=("fp32",))
    [found] = measure_peer(one, cache=tmp_path / "peers")

    assert found.status == "ok", found.reason
    assert (found.package, found.version, found.precision) == ("psannlm", "9.9.9", "fp32")
    assert found.n_parameters == 2 * 64 * 16
    tokens, text, logits = 32, 2 * 17 * 8, 32 * 64 * 4
    # Besides, the targets in one piece and the sum of their weights.
    assert found.saved_bytes == text + tokens * 16 * 4 + logits + tokens * 8 + 4
    [made] = (tmp_path / "peers").iterdir()
    assert made.name == "psannlm-9.9.9"

    for package in index.iterdir():
        package.unlink()  # whoever installs again finds nothing

    assert environment("psannlm==9.9.9", tmp_path / "peers").is_relative_to(made)


@pytest.mark.slow
def test_a_package_that_is_not_found_is_a_record_and_leaves_nothing(index, tmp_path):
    records = list(measure_peer(CONFIG, cache=tmp_path / "peers"))

    assert [record.status for record in records] == ["failed", "failed"]
    [reason] = {record.reason for record in records}
    assert reason.startswith("cannot install psannlm==9.9.9: ERROR: No matching distribution")
    assert "\n" not in reason
    assert list((tmp_path / "peers").iterdir()) == []


@pytest.fixture
def installed(monkeypatch):
    """Installs nothing, and counts how often it would have."""
    made = []

    def install(requirement: str, folder: Path) -> None:
        folder.mkdir()
        made.append(requirement)

    monkeypatch.setattr(peer, "_install", install)
    return made


def test_an_environment_is_made_anew_when_what_it_was_made_for_has_changed(
    installed, tmp_path, monkeypatch
):
    python = environment("psannlm==1.0", tmp_path)
    environment("psannlm==1.0", tmp_path)
    environment("psannlm==2.0", tmp_path)
    assert installed == ["psannlm==1.0", "psannlm==2.0"]

    monkeypatch.setattr(torch, "__version__", "0.0")
    assert environment("psannlm==1.0", tmp_path) == python

    assert installed[2:] == ["psannlm==1.0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["psannlm-1.0", "psannlm-2.0"]


def test_half_an_environment_is_not_used(installed, tmp_path):
    (tmp_path / "psannlm-1.0" / "bin").mkdir(parents=True)

    environment("psannlm==1.0", tmp_path)

    assert installed == ["psannlm==1.0"]
    assert [p.name for p in (tmp_path / "psannlm-1.0").iterdir()] == [peer.STAMP]


@pytest.mark.parametrize("requirement", ["psannlm", "psannlm>=2", "../x==1", "a==", "a==-e .."])
def test_a_requirement_names_one_version(requirement, installed, tmp_path):
    with pytest.raises(ConfigError, match="peer must be NAME==VERSION"):
        environment(requirement, tmp_path)

    assert installed == []


def test_no_peer_means_no_record(tmp_path):
    assert list(measure_peer(memory_config(peer=""), cache=tmp_path)) == []


def test_what_cannot_fit_is_a_record(installed, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: 10)

    [record, _] = measure_peer(CONFIG, cache=tmp_path)

    assert record.reason.startswith("out of memory: needs at least")
    assert installed == []


def test_the_process_measures_the_shape_of_the_main_cells(installed, tmp_path, monkeypatch):
    asked = []

    def run_task(task, **options):
        asked.append(task)
        return [{"mode": "saved", "status": "failed", "reason": "pretended"}]

    monkeypatch.setattr(peer, "run_task", run_task)

    [record, _] = measure_peer(CONFIG, cache=tmp_path)

    assert record.reason == "pretended"
    assert (record.context_length, record.batch_tokens) == (16, 32)
    assert (asked[0].batch, asked[0].tokens, asked[0].d_mlp) == (2, 16, 32)
    assert [task.precision for task in asked] == ["fp32", "bf16"]
    assert asked[0].worker[:2] == (str(tmp_path / "psannlm-9.9.9" / "bin" / "python"), "-I")


@pytest.mark.slow
def test_the_published_package_keeps_what_it_is_known_to_keep():
    if not (CACHE / "peers" / "psannlm-2.0.1" / peer.STAMP).exists():
        pytest.skip("psannlm 2.0.1 is not installed in the cache")
    medium = memory_config(
        peer="psannlm==2.0.1", vocab_size=32000, d_model=512, n_layers=8, n_heads=8, d_mlp=2048,
        context_length=512, batch_tokens=(512,), contexts=(), precision=("fp32", "bf16"),
    )  # fmt: skip

    fp32, bf16 = measure_peer(medium)

    assert fp32.saved_bytes == pytest.approx(380 * 2**20, rel=0.01)
    assert bf16.saved_bytes == pytest.approx(390 * 2**20, rel=0.01)
