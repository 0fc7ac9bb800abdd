"""The plan of a comparison, its processes, the package that is installed apart, what is resumed."""

import itertools
import subprocess
import sys
import zipfile
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

from psannlm import CACHE
from psannlm.bench import processes
from psannlm.bench.statistics import Cell
from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Run
from psannlm.evidence.session import Session
from psannlm.evidence.store import of_type
from psannlm.pages.peer import plan as peer
from psannlm.pages.peer.page import PAGE
from psannlm.pages.peer.plan import WORKER, Setting, SideTask, environment, plan, protocol_plan
from psannlm.pages.peer.records import AGAIN, OURS, PUBLISHED, SIDES, PeerCell, ProtocolCell
from tests import stand_in
from tests.pages import open_session
from tests.peers import peer_config, side_task


def config_of(**changes):
    values = {"work": ("forward", "train_step", "generate", "saved"), "n_repeats": 2}
    values |= {"peer": "psannlm==9.9.9", "protocol_batch_tokens": ()}
    return peer_config(**values | changes)


CONFIG = config_of(precision=("fp32", "bf16"), n_repeats=3)
ONE = config_of(base="respsann", setting="best", n_repeats=1)


@pytest.fixture(autouse=True)
def packages(tmp_path, monkeypatch):
    """Folder of the environments of packages."""
    monkeypatch.setattr(peer, "PACKAGES", tmp_path / "peers")
    return tmp_path / "peers"


def compare(config, **options):
    """All records of a comparison."""
    return list(itertools.chain(*peer.compare(config, **options)))


def protocol(config, **options):
    """All records of the original's own protocol."""
    return compare(config, cells=(), **options)


@pytest.fixture
def started(monkeypatch):
    """What would have run, each answered with a success."""
    tasks = []

    def run_task(task, **options):
        tasks.append((task, options))
        values = dict.fromkeys(("rel_diff", "tokens_per_s", "saved_mib"), (1.5, ""))
        values["max_allocated_mib"] = (None, "no peak here")
        found = {"status": "ok", "reason": "", "seconds": [0.5, 0.25], "tokens": 32}
        if task.modes[0].startswith("GPU"):
            found = {"status": "ok", "reason": "", "values": values}
        return [found | {"mode": mode, "started_at": "now"} for mode in task.modes]

    monkeypatch.setattr(peer, "run_task", run_task)
    monkeypatch.setattr(peer, "environment", lambda requirement: "some/python")
    return tasks


def failing(monkeypatch, error: Exception) -> Mock:
    """Lets the installation fail with an error."""
    install = Mock(side_effect=error)
    monkeypatch.setattr(peer, "environment", install)
    return install


def test_every_block_has_every_cell_once_and_each_leaves_a_record_a_work(started):
    cells = plan(CONFIG)
    seen = Counter((cell.repeat, cell.setting) for cell in cells)
    assert set(seen.values()) == {1}
    assert len(cells) == 3 * 3 * 2 * 2 * 2
    assert [c.order for c in cells] == list(range(len(cells)))
    assert [c.repeat for c in cells] == sorted(c.repeat for c in cells)

    records = compare(CONFIG)

    names = ("repeat", "order", *Setting._fields, "work")
    assert [tuple(getattr(record, name) for name in names) for record in records] == [
        (cell.repeat, cell.order, *cell.setting, work) for cell in cells for work in CONFIG.work
    ]
    assert {r.amount for r in records if r.work != "saved"} == {2 * 32 / 0.75}
    assert {(r.batch_tokens, r.context_length) for r in records} == {(32, 16)}


def test_a_process_is_told_its_network_batch_and_setting_and_its_interpreter(started):
    compare(CONFIG)

    caches = {}
    for cell, (task, options) in zip(plan(CONFIG), started, strict=True):
        side, base, setting, precision = cell.setting
        assert task.python == ("some/python" if side == PUBLISHED else "")
        assert (task.setting, task.precision) == (setting, precision)
        assert task.model == CONFIG.network_of(base).model_dump()
        assert (task.shape, task.device) == ((2, 16), "cpu")
        assert (task.modes, task.min_steps) == (CONFIG.work, CONFIG.min_steps)
        assert options["timeout_seconds"] == CONFIG.timeout_seconds
        caches[side] = options["cache"]
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
    error, reason, started, monkeypatch
):
    install = failing(monkeypatch, error)

    records = compare(config_of(protocol_batch_tokens=(1024,)))
    cells, protocol = of_type(PeerCell, records), of_type(ProtocolCell, records)

    install.assert_called_once_with("psannlm==9.9.9")
    for cell in (*cells, *protocol):
        assert cell.status == ("failed" if cell.side == PUBLISHED else "ok")
        assert cell.started_at
    assert {cell.side for cell in cells} == set(SIDES)
    assert all(cell.reason == "" for cell in cells if cell.status == "ok")
    failed = [cell for cell in protocol if cell.status == "failed"]
    assert len(failed) == len(protocol) / 2 == 2 * 6
    assert {cell.value for cell in failed} == {None}
    lost = [cell for cell in (*cells, *protocol) if cell.status == "failed"]
    assert all(cell.reason.startswith(reason) for cell in lost)


def test_what_cannot_fit_is_not_tried(started, monkeypatch):
    needed = 2 * 32 * ONE.vocab_size
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: needed - 1)

    records = compare(ONE)

    assert started == []
    assert [r.work for r in records] == [*ONE.work] * 3
    assert all(r.reason.startswith("out of memory: needs at least") for r in records)
    monkeypatch.setattr(processes, "available_memory_bytes", lambda device: needed)
    compare(ONE)
    assert len(started) == 3


def test_what_is_done_is_not_measured_again_unless_a_work_is_missing(started):
    first, second = plan(CONFIG)[:2]
    *place, precision = second.setting
    done = {record.key for record in compare(CONFIG, cells=[first, second])}
    done -= {(second.repeat, *place, "saved", precision)}

    orders = [record.order for record in compare(CONFIG, done=done)]

    assert list(dict.fromkeys(orders)) == [c.order for c in plan(CONFIG)[1:]]


def test_the_protocol_repeats_each_check_on_both_sides(started):
    asked = config_of(protocol_batch_tokens=(1024, 8192))

    cells = protocol(asked)

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
    assert {t.shape for t, _ in started} == {(1, 13), (4, 256), (2, 4096), (1, 64)}
    assert {t.setting for t, _ in started} == {"defaults"}
    assert {c.value for c in cells if c.measure == "rel_diff"} == {1.5}
    peaks = {(c.value, c.reason) for c in cells if c.measure == "max_allocated_mib"}
    assert peaks == {(None, "no peak here")}
    assert protocol(asked, done={cell.key for cell in cells}) == []
    assert protocol_plan(config_of(protocol_batch_tokens=())) == []


def test_a_killed_run_goes_on_where_it_broke_off(started, tmp_path, monkeypatch):
    config = config_of(base="respsann", setting="best", work="forward", protocol_batch_tokens=(32,))
    session = open_session(PAGE, config, tmp_path)
    whole = type(PAGE).measure

    for n_done in (2, 8):  # in the comparison, and in the protocol
        with monkeypatch.context() as patch:
            n_left = n_done - len(started)
            patch.setattr(PAGE, "measure", lambda s, n=n_left: interrupted(whole(PAGE, s), n))
            with pytest.raises(KeyboardInterrupt):
                session.measure()
        assert len(started) == n_done
        session.run.lock.release()
        run = Run.resume(session.run.folder, session.run.manifest)
        session = Session(PAGE, config, run, session.device)
    session.measure()

    assert len(started) == PAGE.total(config) == 2 * 3 + 3 * 2
    assert list(session.tables["peer.csv"]["n_ok"]) == [2] * 3
    assert len(session.tables["protocol.csv"]) == 2 * 6


def interrupted(batches, n):
    """The first n batches; whoever asks for another is interrupted."""
    yield from itertools.islice(batches, n)
    raise KeyboardInterrupt


# The package's environment.


@pytest.fixture
def wheel(tmp_path, monkeypatch) -> Path:
    """The stand-in as an installable package, in the only folder that is looked into."""
    info = "psannlm-9.9.9.dist-info"
    files = {
        "psannlm/__init__.py": Path(stand_in.__file__).read_text(),
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: psannlm\nVersion: 9.9.9\n"
        "Requires-Dist: torch\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = tmp_path / "index" / "psannlm-9.9.9-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


PUBLISHED_CELLS = [Cell(0, 0, Setting(PUBLISHED, "respsann", "defaults", "fp32"))]
SAVED = config_of(work="saved")


@pytest.mark.slow
def test_a_package_is_installed_once_and_counted_in_an_interpreter_of_its_own(wheel, packages):
    [found] = compare(SAVED, cells=PUBLISHED_CELLS)

    assert found.status == "ok", found.reason
    assert found.choices.startswith("math attention; loss of all logits; eager")
    assert found.n_parameters == 2 * 24 * 8
    tokens, embedded, log_probabilities, targets = 32 * 8, 32 * 8 * 4, 32 * 24 * 4, 32 * 8
    # Besides, the sum of the targets' weights.
    assert found.saved_bytes == tokens + embedded + log_probabilities + targets + 4
    [made] = packages.iterdir()
    assert made.name == "psannlm-9.9.9"

    wheel.unlink()  # whoever installs again finds nothing

    assert environment("psannlm==9.9.9").is_relative_to(made)


@pytest.mark.slow
def test_a_package_that_is_not_found_is_a_record_and_leaves_nothing(wheel, packages):
    wheel.unlink()

    [record] = compare(SAVED, cells=PUBLISHED_CELLS)

    assert record.status == "failed"
    assert record.reason.startswith("cannot install psannlm==9.9.9: pip ended with status 1: ")
    assert "No matching distribution" in record.reason
    assert "\n" not in record.reason
    assert list(packages.glob("*")) == []


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
    installed, packages, monkeypatch
):
    (packages / "psannlm-1.0" / "bin").mkdir(parents=True)  # half an environment is none
    python = environment("psannlm==1.0")
    environment("psannlm==1.0")
    environment("psannlm==2.0")
    assert installed == ["psannlm==1.0", "psannlm==2.0"]

    monkeypatch.setattr(torch, "__version__", "0.0")
    assert environment("psannlm==1.0") == python

    assert installed[2:] == ["psannlm==1.0"]
    assert sorted(p.name for p in packages.iterdir()) == ["psannlm-1.0", "psannlm-2.0"]
    assert [p.name for p in (packages / "psannlm-1.0").iterdir()] == [peer.STAMP]


@pytest.mark.parametrize("requirement", ["psannlm", "psannlm>=2", "../x==1", "a==", "a==-e .."])
def test_a_requirement_names_one_version(requirement, installed):
    with pytest.raises(ConfigError, match="peer must be NAME==VERSION"):
        environment(requirement)

    assert installed == []


@pytest.mark.slow
def test_our_side_is_measured_for_real(monkeypatch):
    failing(monkeypatch, ConfigError("no network"))
    one = config_of(base="sgrpsann", setting="defaults", n_repeats=1, precision="bf16")

    records = {(r.side, r.work): r for r in compare(one)}

    for side in (OURS, AGAIN):
        for work in one.work:
            assert records[side, work].status == "ok", records[side, work].reason
        assert len(records[side, "forward"].seconds) >= 2
        assert records[side, "generate"].tokens == 5
    assert records[OURS, "saved"].saved_bytes == records[AGAIN, "saved"].saved_bytes > 0
    assert {r.status for (side, _), r in records.items() if side == PUBLISHED} == {"failed"}


@pytest.mark.slow
def test_the_published_package_is_measured_for_real(monkeypatch):
    monkeypatch.setattr(peer, "PACKAGES", CACHE / "peers")
    if not (peer.PACKAGES / "psannlm-2.0.1" / peer.STAMP).exists():
        pytest.skip("psannlm 2.0.1 is not installed in the cache")
    medium = peer_config(
        vocab_size=32000, d_model=512, n_layers=8, n_heads=8, d_mlp=2048, context_length=512,
        batch_tokens=512, work="saved",
    )  # fmt: skip
    best = [Cell(0, 0, Setting(PUBLISHED, "respsann", "best", p)) for p in ("fp32", "bf16")]

    records = compare(config_of(peer="psannlm==2.0.1"), cells=PUBLISHED_CELLS)
    fp32, bf16 = compare(medium, cells=best)

    assert [(r.status, r.reason) for r in records] == [("ok", "")] * 4
    assert all(r.choices.startswith("math attention") for r in records)
    assert len({r.n_parameters for r in records}) == 1
    assert fp32.saved_bytes == pytest.approx(380 * 2**20, rel=0.01)
    assert bf16.saved_bytes == pytest.approx(390 * 2**20, rel=0.01)
