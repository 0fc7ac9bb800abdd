"""Every parameter file loads, and says the same things as the notebook it is for."""

import pytest
import yaml
from papermill import inspect_notebook

from psannlm import ROOT
from psannlm.config.parse import parse, read_parameters
from psannlm.corpora.recipe import RECIPES
from psannlm.evidence.session import NOTEBOOKS, default_parameters
from psannlm.model.bases import BASES
from psannlm.pages.memory.tables import goal
from psannlm.pages.registry import pages
from psannlm.pages.shootout.arms import all_arms, arms_of
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.run.preset import check_parameters

EVALS = ROOT / "params" / "evals"  # tasks of lm-eval
FILES = sorted(p for p in (ROOT / "params").glob("*/*.yaml") if p.parent not in (RECIPES, EVALS))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
each_notebook = pytest.mark.parametrize("name", pages())
UNREADABLE = {"peer": {"peer"}}  # papermill leaves out a line with a second equals sign


@each_file
def test_a_parameter_file_is_what_its_notebook_takes(path):
    check_parameters(path.stem, path)


@each_file
def test_what_a_manifest_keeps_of_the_parameters_is_what_resuming_gives_again(path):
    cls = pages()[path.stem]
    kept = parse(cls, read_parameters(path), source=str(path)).model_dump(mode="json")
    given = {key: kept[key] for key in default_parameters(path.stem)}

    again = parse(cls, yaml.safe_load(yaml.safe_dump(given)), source="run.json")

    assert again.model_dump(mode="json") == kept


@each_file
def test_a_parameter_file_names_its_preset_and_says_what_it_is_for(path):
    assert path.read_text().startswith("# ")
    assert yaml.safe_load(path.read_text())["preset"] == path.parent.name


@each_notebook
def test_presets_have_equal_keys_in_equal_order(name):
    keys = [list(read_parameters(p)) for p in FILES if p.stem == name]

    assert len(keys) == 3
    assert all(other == list(default_parameters(name)) for other in keys)


@each_notebook
def test_the_notebooks_own_values_are_the_smoke_preset(name):
    smoke = read_parameters(ROOT / "params" / "smoke" / f"{name}.yaml")

    assert default_parameters(name) == smoke


@each_notebook
def test_every_parameter_has_a_type_and_a_help_text_for_papermill(name):
    told = inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))

    assert set(told) == set(default_parameters(name)) - UNREADABLE.get(name, set())
    for parameter in told.values():
        assert parameter["help"], parameter["name"]
        assert parameter["inferred_type_name"] != "None", parameter["name"]


def test_the_gpu_sweep_is_that_of_the_original_plan():
    path = ROOT / "params" / "gpu" / "throughput.yaml"
    config = parse(pages()["throughput"], read_parameters(path), source=str(path))

    assert set(config.base) == set(BASES)
    assert config.batch_tokens == (65_536, 131_072, 262_144)
    shape = (config.d_model, config.n_layers, config.n_heads, config.vocab_size)
    assert shape == (256, 4, 4, 32_000)


def test_the_gpu_training_is_that_of_the_original_plan():
    path = ROOT / "params" / "gpu" / "tiny_corpus.yaml"
    config = parse(pages()["tiny_corpus"], read_parameters(path), source=str(path))

    assert config.corpus == "datasets/lm/tiny_books.txt"
    assert (config.epochs, config.target_perplexity) == (2, 8.0)
    assert (config.train_megabytes, config.validation_megabytes) == (0, 0), "the whole text"
    assert (config.d_model, config.n_layers) == (512, 8)


def test_the_gpu_shootout_is_that_of_the_original_plan():
    path = ROOT / "params" / "gpu" / "shootout.yaml"
    config = parse(ShootoutConfig, read_parameters(path), source=str(path))

    assert config.corpus == "datasets/lm/wikitext103.txt"
    assert config.validation_megabytes == 0, "the whole validation split"
    shape = (config.d_model, config.n_layers, config.n_heads, config.d_mlp)
    assert shape == (256, 4, 4, 1024)
    assert (config.context_length, config.batch_tokens) == (512, 32_768)
    assert config.vocab_size == 16_384
    assert config.lm_eval_tasks == ("lambada_openai", "hellaswag")
    assert config.lm_eval_limit == 256


@pytest.mark.parametrize(("preset", "fewest"), [("cpu", 3), ("gpu", 5)])
def test_shootouts_that_are_evidence_compare_all_arms_on_enough_seeds(preset, fewest):
    path = ROOT / "params" / preset / "shootout.yaml"
    config = parse(ShootoutConfig, read_parameters(path), source=str(path))

    assert {arm.name for arm in arms_of(config)} == set(all_arms())
    assert len(config.seeds) >= fewest
    assert config.side_seeds >= 3
    assert {"respsann", "gelu", "gelu_scaled"} <= set(config.scale_arms)


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_memory_is_measured_of_the_medium_model_of_the_original_plan(preset):
    path = ROOT / "params" / preset / "memory.yaml"
    config = parse(pages()["memory"], read_parameters(path), source=str(path))

    assert set(config.base) == set(BASES)
    assert (config.d_model, config.n_layers, config.n_heads) == (512, 8, 8)
    assert set(config.precision) == {"fp32", "bf16"}
    assert set(config.variants) == {"plain_sine", "plain_loss"}
    assert all(goal(precision, config) for precision in config.precision)
    assert config.peer


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_presets_that_are_evidence_have_enough_repeats_for_a_verdict(preset):
    assert read_parameters(ROOT / "params" / preset / "throughput.yaml")["n_repeats"] >= 6


@pytest.mark.parametrize("preset", ["cpu", "gpu"])
def test_comparisons_that_are_evidence_have_every_work_setting_and_enough_repeats(preset):
    path = ROOT / "params" / preset / "peer.yaml"
    config = parse(pages()["peer"], read_parameters(path), source=str(path))

    assert set(config.work) == {"forward", "train_step", "generate", "saved"}
    assert set(config.setting) == {"defaults", "best"}
    assert config.n_repeats >= 6
    assert config.protocol_batch_tokens
