"""Every parameter file loads, and says the same things as the notebook it is for."""

from typing import Any

import pytest
import yaml
from papermill import inspect_notebook

from psannlm import ROOT
from psannlm.config.parse import read_parameters
from psannlm.corpora.recipe import RECIPES
from psannlm.evidence.notebook import NOTEBOOKS, default_parameters
from psannlm.evidence.session import configuration
from psannlm.model.bases import BASES
from psannlm.pages.memory.tables import goal
from psannlm.pages.registry import pages
from psannlm.pages.shootout.arms import all_arms, arms_of
from psannlm.run.estimate import configuration_in

PARAMS = ROOT / "params"
EVALS = PARAMS / "evals"  # tasks of lm-eval
FILES = sorted(p for p in PARAMS.glob("*/*.yaml") if p.parent not in (RECIPES, EVALS))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
each_notebook = pytest.mark.parametrize("name", pages())
UNREADABLE = {"peer": {"peer"}}  # papermill leaves out a line with a second equals sign


def parameters_of(preset: str, name: str) -> dict[str, Any]:
    return read_parameters(PARAMS / preset / f"{name}.yaml")


def understood(name: str, parameters: dict[str, Any]) -> Any:
    return configuration(pages()[name], parameters, "here")


def config_of(preset: str, name: str) -> Any:
    return understood(name, parameters_of(preset, name))


@each_file
def test_a_parameter_file_is_what_its_notebook_takes_and_a_manifest_keeps_it_whole(path):
    configuration_in(path, path.stem)
    kept = config_of(path.parent.name, path.stem).model_dump(mode="json")
    given = {key: kept[key] for key in default_parameters(path.stem)}

    again = understood(path.stem, yaml.safe_load(yaml.safe_dump(given)))

    assert path.read_text().startswith("# "), "what it is for"
    assert read_parameters(path)["preset"] == path.parent.name
    assert again.model_dump(mode="json") == kept, "resuming gives it again"


@pytest.mark.parametrize("preset", ["smoke", "cpu", "gpu"])
@pytest.mark.parametrize("name", ["validation", "throughput", "memory"])
def test_no_base_named_means_every_base(name, preset):
    parameters = parameters_of(preset, name)

    assert parameters["base"] == []
    assert understood(name, parameters).base == tuple(BASES)
    assert understood(name, parameters | {"base": "respsann"}).base == ("respsann",)


@each_notebook
def test_presets_have_equal_keys_in_equal_order_and_the_notebooks_values_are_smoke(name):
    default = default_parameters(name)

    assert [list(read_parameters(p)) for p in FILES if p.stem == name] == [list(default)] * 3
    assert default == parameters_of("smoke", name)


@each_notebook
def test_every_parameter_has_a_type_and_a_help_text_for_papermill(name):
    told = inspect_notebook(str(NOTEBOOKS / f"{name}.ipynb"))

    assert set(told) == set(default_parameters(name)) - UNREADABLE.get(name, set())
    for parameter in told.values():
        assert parameter["help"], parameter["name"]
        assert parameter["inferred_type_name"] != "None", parameter["name"]


PLANNED: dict[str, dict[str, Any]] = {
    "throughput": {
        **{"batch_tokens": (65_536, 131_072, 262_144), "d_model": 256, "n_layers": 4},
        **{"n_heads": 4, "vocab_size": 32_000},
    },
    "tiny_corpus": {
        **{"corpus": "datasets/lm/tiny_books.txt", "epochs": 2, "target_perplexity": 8.0},
        **{"train_megabytes": 0, "validation_megabytes": 0, "d_model": 512, "n_layers": 8},
    },
    "shootout": {
        **{"corpus": "datasets/lm/wikitext103.txt", "validation_megabytes": 0, "d_model": 256},
        **{"n_layers": 4, "n_heads": 4, "d_mlp": 1024, "context_length": 512},
        **{"batch_tokens": 32_768, "vocab_size": 16_384, "lm_eval_limit": 256},
        "lm_eval_tasks": ("lambada_openai", "hellaswag"),
    },
    "memory": {"d_model": 512, "n_layers": 8, "n_heads": 8},
}


@pytest.mark.parametrize("name", PLANNED)
def test_the_gpu_preset_is_that_of_the_original_plan(name):
    assert config_of("gpu", name).model_dump(include=set(PLANNED[name])) == PLANNED[name]


@pytest.mark.parametrize(("preset", "seeds"), [("cpu", 3), ("gpu", 5)])
def test_measurements_that_are_evidence_ask_for_all_that_is_compared_and_repeat_it(preset, seeds):
    memory, peer = config_of(preset, "memory"), config_of(preset, "peer")
    shootout = config_of(preset, "shootout")

    assert {arm.name for arm in arms_of(shootout)} == set(all_arms())
    assert len(shootout.seeds) >= seeds
    assert shootout.side_seeds >= 3
    assert {"respsann", "gelu", "gelu_scaled"} <= set(shootout.scale_arms)
    assert config_of(preset, "throughput").n_repeats >= 6
    assert {name: getattr(memory, name) for name in PLANNED["memory"]} == PLANNED["memory"]
    assert set(memory.precision) == {"fp32", "auto" if preset == "cpu" else "bf16"}
    assert set(memory.variants) == {"plain_sine", "plain_loss"}
    assert all(goal(precision, memory) for precision in ("fp32", "bf16"))
    assert memory.peer
    assert set(peer.work) == {"forward", "train_step", "generate", "saved"}
    assert set(peer.setting) == {"defaults", "best"}
    assert peer.n_repeats >= 6
    assert peer.protocol_batch_tokens
