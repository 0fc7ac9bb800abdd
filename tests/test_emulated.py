"""What a device emulates is measured over few steps, shown as such, and compared with nothing."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from psannlm.bench import rates, steps
from psannlm.bench.rates import Pace
from psannlm.bench.timing import FEW
from psannlm.checks import fast_paths, precision
from psannlm.evidence import verify
from psannlm.evidence.page import RerunRequest
from psannlm.evidence.runs import best_run, emulated_in, load
from psannlm.evidence.session import Session
from psannlm.pages.memory import plan as memory_plan
from psannlm.pages.memory.page import PAGE as MEMORY
from psannlm.pages.memory.worker import measure as memory_step
from psannlm.pages.peer import plan as peer_plan
from psannlm.pages.peer.page import PAGE as PEER
from psannlm.pages.throughput import plan as throughput_plan
from psannlm.pages.throughput.page import PAGE as THROUGHPUT
from psannlm.pages.tiny_corpus import page as tiny_corpus
from psannlm.pages.validation import prose
from psannlm.publish import claims, landing
from psannlm.publish.published_page import _nearest
from psannlm.rerun.outcome import compared
from tests.checked import case_of, failed
from tests.pages import pretend
from tests.peers import peer_config, peer_records
from tests.synthetic import sealed_run, throughput_config, throughput_records
from tests.synthetic_memory import memory_config, memory_records
from tests.test_step_workers import speed_task, task
from tests.test_step_workers import throughput as throughput_worker
from tests.trainings import CORPUS, TOKENIZER, trained, training_config

CPU = torch.device("cpu")
AVX2 = {"fp32": 112e9, "bf16": 1.6e9, "fp16": 2.1e9}
FOUND = {"precision": {"asked": ["bf16"], "flop_per_s": AVX2, "emulated": ["bf16", "fp16"]}}
BOTH = ("fp32", "bf16")
SPEEDS = {"respsann": 900.0, "transformer": 1000.0}


@pytest.fixture
def emulates(monkeypatch):
    """Make this machine one without bf16."""
    monkeypatch.setattr(rates, "half_precision", lambda device: Pace(AVX2))


def throughput_of(reports, precisions=BOTH, **facts):
    config = throughput_config(precision=precisions)
    records = throughput_records(config, SPEEDS)
    return load(sealed_run(THROUGHPUT, config, records, reports, **FOUND | facts))


def memory_of(reports):
    config = memory_config(batch_tokens=(32,), contexts=(), n_repeats=3)
    return load(sealed_run(MEMORY, config, memory_records(config), reports, **FOUND))


def peer_of(reports):
    config = peer_config(precision=BOTH)
    return load(sealed_run(PEER, config, peer_records(config), reports, **FOUND))


def told(page, run):
    """The notebook's session over a run that is complete."""
    config = page.config(**run.manifest["parameters"])
    session = Session(
        page, config, SimpleNamespace(**vars(run), artifacts=run.manifest["artifacts"]), CPU
    )
    session.tables = page.tabulate(session.records, session.info)
    return session


@pytest.mark.parametrize(
    ("plan", "measured", "config"),
    [
        (throughput_plan, throughput_plan.throughput, throughput_config(precision=BOTH)),
        (memory_plan, memory_plan.memory, memory_config(peer="")),
    ],
)
def test_a_process_is_told_what_its_device_emulates(emulates, monkeypatch, plan, measured, config):
    tasks = pretend(monkeypatch, plan, lambda task: {"seconds": [1.0]})

    list(measured(config))

    assert {(one.precision, one.emulated) for one in tasks} == {("fp32", False), ("bf16", True)}


def test_both_sides_of_a_comparison_are_told_alike(emulates, monkeypatch):
    monkeypatch.setattr(peer_plan.Sides, "_interpreter", ("python", ""))
    tasks = pretend(monkeypatch, peer_plan, lambda task: {"seconds": [1.0], "tokens": 32})

    list(peer_plan.compare(peer_config(precision=BOTH)))

    compared_ones = [one for one in tasks if one.modes[0] != "GPU-04"]
    assert all(one.emulated == (one.precision == "bf16") for one in compared_ones)
    assert {bool(one.python) for one in tasks if one.emulated} == {True, False}


def test_an_emulated_step_is_timed_a_few_times_whatever_is_asked():
    long: dict[str, Any] = {"min_seconds": 60.0, "min_steps": 10**6, "emulated": True}
    speed = throughput_worker.measure(speed_task(**long), "train_step")
    product = throughput_worker.measure(replace(speed_task(**long), model={}), "matmul")
    memory = memory_step(task(**long, compared=False), "train_step")

    for found in (speed, product, memory):
        assert len(found["seconds"]) == FEW
    assert (speed["n_warmup"], speed["steady"]) == (0, False)
    assert product["flops"] == 2 * steps.EMULATED_SIZES[0] ** 3


def test_rows_of_an_emulated_precision_say_so_and_have_neither_ratio_nor_share(tmp_path):
    run = throughput_of(tmp_path)
    table = told(THROUGHPUT, run).tables["throughput.csv"]

    half, full = (table[table["precision"] == name] for name in ("bf16", "fp32"))
    assert set(half["verdict"]) == {"emulated"}
    assert half["emulated"].all()
    assert not full["emulated"].any()
    assert half["tokens_per_s"].notna().all()
    assert half[["ratio", "noise_floor", "mfu", "ceiling_flop_per_s"]].isna().all(axis=None)
    assert full["ratio"].notna().all()
    assert "slower" in set(full["verdict"])
    assert list(verify.problems(THROUGHPUT, run)) == []


@pytest.mark.parametrize(
    ("run_of", "page", "kept"),
    [
        (throughput_of, THROUGHPUT, set()),
        (memory_of, MEMORY, {"saved_mib", "peak_allocated_mib", "saved_less_share"}),
        (peer_of, PEER, {"ratio"}),
    ],
)
def test_no_emulated_time_is_a_number_of_its_page_and_bytes_stay(tmp_path, run_of, page, kept):
    run = run_of(tmp_path)
    numbers = list(page.numbers(run))
    half = [n for n in numbers if n.row.values["emulated"]]

    assert {n.column.name for n in half} == kept
    assert all(n.unit not in ("tokens/s", "s") for n in half)
    assert {n.column.name for n in numbers if not n.row.values["emulated"]} >= kept
    assert not any("emulated" in n.verdict for n in numbers)
    assert page.summary(landing.headlines_of(run))


def test_pages_show_it_beside_the_precision_in_words_and_in_no_figure(tmp_path):
    for run_of, page in ((throughput_of, THROUGHPUT), (memory_of, MEMORY), (peer_of, PEER)):
        session = told(page, run_of(tmp_path / page.name))
        figures = page.figures(session.tables, session.info)
        timed = [name for f in figures.values() for name in f.panels if "bf16" in name]
        said = session.reading().data

        table = page.tables[0].html(session.tables[page.tables[0].file])
        assert "<td>bf16, emulated</td>" in table
        assert "**bf16 is emulated.**" in said
        assert "a thread multiplies at 1.6 GFLOP/s, in fp32 at 112 GFLOP/s" in said
        answer = page.answer(session.tables, session.info)
        if page is THROUGHPUT:
            assert timed == []
            assert "bf16" not in answer
        if page is MEMORY:
            assert "bf16" in answer
            assert "×" not in next(line for line in answer.splitlines() if "bf16" in line)
        if page is PEER:
            assert {name for name in timed if "saved" not in name} == set()


def test_a_run_that_says_nothing_of_it_is_read_as_before(tmp_path):
    config = throughput_config(precision=BOTH)
    run = load(sealed_run(THROUGHPUT, config, throughput_records(config, SPEEDS), tmp_path))

    assert emulated_in(run.manifest) == []
    assert {n.row.values["precision"] for n in THROUGHPUT.numbers(run)} == set(BOTH)
    assert "emulated" not in told(THROUGHPUT, run).reading().data


def test_no_claim_stands_on_it_and_no_published_number_is_held_against_it(tmp_path):
    run = throughput_of(tmp_path)
    device = run.manifest["environment"]["device"]
    asked = {
        "page": "throughput",
        "preset": "cpu",
        "device": device,
        "where": "label == 'respsann'",
    }
    values = {"claim": "fast", "sentence": "Fast.", "source": asked, "condition": "n_ok > 0"}
    checker = claims.ClaimChecker([run])

    problems = checker.check(claims.Claim(**values)).problems
    [good] = checker.check(
        claims.Claim(**values | {"source": asked | {"where": "emulated == False and ratio > 0"}})
    ).rows[:1]

    assert [p for p in problems if "in a precision that its device emulates" in p]
    assert good.values["precision"] == "fp32"
    figure = SimpleNamespace(used=SimpleNamespace(batch=1, context_length=16))
    rows = _nearest(THROUGHPUT.rows(run), figure)
    assert {row.values["precision"] for row in rows} == {"fp32"}


def test_a_run_of_nothing_else_takes_no_other_runs_place(tmp_path):
    good = throughput_of(tmp_path / "good", started_at="2020-01-01T00:00:00+00:00")
    alone = throughput_of(tmp_path / "alone", ("bf16",))

    assert best_run("throughput", [good, alone]) == good
    assert best_run("throughput", [alone]) == alone
    said = landing.answers(landing.headlines([alone]), [alone])
    assert landing.EMULATED in said


def test_a_repeat_of_it_or_on_a_machine_that_emulates_is_shown_and_not_judged(tmp_path, emulates):
    run = throughput_of(tmp_path)
    config = THROUGHPUT.config(**run.manifest["parameters"])
    records = throughput_records(config, SPEEDS)
    request = RerunRequest(config, CPU, 6, lambda line: None)
    rows = {row.values["precision"]: row for row in THROUGHPUT.rows(run, "label == 'respsann'")}
    elsewhere = replace(rows["bf16"], values=dict(rows["bf16"].values) | {"emulated": False})

    for row, judged in ((rows["bf16"], False), (elsewhere, False), (rows["fp32"], True)):
        found = compared(THROUGHPUT, row, request, records, records).quantities
        speed = next(q for q in found if q.name.startswith("speed, "))
        assert (speed.inside is not None) == judged
        assert ("bf16 is emulated" in speed.expected) != judged


def test_a_training_in_it_has_no_ceiling_and_its_speed_is_no_number(
    tmp_path, emulates, monkeypatch
):
    config = training_config(precision="bf16")
    facts = {"corpus": CORPUS, "tokenizer": TOKENIZER, **FOUND}
    run = load(sealed_run(tiny_corpus.PAGE, config, [trained(config)], tmp_path, **facts))
    names = {n.column.name for n in tiny_corpus.PAGE.numbers(run)}
    seen = []

    def train(*given: Any, ceiling: Any, **options: Any) -> Any:
        seen.append(ceiling)
        raise InterruptedError

    monkeypatch.setattr(tiny_corpus.training, "train", train)
    for one in (config, training_config(precision="fp32")):
        session = SimpleNamespace(config=one, device=CPU, run=run, report_progress=lambda *_: None)
        with pytest.raises(InterruptedError):
            tiny_corpus.train(session)

    assert "tokens_per_s" not in names
    assert {"perplexity", "bits_per_byte"} <= names
    assert seen[0] is None
    assert seen[1] is not None


@pytest.mark.parametrize("made", [precision.check, fast_paths.check])
def test_checks_take_a_tiny_shape_for_it_alone_and_say_so(made, emulates):
    case = case_of("respsann", context_length=96, d_model=64, n_layers=3, d_mlp=96, n_seeds=1)

    result = made(case)

    tiny = "2 layers, d_model 32, d_mlp 64, 2 sequences of 32 tokens"
    assert result.facts["bf16, emulated"] == tiny
    assert case.in_precision("fp32") is case
    assert not failed(result)
    finding = SimpleNamespace(check="GPU-02", facts=result.facts, device="d", status="passed")
    assert f"GPU-02 tried bf16, which is emulated here, in a tiny shape: {tiny}." in prose.limits(
        [finding], "d"
    )
