"""A report says how long it should take, and takes less of what it may where that is too long."""

import os
from datetime import datetime

import nbformat
import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner
from papermill.cli import papermill

from psannlm import REPORTS, ROOT
from psannlm.bench import pace as paces
from psannlm.bench import rates
from psannlm.bench.pace import Pace, bytes_per_token, measured
from psannlm.bench.rates import HalfPrecision, resolve
from psannlm.bench.statistics import FEWEST_REPEATS
from psannlm.bench.timing import FEW, WINDOW
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError
from psannlm.corpora.corpus import load
from psannlm.corpora.recipe import SPLITS
from psannlm.evidence.notebook import NOTEBOOKS, assigned
from psannlm.evidence.page import run_info
from psannlm.evidence.runs import all_runs
from psannlm.evidence.session import configuration
from psannlm.pages.registry import pages
from psannlm.pages.shootout.comparison import FEWEST_SEEDS
from psannlm.run import estimate
from psannlm.run import preset as runner
from psannlm.run.estimate import fewer, planned, told

NEWEST = {run.manifest["notebook"]: run for run in all_runs(REPORTS) if run.is_complete}
AVX2 = Pace("cpu", {"fp32": 120e9})  # of two cores without AVX-512, in fp32 alone
SLOW = Pace("cpu", {"fp32": 120e9, "bf16": 5e9, "fp16": 5e9})  # the same, emulating the others
BUDGETS = read_parameters(ROOT / "params" / estimate.BUDGET)
each_page = pytest.mark.parametrize("name", pages())


def file_of(name: str, preset: str = "cpu"):
    return ROOT / "params" / preset / f"{name}.yaml"


@pytest.fixture
def texts(monkeypatch):
    """Texts as large as those that committed runs have read, built or not."""
    held = {run.manifest["corpus"]["path"]: run for run in NEWEST.values() if has_text(run)}

    def text_bytes(config):
        known, limit = held[config.corpus].manifest["corpus"], config.train_megabytes * 1e6
        found = {split: known[f"{split}_bytes"] for split in SPLITS}
        return found | {"train": min(found["train"], limit)}

    for module in ("tiny_corpus.page", "shootout.measure"):
        monkeypatch.setattr(f"psannlm.pages.{module}.text_bytes", text_bytes)


def has_text(run):
    return "train_bytes" in (run.manifest["corpus"] or {})


def committed_pace() -> Pace:
    """Of the machine of the committed runs, from the ceilings that they have on record."""
    half = pd.read_csv(NEWEST["throughput"].folder / "throughput.csv")["ceiling_flop_per_s"].max()
    findings = run_info(pages()["validation"], NEWEST["validation"]).records
    full = max(f.facts.get("fastest matrix product, FLOP/s", 0) for f in findings)
    return Pace("cpu", {"fp32": full, "bf16": half})


@each_page
def test_what_is_expected_of_a_committed_run_is_what_it_took_within_a_factor(name, texts):
    info = run_info(pages()[name], NEWEST[name])
    start, end = (
        datetime.fromisoformat(info.manifest[f"{key}_at"]) for key in ("started", "ended")
    )

    expected = pages()[name].expected_seconds(info.config, committed_pace())

    assert expected / 1.5 < (end - start).total_seconds() < 1.5 * expected


@each_page
def test_less_costs_less_until_the_least_and_changes_nothing_else(name, texts):
    page, data = pages()[name], read_parameters(file_of(name))
    data |= {"precision": ["fp32"]} if name in ("peer", "memory") else {}
    whole = resolve(configuration(page, data, "here"), torch.device("cpu"))
    given, seconds = whole.model_dump(mode="json"), page.expected_seconds(whole, SLOW)
    one = whole
    for one in fewer(page, whole):
        now = one.model_dump(mode="json")
        assert {key for key in now if now[key] != given[key]} <= set(page.lessened)
        asked = configuration(page, data | {k: now[k] for k in page.lessened}, "here")
        assert resolve(asked, torch.device("cpu")) == one
        seconds, before = page.expected_seconds(one, SLOW), seconds
        assert seconds < before

    least = {key: getattr(one, key) for key in page.lessened}
    assert {k: len(v) if isinstance(v, tuple) else v for k, v in least.items()} == page.lessened


def test_verdicts_keep_the_repeats_that_they_need():
    assert pages()["throughput"].lessened["n_repeats"] >= FEWEST_REPEATS
    assert pages()["peer"].lessened["n_repeats"] >= FEWEST_REPEATS
    assert pages()["shootout"].lessened["seeds"] >= FEWEST_SEEDS
    assert pages()["shootout"].lessened["side_seeds"] >= FEWEST_SEEDS


def test_a_value_that_is_below_the_least_already_stays():
    page = pages()["throughput"]
    smoke = configuration(page, read_parameters(file_of("throughput", "smoke")), "here")

    assert smoke.n_repeats < FEWEST_REPEATS
    assert list(fewer(page, smoke)) == []


def test_the_plan_takes_the_most_that_fits_and_papermill_is_given_the_rest():
    path = file_of("throughput")
    all_of_it = planned("throughput", path, None, SLOW)
    fitting = planned("throughput", path, all_of_it.minutes - 0.1, SLOW)
    parameters = read_parameters(path)

    assert (all_of_it.lessened, all_of_it.arguments) == ({}, ["-f", "params/cpu/throughput.yaml"])
    assert fitting.lessened == {"n_repeats": parameters["n_repeats"] - 1}
    assert fitting.minutes < fitting.budget < fitting.whole == all_of_it.minutes
    assert fitting.arguments[:3] == [*all_of_it.arguments, "-y"]
    assert yaml.safe_load(fitting.arguments[3]) == fitting.lessened
    given = configuration(pages()["throughput"], parameters | fitting.lessened, "here")
    assert fitting.config == resolve(given, torch.device("cpu"))
    assert f"n_repeats: {fitting.config.n_repeats}; all of params/cpu" in fitting.said


def test_papermill_takes_what_is_less_before_the_parameter_file(texts, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    one, made = planned("shootout", file_of("shootout"), 45, AVX2), tmp_path / "out.ipynb"
    notebook = str(NOTEBOOKS / "shootout.ipynb")

    done = CliRunner().invoke(papermill, [notebook, str(made), "--prepare-only", *one.arguments])

    assert done.exit_code == 0, done.output
    cells = nbformat.read(made, as_version=4).cells
    [given] = [c.source for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert one.minutes <= 45
    assert assigned(given) == read_parameters(file_of("shootout")) | one.lessened
    assert assigned(given)["seeds"] == [0, 1, 2]


def test_what_does_not_fit_at_its_least_says_by_how_much_and_is_run_all_the_same():
    one = planned("throughput", file_of("throughput"), 1, SLOW)

    assert one.lessened == {"n_repeats": FEWEST_REPEATS}
    assert one.said.endswith(f"the least, {estimate._minutes(one.minutes - 1)} over its budget")


def test_where_nobody_can_tell_the_plan_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = [planned("throughput", file_of("throughput", "gpu"), 5)]
    plan.append(planned("throughput", file_of("throughput"), None, SLOW))
    unbuilt = {"corpus": "datasets/lm/nothing.txt", "train_megabytes": 0.0}
    parameters = read_parameters(file_of("tiny_corpus")) | unbuilt
    whole = configuration(pages()["tiny_corpus"], parameters, "here")

    assert plan[0].minutes is None
    assert "throughput: time unknown" in told(plan)
    assert told(plan).endswith("and the unknown")
    assert pages()["tiny_corpus"].expected_seconds(whole, SLOW) is None
    assert paces.text_bytes(whole.model_copy(update={"train_megabytes": 2.0}))["train"] == 2e6


def test_a_text_is_read_once_for_a_plan_and_again_when_it_has_changed(tmp_path, monkeypatch):
    path, read = tmp_path / "mine.txt", []
    path.write_text("A paragraph of a text that is long enough.\n" * 1000)
    monkeypatch.setattr(paces, "load", lambda given: read.append(given) or load(given))
    one = {"corpus": str(path), "train_megabytes": 0.0}
    data = read_parameters(file_of("tiny_corpus")) | one
    config = configuration(pages()["tiny_corpus"], data, "here")

    first, again = paces.text_bytes(config), paces.text_bytes(config)
    path.write_text("Another paragraph.\n" * 100)
    os.utime(path, ns=(1, 1))

    assert first == again
    assert sum(first.values()) == 1000 * 43
    assert read == [path]
    assert sum(paces.text_bytes(config).values()) == 100 * 19


def test_ones_own_file_is_run_as_it_stands(tmp_path, monkeypatch):
    mine = tmp_path / "mine.yaml"
    mine.write_text(file_of("tiny_corpus").read_text())
    monkeypatch.setenv("TINY_CONFIG", str(mine))
    monkeypatch.setattr(estimate, "measured", lambda device: Pace("cpu", {"fp32": 1e9}))

    [one] = estimate.plan("cpu", ["tiny_corpus"])

    assert one.minutes > BUDGETS["cpu"]["tiny_corpus"]
    assert (one.lessened, one.budget) == ({}, None)


def test_a_report_prints_its_plan_and_runs_it(monkeypatch, capsys):
    ran = []
    monkeypatch.setattr(estimate, "measured", lambda device: Pace("cpu", {"fp32": 40e9}))

    def run_notebook(name, arguments, *_):
        ran.append(arguments)
        return runner.Outcome(name, 0.0, "")

    monkeypatch.setattr(runner, "run_notebook", run_notebook)
    runner.run_preset("cpu", ["throughput"])

    [arguments] = ran
    assert arguments[2] == "-y"
    said = capsys.readouterr().out
    assert "fp32 40 GFLOP/s" in said
    assert yaml.safe_load(arguments[3]) == {"n_repeats": FEWEST_REPEATS}
    assert "throughput: about" in said


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
    config = configuration(pages()["memory"], read_parameters(file_of("memory")), "here")
    network, saving = (config.network_of("respsann", grad_checkpoint=on) for on in (False, True))

    step = SLOW.step(network, 1024, "fp32")

    assert SLOW.step(network, 1024, "fp32", compiled=True) < step < SLOW.step(saving, 1024, "fp32")
    assert SLOW.forward(network, 1024, "fp32") < step < SLOW.step(network, 1024, "bf16")
    assert SLOW.step(network, 2048, "fp32", updates=2) == pytest.approx(2 * step)
    assert SLOW.timed(2.0, "fp32", config) == 2.0 * (1 + 2 * WINDOW + config.min_steps)
    assert SLOW.timed(1e-6, "fp32", config) == pytest.approx(config.min_seconds, 1e-3)
    assert SLOW.timed(2.0, "bf16", config) == 2.0 * (1 + FEW), "as it is emulated"


def test_a_device_is_measured_once_and_a_vocabulary_is_known_by_its_size():
    pace = measured(torch.device("cpu"))

    assert pace is measured(torch.device("cpu"))
    assert all(rate > 0 for rate in pace.rates.values())
    assert "GFLOP/s" in pace.said
    assert bytes_per_token(257) == 1
    for run in filter(has_text, NEWEST.values()):
        made = run.manifest["tokenizer"]
        assert bytes_per_token(made["vocab_size"]) == pytest.approx(made["bytes_per_token"], 0.05)


def test_the_cpu_preset_ends_in_time_on_two_cores_with_avx2_alone(texts, monkeypatch):
    monkeypatch.setattr(rates, "half_precision", lambda device: HalfPrecision(SLOW.rates))
    names = estimate.chosen("cpu")

    plan = [planned(name, file_of(name), BUDGETS["cpu"][name], SLOW) for name in names]

    assert sum(one.minutes for one in plan) < 88, "and two for the text and the book"
    assert all(one.minutes <= one.budget for one in plan)


def test_the_cpu_preset_is_whole_on_the_machine_of_the_committed_runs(texts):
    for name in estimate.chosen("cpu"):
        config = run_info(pages()[name], NEWEST[name]).config
        seconds = pages()[name].expected_seconds(config, committed_pace())
        assert seconds < 60 * BUDGETS["cpu"][name]
