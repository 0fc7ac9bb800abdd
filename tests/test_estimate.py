"""A report says how long it should take, and takes less of what it may where that is too long."""

from dataclasses import replace
from datetime import datetime

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from papermill.cli import papermill

from psannlm import REPORTS, ROOT
from psannlm.bench import rates
from psannlm.bench.rates import Pace, bytes_per_token, measured, resolve
from psannlm.bench.statistics import FEWEST_REPEATS
from psannlm.bench.timing import FEW, WINDOW
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError
from psannlm.corpora.recipe import SPLITS
from psannlm.evidence.notebook import NOTEBOOKS, assigned
from psannlm.evidence.page import run_info
from psannlm.evidence.runs import all_runs
from psannlm.evidence.session import configuration
from psannlm.pages.registry import pages
from psannlm.pages.shootout.comparison import FEWEST_SEEDS
from psannlm.run import estimate
from psannlm.run import preset as runner
from psannlm.run.estimate import in_words, reductions

RUNS = [run for run in all_runs(REPORTS) if run.is_complete and run.manifest["preset"] == "cpu"]
NEWEST = {run.manifest["notebook"]: run for run in RUNS}
TRAINED = [NEWEST[name].manifest for name in ("tiny_corpus", "shootout")]
TEXTS = {manifest["corpus"]["path"]: manifest["corpus"] for manifest in TRAINED}
SLOW = Pace({"fp32": 120e9, "bf16": 5e9, "fp16": 5e9})  # of two cores without AVX-512
BUDGETS = read_parameters(ROOT / "params" / estimate.BUDGET)
CPU = torch.device("cpu")
each_page = pytest.mark.parametrize("name", pages())


def file_of(name: str, preset: str = "cpu"):
    return ROOT / "params" / preset / f"{name}.yaml"


def config_of(name: str, preset: str = "cpu", **values):
    data = read_parameters(file_of(name, preset)) | values
    return configuration(pages()[name], data, "here")


def planned(name: str, budget: float | None = None, preset: str = "cpu", pace: Pace | None = SLOW):
    return estimate.planned(name, file_of(name, preset), config_of(name, preset), budget, pace)


@pytest.fixture
def texts(monkeypatch):
    """Texts as large as those that committed runs have read, built or not."""

    def text_bytes(config):
        train, *others = (TEXTS[config.corpus][f"{split}_bytes"] for split in SPLITS)
        return [min(train, config.train_megabytes * 1e6), *others]

    monkeypatch.setattr(rates, "text_bytes", text_bytes)


@pytest.fixture
def slow(monkeypatch):
    """A machine that emulates half precision."""
    monkeypatch.setattr(rates, "half_precision", lambda device: SLOW)
    monkeypatch.setattr(estimate, "measured", lambda device: SLOW)


def committed_pace() -> Pace:
    """Of the machine of the committed runs, from the ceilings that they have on record."""
    half = pd.read_csv(NEWEST["throughput"].folder / "throughput.csv")["ceiling_flop_per_s"].max()
    findings = run_info(pages()["validation"], NEWEST["validation"]).records
    full = max(f.facts.get("fastest matrix product, FLOP/s", 0) for f in findings)
    return Pace({"fp32": full, "bf16": half})


@each_page
def test_what_is_expected_of_a_committed_run_is_what_it_took_and_within_its_budget(name, texts):
    info = run_info(pages()[name], NEWEST[name])
    start, end = (
        datetime.fromisoformat(info.manifest[f"{key}_at"]) for key in ("started", "ended")
    )

    expected = pages()[name].expected_seconds(info.config, committed_pace())

    assert expected / 1.5 < (end - start).total_seconds() < 1.5 * expected
    assert expected < 60 * BUDGETS["cpu"][name]


@each_page
def test_less_costs_less_until_the_least_and_changes_nothing_else(name, texts):
    page, given = pages()[name], {"precision": ["fp32"]} if name in ("peer", "memory") else {}
    last = whole = resolve(config_of(name, **given), CPU)
    for one in reductions(page, whole):
        changed = {key for key, value in dict(one).items() if value != getattr(whole, key)}
        assert changed <= set(page.reducible)
        asked = config_of(name, **given, **one.model_dump(mode="json", include=changed))
        assert resolve(asked, CPU) == one
        assert page.expected_seconds(one, SLOW) < page.expected_seconds(last, SLOW)
        last = one

    least = {key: getattr(last, key) for key in page.reducible}
    assert page.reducible == {k: len(v) if isinstance(v, tuple) else v for k, v in least.items()}


def test_verdicts_keep_the_repeats_that_they_need_and_fewer_stay_as_they_are():
    throughput, peer, shootout = (pages()[n].reducible for n in ("throughput", "peer", "shootout"))

    assert min(throughput["n_repeats"], peer["n_repeats"]) >= FEWEST_REPEATS
    assert min(shootout["seeds"], shootout["side_seeds"]) >= FEWEST_SEEDS
    assert planned("throughput", 0.1, "smoke").reduced == {}


def test_the_plan_takes_the_most_that_fits_and_says_what_it_is_reduced_to():
    whole = planned("throughput")
    fitting = planned("throughput", whole.minutes - 0.1)
    n_repeats = whole.config.n_repeats - 1

    assert (whole.reduced, whole.arguments) == ({}, ["-f", "params/cpu/throughput.yaml"])
    assert fitting.reduced == {"n_repeats": n_repeats}
    assert fitting.minutes < fitting.budget < fitting.unreduced == whole.minutes
    assert fitting.config == resolve(config_of("throughput", n_repeats=n_repeats), CPU)
    said = f"reduced to n_repeats {n_repeats}: all of params/cpu/throughput.yaml would take "
    assert said in str(fitting)


def test_papermill_takes_what_is_reduced_before_the_parameter_file(
    texts, slow, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    one, made = planned("shootout", 45), tmp_path / "out.ipynb"
    notebook = str(NOTEBOOKS / "shootout.ipynb")

    done = CliRunner().invoke(papermill, [notebook, str(made), "--prepare-only", *one.arguments])

    assert done.exit_code == 0, done.output
    cells = nbformat.read(made, as_version=4).cells
    [given] = [c.source for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert one.minutes <= 45
    assert assigned(given) == read_parameters(file_of("shootout")) | one.reduced
    assert assigned(given)["seeds"] == [0, 1, 2]


def test_what_does_not_fit_at_its_least_says_by_how_much_and_is_run_all_the_same():
    one = planned("throughput", 1)

    assert one.reduced == {"n_repeats": FEWEST_REPEATS}
    assert str(one).endswith(f"; {one.minutes - 1:.1f} min over its budget at the least")


def test_where_nobody_can_tell_the_plan_says_so_and_reduces_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    unbuilt = config_of("tiny_corpus", corpus="datasets/lm/nothing.txt", train_megabytes=0.0)
    plan = [planned("throughput", 5, "gpu", None), planned("throughput")]
    plan.append(estimate.planned("tiny_corpus", file_of("tiny_corpus"), unbuilt, 5, SLOW))

    assert in_words(plan).splitlines()[1] == "throughput: time unknown"
    assert in_words(plan).endswith("and the unknown")
    assert str(plan[2]) == "tiny_corpus: time unknown"
    assert not plan[2].reduced
    assert rates.text_bytes(unbuilt.model_copy(update={"train_megabytes": 2.0}))[0] == 2e6


def test_a_text_is_as_long_as_its_file_and_no_longer_than_is_asked_for(tmp_path):
    path = tmp_path / "mine.txt"
    path.write_text("A paragraph.\n" * 100_000)
    one = config_of("tiny_corpus", corpus=str(path), train_megabytes=0.0)
    cut = one.model_copy(update={"train_megabytes": 0.5, "validation_megabytes": 0.01})

    assert rates.text_bytes(one) == [1.3e6, 65e3, 65e3]
    assert rates.text_bytes(cut) == [0.5e6, 1e4, 1e4]


def test_ones_own_file_is_run_as_it_stands(tmp_path, monkeypatch, slow):
    mine = tmp_path / "mine.yaml"
    mine.write_text(file_of("tiny_corpus").read_text())
    monkeypatch.setenv("TINY_CONFIG", str(mine))

    [one] = estimate.plan("cpu", ["tiny_corpus"])

    assert one.minutes > BUDGETS["cpu"]["tiny_corpus"]
    assert one.arguments == ["-f", str(mine)]


def test_a_report_prints_its_plan_and_runs_it(monkeypatch, capsys):
    ran, rates_here = [], {"fp32": 30e9, "bf16": 90e9, "fp16": 0.0}
    monkeypatch.setattr(estimate, "measured", lambda device: Pace(rates_here))

    def run_notebook(name, arguments, *_):
        ran.append(arguments)
        return runner.Outcome(name, 0.0, "")

    monkeypatch.setattr(runner, "run_notebook", run_notebook)
    runner.run_preset("cpu", ["throughput"])

    [(_, path, option, reduced)] = ran
    said = capsys.readouterr().out
    assert (path, option) == ("params/cpu/throughput.yaml", "-y")
    assert yaml.safe_load(reduced) == {"n_repeats": FEWEST_REPEATS}
    assert "fp32 30 GFLOP/s, bf16 90 GFLOP/s" in said
    assert "throughput: about" in said


@pytest.mark.slow
def test_a_gpu_is_measured_in_a_process_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(estimate, "measured", lambda device: pytest.fail("a context stays"))

    [one] = estimate.plan("smoke", ["throughput"])

    assert one.config == resolve(config_of("throughput", "smoke"), CPU)
    assert "GFLOP/s" in in_words([one])


@pytest.mark.parametrize("minutes", ["soon", 0, -1, True, [5], None])
def test_a_budget_that_is_no_time_is_refused_by_its_name(minutes, tmp_path):
    path = tmp_path / "budget.yaml"
    path.write_text(yaml.safe_dump({"cpu": {"throughput": minutes}}))

    with pytest.raises(ConfigError, match=r"cpu\.throughput must be minutes above 0, got"):
        estimate.budgets(path)


def test_every_notebook_of_a_preset_has_a_budget_and_no_other():
    assert {preset: set(names) for preset, names in BUDGETS.items()} == {
        preset: set(pages()) - ({"peer"} if preset == "smoke" else set()) for preset in BUDGETS
    }


def test_a_step_that_is_compiled_or_wider_in_precision_or_checkpointed_takes_what_it_must():
    config = config_of("memory")
    network, saving = (config.network_of("respsann", grad_checkpoint=on) for on in (False, True))

    step = SLOW.step(network, 1024, "fp32")

    assert SLOW.step(network, 1024, "fp32", compiled=True) < step < SLOW.step(saving, 1024, "fp32")
    assert SLOW.forward(network, 1024, "fp32") < step < SLOW.step(network, 1024, "bf16")
    assert SLOW.step(network, 2048, "fp32", updates=2) == pytest.approx(2 * step)
    assert SLOW.timed(2.0, "fp32", config) == 2.0 * (1 + 2 * WINDOW + config.min_steps)
    assert SLOW.timed(1e-6, "fp32", config) == pytest.approx(config.min_seconds, 1e-3)
    assert SLOW.timed(2.0, "bf16", config) == 2.0 * (1 + FEW), "as it is emulated"
    assert SLOW.ceiling("bf16", config) < SLOW.ceiling("fp32", config)
    unknown = replace(SLOW, rates=SLOW.rates | {"fp16": 0.0})
    assert unknown.step(network, 1024, "fp16") == step, "where torch has no such product"


def test_a_device_is_measured_once_and_a_vocabulary_is_known_by_its_size():
    assert measured(CPU) is measured(CPU)
    assert all(rate > 0 for rate in measured(CPU).rates.values())
    assert bytes_per_token(257) == 1
    for made in (manifest["tokenizer"] for manifest in TRAINED):
        assert bytes_per_token(made["vocab_size"]) == pytest.approx(made["bytes_per_token"], 0.05)


def test_the_cpu_preset_ends_in_time_on_two_cores_with_avx2_alone(texts, slow):
    plan = [planned(name, BUDGETS["cpu"][name]) for name in estimate.chosen("cpu")]

    assert sum(one.minutes for one in plan) < 88, "and two for the text and the book"
    assert all(one.minutes <= one.budget for one in plan)
