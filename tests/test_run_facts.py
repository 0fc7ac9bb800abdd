"""What a run was is read from its manifest, and two runs are alike only in everything."""

import pytest

from psannlm.evidence.runs import Refused
from psannlm.publish import run_facts
from tests.histories import history_run


def test_only_complete_runs_of_the_page_are_used(tmp_path):
    done = history_run(tmp_path, "throughput", 1)
    other = history_run(tmp_path, "memory", 2)
    failed = history_run(tmp_path, "throughput", 3, status="failed")
    runs = [done, other, failed, Refused(tmp_path, "broken")]

    assert run_facts.complete_runs(runs, "throughput") == [done]
    assert run_facts.complete_runs(runs) == [done, other]


def test_the_shape_names_network_and_training(tmp_path):
    speed = history_run(tmp_path, "throughput", 1)
    training = history_run(tmp_path, "tiny_corpus", 2, train_megabytes=0.0)

    short, long = run_facts.shape(speed), run_facts.shape(training)

    assert short == "d_model 16, 1 layers, vocabulary 64, context 16"
    assert long.endswith("context 16, sample.txt, all of it, 2 × read")


def test_code_changed_since_its_commit_is_said(tmp_path):
    run = history_run(tmp_path, "throughput", 1)
    assert run_facts.code(run) == "0" * 12

    run.manifest["git"]["dirty"] = True
    assert run_facts.code(run) == f"{'0' * 12} (dirty)"

    run.manifest["git"]["commit"] = None
    assert run_facts.code(run).startswith("unknown")


def test_all_differences_of_two_runs_are_named(tmp_path):
    older = history_run(tmp_path, "tiny_corpus", 1, corpus="a", threads=2)
    newer = history_run(tmp_path, "tiny_corpus", 2, corpus="b", threads=1, seed=7)

    assert list(run_facts.differences(newer, older)) == [
        "threads: 1, before 2",
        "parameters differ (seed)",
        "the text differs",
    ]
    assert not list(run_facts.differences(older, older))


@pytest.mark.parametrize("name", ["wave_kernel", "learnable", "grad_checkpoint"])
def test_a_parameter_is_unequal_only_if_its_default_is_another_value(tmp_path, name):
    older, newer = history_run(tmp_path, "memory", 1), history_run(tmp_path, "memory", 2)
    before = older.manifest["parameters"].pop(name)

    assert not list(run_facts.unequal_parameters(newer, older))
    assert not list(run_facts.unequal_parameters(older, newer)), "whichever knows it"

    newer.manifest["parameters"][name] = [before]
    assert list(run_facts.unequal_parameters(newer, older)) == [name]
