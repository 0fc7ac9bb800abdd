"""Tasks of lm-eval give what scoring by hand gives, and what cannot be asked is refused first."""

import json
import math
import socket
import sys
from statistics import fmean, stdev

import pytest
import torch
import yaml

from psannlm import ROOT
from psannlm.config.schema import ConfigError
from psannlm.pages.shootout import lm_eval as harness
from psannlm.train.tokenizer import byte_tokenizer
from tests.networks import moved, tiny

slow = pytest.mark.slow  # lm-eval takes seconds to load
EVALS = ROOT / "params" / "evals"
END = 256
WORDS = [
    {"context": "He could not find his", "target": " keys"},
    {"context": "Before the rain came she had shut the", "target": " windows"},
    {"context": "Nobody", "target": " a"},
]
SCENES = [
    {"query": "Sailing: He", "choices": ["ties it.", "eats", "o"], "gold": 1},
    {"query": "Cooking: A woman", "choices": ["is", "stirs the soup"], "gold": 0},
    {"query": "Rowing: Two", "choices": ["rows", "men sit down", "x y", "are"], "gold": 3},
    {"query": "Never asked:", "choices": ["a", "b"], "gold": 0},
]


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project's folder with items of both tasks, and no network."""
    pytest.importorskip("lm_eval", reason="an extra")
    items = tmp_path / "datasets" / "evals"
    items.mkdir(parents=True)
    for name, rows in (("lambada_test", WORDS), ("hellaswag_val", SCENES)):
        (items / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "CACHE", tmp_path / "cache")
    asked = []

    def refuse(*address, **_):
        asked.append(address)  # an error alone would be swallowed
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tmp_path
    assert asked == []


@pytest.fixture
def network(float64):
    return moved(tiny(vocab_size=END + 1, context_length=64))


def evaluated(network, *tasks: str, limit: int = 3, batch: int = 4, folder=EVALS):
    scores = harness.evaluate_tasks(
        network,
        byte_tokenizer(),
        tasks=tasks,
        limit=limit,
        folder=str(folder),
        device=torch.device("cpu"),
        precision="fp32",
        batch=batch,
    )
    return {(score.task, score.metric): score for score in scores}


def by_hand(network, context: str, continuation: str) -> tuple[float, bool]:
    """Likelihood of a continuation, and whether it is greedy, a full pass a token."""
    ids, total, greedy = [END, *context.encode()], 0.0, True
    for target in continuation.encode():
        with torch.no_grad():
            logs = network(torch.tensor([ids]))[0, -1].log_softmax(-1)
        total += logs[target].item()
        greedy &= logs.argmax().item() == target
        ids.append(target)
    return total, greedy


@slow
def test_the_last_word_is_scored_as_by_hand(home, network):
    found = evaluated(network, "lambada_local")

    hand = [by_hand(network, row["context"], row["target"]) for row in WORDS]
    perplexity = found["lambada_local", "perplexity"]
    assert perplexity.value == pytest.approx(math.exp(-fmean(n for n, _ in hand)), rel=1e-12)
    assert perplexity.stderr > 0
    assert perplexity.items == ()
    accuracy = found["lambada_local", "acc"]
    assert accuracy.items == tuple(float(greedy) for _, greedy in hand)
    assert accuracy.chance is None
    assert (perplexity.n_items, accuracy.n_items) == (3, 3)


@slow
def test_endings_are_chosen_as_by_hand(home, network):
    found = evaluated(network, "hellaswag_local")

    right = {"acc": [], "acc_norm": []}
    for scene in SCENES[:3]:
        nats = [by_hand(network, scene["query"], " " + one)[0] for one in scene["choices"]]
        by_length = [n / len(one) for n, one in zip(nats, scene["choices"], strict=True)]
        for metric, scores in (("acc", nats), ("acc_norm", by_length)):
            right[metric].append(float(scores.index(max(scores)) == scene["gold"]))
    for metric, items in right.items():
        score = found["hellaswag_local", metric]
        assert score.items == tuple(items)
        assert score.value == pytest.approx(fmean(items))
        assert score.stderr == pytest.approx(stdev(items) / math.sqrt(3))
        assert score.chance == pytest.approx(fmean([1 / 3, 1 / 2, 1 / 4]))
    assert right["acc"] != right["acc_norm"], "the two must differ to be told apart"


@slow
def test_nothing_is_said_or_left_behind(home, network, monkeypatch, capfd):
    monkeypatch.chdir(home / "datasets")
    monkeypatch.setenv("HOME", str(home / "nobody"))
    network.train()

    evaluated(network, "lambada_local")

    assert network.training
    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in home.iterdir()) == ["cache", "datasets"]


def defined(home, **changes) -> str:
    """A folder with one task; keywords change its definition."""
    folder = home / "tasks"
    folder.mkdir()
    task = yaml.safe_load((EVALS / "lambada_local.yaml").read_text()) | {"task": "mine"} | changes
    (folder / "mine.yaml").write_text(yaml.safe_dump(task))
    return "tasks"


@slow
def test_continuations_are_asked_for_too(home, network):
    changes = {
        "output_type": "generate_until",
        "generation_kwargs": {"until": ["."], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
        "filter_list": [
            {"name": name, "filter": [{"function": "take_first"}]} for name in ("one", "other")
        ],
    }
    folder = defined(home, **changes)

    found = evaluated(network, "mine", folder=folder)

    assert list(found) == [("mine", "exact_match,one"), ("mine", "exact_match,other")]
    assert [score.items for score in found.values()] == [(0.0, 0.0, 0.0)] * 2


@slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"dataset_kwargs": {"data_files": "datasets/none.jsonl"}},
            "items of 'mine' must be in .*none.jsonl, which does not exist; put them there",
        ),
        (
            {"doc_to_text": "{{nothing.at.all}}"},
            "items of 'mine' cannot be read: UndefinedError: .*; compare them with the task's",
        ),
        (
            {"dataset_path": "nobody/nothing", "dataset_kwargs": {}},
            "items of 'mine' cannot be read: .*; check the network connection, or name an lm_eval",
        ),
        (
            {"output_type": "generate_until", "generation_kwargs": {"num_beams": 4}},
            "generation_kwargs must be among .* got num_beams",
        ),
    ],
    ids=["no file", "no field", "no hub", "unknown wish"],
)
def test_a_task_that_cannot_be_asked_is_refused(home, monkeypatch, changes, message):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    folder = defined(home, **changes)

    with pytest.raises(ConfigError, match=message) as refused:
        harness.refuse_missing(["mine"], folder)

    assert "\n" not in str(refused.value)


@slow
def test_an_unknown_task_is_refused_with_the_nearest(home):
    known = "There are: hellaswag_local, lambada_local"

    with pytest.raises(ConfigError, match=f"unknown task 'lambada', did you mean .*{known}"):
        harness.refuse_missing(["hellaswag_local", "lambada"], str(EVALS))


@slow
def test_of_lm_evals_own_tasks_the_nearest_is_named_too(home):
    with pytest.raises(ConfigError, match=r"'hellaswagg', did you mean 'hellaswag'\?"):
        harness.refuse_missing(["hellaswagg"], "")


@pytest.mark.parametrize("folder", ["", "params/evals"])
def test_the_missing_extra_is_named_with_the_way_to_it(monkeypatch, folder):
    harness._all_tasks.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)

    with pytest.raises(ConfigError, match=r"run: pip install 'psannlm-report\[lm-eval\]'"):
        harness.refuse_missing(["lambada_local"], folder)


def test_a_folder_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match=r"lm_eval_folder must be .*, got params/eval, which"):
        harness.refuse_missing(["lambada_local"], "params/eval")
