"""The plan of a comparison, its processes, the package that is installed apart, what is resumed."""

import itertools
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import torch

from psannlm import CACHE
from psannlm.bench import processes
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Session
from psannlm.pages.peer import package as peer_package
from psannlm.pages.peer import plan as peer_plan
from psannlm.pages.peer.package import environment
from psannlm.pages.peer.page import PAGE
from psannlm.pages.peer.plan import (
    WORKER,
    SideTask,
    compare,
    plan,
    protocol,
    protocol_plan,
    saved_bytes,
)
from psannlm.pages.peer.records import AGAIN, OURS, PUBLISHED, SIDES
from tests.peers import peer_config, side_task
from tests.synthetic import start_manifest

CONFIG = peer_config(precision=("fp32", "bf16"), n_repeats=3)


def test_every_block_has_every_cell_once():
    cells = plan(CONFIG)

    seen = Counter((c.repeat, c.side, c.base, c.setting, c.precision) for c in cells)
    assert set(seen.values()) == {1}
    assert len(cells) == 3 * 3 * 2 * 2 * 2
    assert [c.order for c in cells] == list(range(len(cells)))
    assert [c.repeat for c in cells] == sorted(c.repeat for c in cells)


@pytest.fixture
def started(monkeypatch):
    """What would have run, each answered with a success."""
    tasks = []

    def run_task(task, **options):
        tasks.append((task, options))
        values = dict.fromkeys(("rel_diff", "tokens_per_s", "saved_mib"), (1.5, ""))
        values["max_allocated_mib"] = (None, "no peak here")
        found = {"status": "ok", "reason": "", "seconds": [0.5, 0.25], "tokens": 16}
        if task.modes[0].startswith("GPU"):
            found = {"status": "ok", "reason": "", "values": values}
        return [found | {"mode": mode, "started_at": "now"} for mode in task.modes]

    monkeypatch.setattr(peer_plan, "run_task", run_task)
    monkeypatch.setattr(peer_plan, "environment", lambda requirement, cache: cache / "python")
    return tasks


@pytest.fixture
def failing(monkeypatch):
    """Lets the installation fail with an error; tells how often it was tried."""
    tries = []

    def fail_with(error: Exception) -> list[str]:
        def install(requirement, cache):
            tries.append(requirement)
            raise error

        monkeypatch.setattr(peer_plan, "environment", install)
        return tries

    return fail_with


def test_a_cell_leaves_a_record_a_work_with_its_place(started, tmp_path):
    cells = list(compare(CONFIG, cache=tmp_path))

    records = [record for cell in cells for record in cell]
    assert {len(cell) for cell in cells} == {len(CONFIG.work)}
    assert len({record.key for record in records}) == len(records)
    planned = [(c.repeat, c.order, c.side, c.base, c.setting, c.precision) for c in plan(CONFIG)]
    assert planned == [
        (r.repeat, r.order, r.side, r.base, r.setting, r.precision) for [r, *_] in cells
    ]
    assert {r.amount for r in records if r.work != "saved"} == {2 * 16 / 0.75}
    assert {(r.batch_tokens, r.context_length) for r in records} == {(16, 8)}


def test_a_process_is_told_its_network_batch_and_setting_and_its_interpreter(started, tmp_path):
    list(compare(CONFIG, cache=tmp_path))

    for cell, (task, options) in zip(plan(CONFIG), started, strict=True):
        assert task.python == (str(tmp_path / "python") if cell.side == PUBLISHED else "")
        assert (task.setting, task.precision) == (cell.setting, cell.precision)
        assert task.model == CONFIG.network_of(cell.base).model_dump()
        assert (task.batch, task.tokens, task.device) == (2, 8, "cpu")
        assert (task.modes, task.min_steps) == (CONFIG.work, CONFIG.min_steps)
        assert options["timeout_seconds"] == CONFIG.timeout_seconds
    caches = {
        cell.side: options["cache"]
        for cell, (_, options) in zip(plan(CONFIG), started, strict=True)
    }
    assert caches[OURS] == caches[AGAIN] != caches[PUBLISHED], "another package's compiled code"


def test_both_interpreters_run_the_same_script_and_neither_looks_beside_it():
    ours, other = SideTask(**side_task()), SideTask(**side_task(python="other/python"))

    assert ours.worker == (sys.executable, "-P", str(WORKER))
    assert other.worker == ("other/python", "-I", str(WORKER))
    assert WORKER.exists()


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ConfigError("cannot install psannlm==9.9.9: no network"), "cannot install psannlm==9.9"),
        (OSError("disk is full"), "OSError: disk is full"),
        (subprocess.TimeoutExpired("pip", 600), "TimeoutExpired: Command 'pip' timed out"),
    ],
)
def test_a_package_that_cannot_be_installed_is_tried_once_and_ours_is_measured(
    error, reason, started, failing, tmp_path
):
    tries = failing(error)

    records = [record for cell in compare(CONFIG, cache=tmp_path) for record in cell]

    assert tries == ["psannlm==9.9.9"]
    for record in records:
        failed = record.side == PUBLISHED
        assert record.status == ("failed" if failed else "ok")
        assert record.reason.startswith(reason) if failed else record.reason == ""
    assert {r.side for r in records} == set(SIDES)
    assert all(r.started_at for r in records)


def test_what_cannot_fit_is_not_tried(started, tmp_path, monkeypatch):
    one = peer_config(base="respsann", setting="best", n_repeats=1)
    needed = 2 * 16 * CONFIG.vocab_size
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: needed - 1)

    records = [record for cell in compare(one, cache=tmp_path) for record in cell]

    assert started == []
    assert [r.work for r in records] == [*one.work] * 3
    assert all(r.reason.startswith("out of memory: needs at least") for r in records)
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: needed)
    assert len(list(compare(one, cache=tmp_path))) == len(started) == 3


def test_what_is_done_is_not_measured_again_unless_a_work_is_missing(started, tmp_path):
    first, second = plan(CONFIG)[:2]
    done = {
        (c.repeat, c.side, c.base, c.setting, work, c.precision)
        for c in (first, second)
        for work in CONFIG.work
    }
    done -= {(second.repeat, *second[2:5], "saved", second.precision)}

    found = [cell[0].order for cell in compare(CONFIG, done=done, cache=tmp_path)]

    assert found == [c.order for c in plan(CONFIG)[1:]]


def test_saved_bytes_are_asked_of_the_published_package_alone(started, tmp_path):
    found = list(saved_bytes(CONFIG, cache=tmp_path))

    assert [r.precision for r in found] == ["fp32", "bf16"]
    asked = {(task.python, task.modes, task.setting, task.model["base"]) for task, _ in started}
    assert asked == {(str(tmp_path / "python"), ("saved",), "defaults", "respsann")}


def test_the_protocol_repeats_each_check_on_both_sides(started, tmp_path):
    asked = peer_config(protocol_batch_tokens=(1024, 8192))

    cells = [cell for process in protocol(asked, cache=tmp_path) for cell in process]

    seen = Counter((c.check, c.batch_tokens, c.context_length, c.measure) for c in cells)
    assert seen == dict.fromkeys(
        [
            ("GPU-02", 13, 13, "rel_diff"),
            ("GPU-03", 1024, 256, "tokens_per_s"),
            ("GPU-03", 8192, 4096, "tokens_per_s"),
            ("GPU-04", 64, 64, "max_allocated_mib"),
            ("GPU-04", 64, 64, "max_reserved_mib"),
            ("GPU-04", 64, 64, "saved_mib"),
            ("GPU-04", 64, 64, "elapsed_s"),
        ],
        2 * 2,
    )
    assert {c.side for c in cells} == {OURS, PUBLISHED}
    assert {(t.batch, t.tokens) for t, _ in started} == {(1, 13), (4, 256), (2, 4096), (1, 64)}
    assert {t.setting for t, _ in started} == {"defaults"}
    assert {c.value for c in cells if c.measure == "rel_diff"} == {1.5}
    peaks = {(c.value, c.reason) for c in cells if c.measure == "max_allocated_mib"}
    assert peaks == {(None, "no peak here")}
    assert list(protocol(asked, done={cell.key for cell in cells}, cache=tmp_path)) == []
    assert protocol_plan(peer_config(protocol_batch_tokens=())) == []


def test_the_protocol_of_a_package_that_cannot_be_installed_is_failed_records(
    started, failing, tmp_path
):
    failing(ConfigError("no network"))
    asked = peer_config(protocol_batch_tokens=(1024,))

    cells = [cell for process in protocol(asked, cache=tmp_path) for cell in process]

    failed = [c for c in cells if c.side == PUBLISHED]
    assert len(failed) == len(cells) / 2 == 2 * 6
    assert {(c.status, c.value, c.reason) for c in failed} == {("failed", None, "no network")}


def test_a_killed_run_goes_on_where_it_broke_off(started, tmp_path, monkeypatch):
    config = peer_config(
        base="respsann", setting="best", work="forward", protocol_batch_tokens=(1024,)
    )
    run = Run.start("benchmarks", start_manifest("peer", config), reports=tmp_path)
    n_processes = PAGE.total(config)
    assert n_processes == 2 * 3 + 3 * 2

    whole = type(PAGE).measure
    for n_done in (2, 8):  # in the comparison, and in the protocol
        session = Session(PAGE, config, run, torch.device("cpu"))
        with monkeypatch.context() as patch:
            n_left = n_done - len(started)
            patch.setattr(PAGE, "measure", lambda s, n=n_left: interrupted(whole(PAGE, s), n))
            with pytest.raises(KeyboardInterrupt):
                session.measure()
        assert len(started) == n_done
        run = Run.resume(run.folder, run.manifest)
    session = Session(PAGE, config, run, torch.device("cpu"))
    session.measure()

    assert len(started) == n_processes
    assert list(session.tables["peer.csv"]["n_ok"]) == [2] * 3
    assert len(session.tables["protocol.csv"]) == 2 * 6


def interrupted(batches, n):
    """The first n batches; whoever asks for another is interrupted."""
    yield from itertools.islice(batches, n)
    raise KeyboardInterrupt


# The package's environment.


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


INTERFACE = """
import dataclasses
from types import SimpleNamespace
from torch import nn


@dataclasses.dataclass
class Config:
    vocab_size: int
    d_model: int
    positional_encoding: str = ""
    attention_implementation: str = "math"


def psannLM(*, base, vocab_size, d_model, **shape):
    return SimpleNamespace(config=Config(vocab_size, d_model))


def build_lm_model(config):
    model = nn.Sequential(
        nn.Embedding(config.vocab_size, config.d_model),
        nn.Linear(config.d_model, config.vocab_size, bias=False),
    )
    return SimpleNamespace(model=model)
"""


@pytest.mark.slow
def test_a_package_is_installed_once_and_counted_in_an_interpreter_of_its_own(index, tmp_path):
    wheel(index, {"psannlm/__init__.py": INTERFACE})

    [found] = saved_bytes(peer_config(), cache=tmp_path / "peers")

    assert found.status == "ok", found.reason
    assert found.choices.startswith("math attention; loss of all logits; eager")
    assert found.n_parameters == 2 * 24 * 8
    tokens, embedded, log_probabilities, targets = 16 * 8, 16 * 8 * 4, 16 * 24 * 4, 16 * 8
    # Besides, the sum of the targets' weights.
    assert found.saved_bytes == tokens + embedded + log_probabilities + targets + 4
    [made] = (tmp_path / "peers").iterdir()
    assert made.name == "psannlm-9.9.9"

    for package in index.iterdir():
        package.unlink()  # whoever installs again finds nothing

    assert environment("psannlm==9.9.9", tmp_path / "peers").is_relative_to(made)


@pytest.mark.slow
def test_a_package_that_is_not_found_is_a_record_and_leaves_nothing(index, tmp_path):
    [record] = saved_bytes(peer_config(), cache=tmp_path / "peers")

    assert record.status == "failed"
    assert record.reason.startswith(
        "cannot install psannlm==9.9.9: ERROR: No matching distribution"
    )
    assert "\n" not in record.reason
    assert list((tmp_path / "peers").iterdir()) == []


@pytest.fixture
def installed(monkeypatch):
    """Installs nothing, and counts how often it would have."""
    made = []

    def install(requirement: str, folder: Path) -> None:
        folder.mkdir()
        made.append(requirement)

    monkeypatch.setattr(peer_package, "_install", install)
    return made


def test_an_environment_is_made_anew_when_what_it_was_made_for_has_changed(
    installed, tmp_path, monkeypatch
):
    (tmp_path / "psannlm-1.0" / "bin").mkdir(parents=True)  # half an environment is none
    python = environment("psannlm==1.0", tmp_path)
    environment("psannlm==1.0", tmp_path)
    environment("psannlm==2.0", tmp_path)
    assert installed == ["psannlm==1.0", "psannlm==2.0"]

    monkeypatch.setattr(torch, "__version__", "0.0")
    assert environment("psannlm==1.0", tmp_path) == python

    assert installed[2:] == ["psannlm==1.0"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["psannlm-1.0", "psannlm-2.0"]
    assert [p.name for p in (tmp_path / "psannlm-1.0").iterdir()] == [peer_package.STAMP]


@pytest.mark.parametrize("requirement", ["psannlm", "psannlm>=2", "../x==1", "a==", "a==-e .."])
def test_a_requirement_names_one_version(requirement, installed, tmp_path):
    with pytest.raises(ConfigError, match="peer must be NAME==VERSION"):
        environment(requirement, tmp_path)

    assert installed == []


@pytest.mark.slow
def test_our_side_is_measured_for_real(failing, tmp_path):
    failing(ConfigError("no network"))
    one = peer_config(base="sgrpsann", setting="defaults", n_repeats=1, precision="bf16")

    records = {(r.side, r.work): r for cell in compare(one, cache=tmp_path) for r in cell}

    for side in (OURS, AGAIN):
        for work in one.work:
            assert records[side, work].status == "ok", records[side, work].reason
        assert len(records[side, "forward"].seconds) >= 2
        assert records[side, "generate"].tokens == 5
    assert records[OURS, "saved"].saved_bytes == records[AGAIN, "saved"].saved_bytes > 0
    assert {r.status for (side, _), r in records.items() if side == PUBLISHED} == {"failed"}


@pytest.mark.slow
def test_the_published_package_is_measured_for_real(monkeypatch):
    if not (CACHE / "peers" / "psannlm-2.0.1" / peer_package.STAMP).exists():
        pytest.skip("psannlm 2.0.1 is not installed in the cache")
    monkeypatch.setattr(peer_plan, "SIDES", (PUBLISHED,))
    one = peer_config(peer="psannlm==2.0.1", base="respsann", setting="defaults", n_repeats=1)
    medium = peer_config(
        peer="psannlm==2.0.1", vocab_size=32000, d_model=512, n_layers=8, n_heads=8, d_mlp=2048,
        context_length=512, batch_tokens=512, precision=("fp32", "bf16"), setting=("best",),
    )  # fmt: skip

    [records] = compare(one)
    fp32, bf16 = saved_bytes(medium)

    assert [(r.status, r.reason) for r in records] == [("ok", "")] * len(one.work)
    assert all(r.choices.startswith("math attention") for r in records)
    assert len({r.n_parameters for r in records}) == 1
    assert fp32.saved_bytes == pytest.approx(380 * 2**20, rel=0.01)
    assert bf16.saved_bytes == pytest.approx(390 * 2**20, rel=0.01)
