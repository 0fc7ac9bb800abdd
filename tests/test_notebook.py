"""What a notebook's cells call, without a notebook."""

import json
import re
from typing import get_args

import pytest
import torch

from psannlm.config.network import Nonlinearity
from psannlm.config.schema import ConfigError
from psannlm.evidence import figures, places
from psannlm.evidence import session as notebook
from psannlm.evidence.runs import Run
from psannlm.evidence.session import (
    PROGRESS,
    Page,
    assigned,
    command_line,
    configuration,
    default_parameters,
    given_parameters,
    names_of,
)
from psannlm.model.bases import BASES
from psannlm.pages.registry import CONFIGS
from tests.synthetic import start_manifest
from tests.synthetic_shootout import shootout_config
from tests.trainings import training_config


def test_assignments_are_read_with_and_without_annotation():
    source = 'a: int = 1  # one\nb = ["x", 2]\nc: float = -0.5\nprint(a)\n'

    assert assigned(source) == {"a": 1, "b": ["x", 2], "c": -0.5}


def test_a_value_that_is_no_literal_is_kept_as_text():
    assert assigned("a = float('nan')") == {"a": "float('nan')"}


def test_injected_names_that_the_notebook_lacks_are_seen():
    namespace = {
        **default_parameters("throughput"),
        "setps": 3,
        "base": "respsann",
        "In": ["", "preset = 'smoke'", "# Parameters\nbase = 'respsann'\nsetps = 3\n"],
    }

    given = given_parameters("throughput", namespace)

    assert given["setps"] == 3
    assert given["base"] == "respsann"
    assert "In" not in given


def test_a_name_that_was_not_injected_is_no_parameter():
    namespace = {**default_parameters("throughput"), "scratch": 1, "In": ["", "scratch = 1"]}

    assert "scratch" not in given_parameters("throughput", namespace)


def test_the_command_of_a_process_that_is_gone_is_unknown():
    assert command_line(2**22 + 1) == "unknown"


def test_a_shootout_names_arms_and_every_other_notebook_bases():
    assert names_of("throughput") == names_of("memory") == tuple(BASES)
    assert set(names_of("shootout")) == {*BASES, *get_args(Nonlinearity)} - {"transformer"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": ["respsan"]}, "base: unknown base 'respsan', did you mean 'respsann'"),
        ({"baseline": "transformer"}, "baseline: unknown base 'transformer'"),
        ({"scale_arms": ["gelu", "geluu"]}, "scale_arms: unknown arm 'geluu', did you mean 'gelu'"),
        ({"ablation": ["gelu"]}, "ablation must name arms with a damped sine, got 'gelu'"),
    ],
)
def test_a_shootout_is_refused_before_it_has_a_folder(changes, message):
    data = shootout_config().model_dump(mode="json") | changes

    with pytest.raises(ConfigError, match=message) as refusal:
        configuration("shootout", data, "here")
    assert str(refusal.value).startswith("here:\n  ")


def test_a_shootout_that_names_no_base_means_all_arms():
    asked = shootout_config()

    assert configuration("shootout", asked.model_dump(mode="json"), "here") == asked


def test_a_shootout_opens_a_folder_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv(places.OTHER_HOME, str(tmp_path / "benchmarks"))
    monkeypatch.setattr(notebook.environment, "describe_environment", lambda device: {})
    monkeypatch.setattr(notebook.environment, "conditions", lambda device: {})

    run = notebook._open_run("shootout", shootout_config(), torch.device("cpu"))
    other = notebook._open_run("tiny_corpus", training_config(), torch.device("cpu"))

    assert re.fullmatch(r"\d{8}_\d{6}_base_shootout", run.folder.name)
    assert re.fullmatch(r"\d{8}_\d{6}", other.folder.name)
    assert run.manifest["run"] == run.folder.name
    assert (run.manifest["seeds"], other.manifest["seeds"]) == ([0, 1, 2], [training_config().seed])


@pytest.mark.parametrize("name", CONFIGS)
def test_a_notebook_declares_its_parameters(name):
    declared = set(default_parameters(name))

    assert {"preset", "device"} <= declared
    assert {"seed", "seeds"} & declared


@pytest.fixture
def page(tmp_path):
    config = training_config()
    run = Run.start("benchmarks", start_manifest("tiny_corpus", config), reports=tmp_path)
    return Page("tiny_corpus", config, run, torch.device("cpu"))


def test_the_runner_is_told_how_far_a_run_is(page, tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRESS, str(tmp_path / "progress.json"))

    page.report_progress(3, 10, "epoch 1", unit="step")

    told = json.loads((tmp_path / "progress.json").read_text())
    assert told == {
        "done": 3,
        "total": 10,
        "label": "epoch 1",
        "unit": "step",
        "run": str(page.run.folder),
    }


def test_a_fast_run_does_not_tell_every_step_but_always_the_last(page, tmp_path, monkeypatch):
    monkeypatch.setenv(PROGRESS, str(tmp_path / "progress.json"))
    monkeypatch.setattr(notebook, "TELL_SECONDS", 3600)
    told = []

    for step in (1, 2, 3):
        page.report_progress(step, 3, "")
        told.append(json.loads((tmp_path / "progress.json").read_text())["done"])

    assert told == [1, 1, 3]


def test_a_run_that_nobody_follows_tells_nothing(page, tmp_path, monkeypatch):
    monkeypatch.delenv(PROGRESS, raising=False)
    before = sorted(tmp_path.rglob("*"))

    page.report_progress(1, 2, "")

    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("pixels", [False, True])
def test_a_figure_is_saved_panel_by_panel_and_as_pixels_if_asked_for(page, pixels):
    figure = figures.Figure({"by tokens": "<svg/>", "s(z), all": "<svg></svg>"}, b"PNG", "")

    assert page.show("loss_curve", figure, pixels=pixels) is figure

    names = {"loss_curve_by_tokens.svg", "loss_curve_s_z_all.svg"}
    assert page.run.artifacts == names | ({"loss_curve.png"} if pixels else set())
    assert (page.run.folder / "loss_curve_by_tokens.svg").read_text() == "<svg/>"
