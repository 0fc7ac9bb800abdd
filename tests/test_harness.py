"""A network answers lm-eval as scoring by hand does; what cannot be asked is refused first."""

import importlib
import json
import math
import socket
from statistics import fmean, stdev
from types import SimpleNamespace

import pytest
import torch
import yaml

from psannlm import ROOT, places
from psannlm.config.schema import ConfigError
from psannlm.train.tokenizer import byte_tokenizer, train_bpe
from tests.networks import moved, tiny

EVALS = ROOT / "params" / "evals"
CONTEXT = 24
END = 256
"""Of the tokenizer of bytes."""

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
PAIRS = [
    ("He is", " here"),
    ("", "alone"),
    ("long ago," * 8, " end"),
    ("x", "a"),
    ("é ü", " ö"),
    ("A context", ", and all that is left of it"[:CONTEXT]),
]
LONG = "what is told and told again, and never comes to an end, ever and ever"

pytestmark = pytest.mark.slow  # lm-eval takes seconds to load


@pytest.fixture
def harness():
    pytest.importorskip("lm_eval", reason="an extra")
    return importlib.import_module("psannlm.pages.shootout.lm_eval")


@pytest.fixture
def network(float64):
    """One that writes ASCII, so that what it writes can be asked of it again."""
    model = moved(tiny(vocab_size=END + 1, context_length=CONTEXT))
    model.lm_head.weight.data[128:] = 0
    return model


@pytest.fixture
def asked(harness):
    def model(network, batch=3, tokenizer=None):
        return harness.HarnessModel(network, tokenizer or byte_tokenizer(), "fp32", batch)

    return model


def requests(*arguments):
    return [SimpleNamespace(args=one) for one in arguments]


def logs(network, ids: list[int]):
    """Log-chances of what follows `ids`, from a pass over all of them."""
    with torch.no_grad():
        return network(torch.tensor([ids]))[0, -1].log_softmax(-1)


def by_hand(network, before: list[int], targets: list[int]) -> tuple[float, bool]:
    """Likelihood of targets, and whether greedy decoding gives them, by a full pass a token."""
    total, greedy = 0.0, True
    first = max(0, len(before) + len(targets) - network.config.context_length - 1)
    for place, target in enumerate(targets):
        found = logs(network, (before + targets[:place])[first:])
        total += found[target].item()
        greedy &= found.argmax().item() == target
    return total, greedy


def of_texts(network, context: str, continuation: str) -> tuple[float, bool]:
    return by_hand(network, [END, *context.encode()], list(continuation.encode()))


def rolled_by_hand(network, start: int, ids: list[int]) -> float:
    """Each token once: in groups of the context's length, the last with all the context it fits."""
    total = 0.0
    for place, target in enumerate(ids):
        end = min((place // CONTEXT + 1) * CONTEXT, len(ids))
        first = max(0, end - CONTEXT)
        total += logs(network, [start, *ids][first : place + 1])[target].item()
    return total


def greedily(network, ids: list[int], n_tokens: int) -> str:
    """Greedy decoding without any cache."""
    for _ in range(n_tokens):
        ids = [*ids, logs(network, ids).argmax().item()]
    return bytes(ids[-n_tokens:]).decode() if n_tokens else ""


@pytest.mark.parametrize("batch", [1, 3, len(PAIRS)])
def test_likelihoods_are_those_of_scoring_token_by_token(asked, network, batch):
    found = asked(network, batch).loglikelihood(requests(*PAIRS))

    for pair, (likelihood, greedy) in zip(PAIRS, found, strict=True):
        expected = of_texts(network, *pair)
        assert likelihood == pytest.approx(expected[0], rel=1e-12)
        assert greedy is expected[1]


def test_what_greedy_decoding_writes_is_called_greedy(asked, network):
    text = greedily(network, [END, *b"He is"], 4)
    other = text[:-1] + ("a" if text[-1] != "a" else "b")
    rolled = "nothing that it would say"[:CONTEXT]
    last = chr(logs(network, list(rolled.encode())).argmax())

    found = asked(network).loglikelihood(
        requests(("He is", text), ("He is", other), ("Once", rolled + last))
    )

    assert [greedy for _, greedy in found] == [True, False, False]


@pytest.mark.parametrize("n", [CONTEXT + 1, 2 * CONTEXT, 60])
def test_a_continuation_longer_than_the_context_is_rolled_over(asked, network, n):
    [(found, _)] = asked(network).loglikelihood(requests(("Once", LONG[:n])))

    expected = rolled_by_hand(network, ord("e"), list(LONG[:n].encode()))
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n", [0, 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT, 60])
def test_every_token_of_a_long_text_is_predicted_once(asked, network, n):
    found, other = asked(network).loglikelihood_rolling(requests((LONG[:n],), ("other",)))

    expected = rolled_by_hand(network, END, list(LONG[:n].encode()))
    assert found == pytest.approx(expected, rel=1e-12)
    assert other == pytest.approx(of_texts(network, "", "other")[0], rel=1e-12)


def test_white_space_at_the_end_of_a_context_counts_to_the_continuation(asked, network):
    [before, behind] = asked(network).loglikelihood(requests(("a b ", "c"), ("a b", " c")))

    assert before[0] == pytest.approx(behind[0], rel=1e-12)
    assert before[1] == behind[1]


def test_a_token_across_the_border_is_not_lost(asked, float64):
    tokenizer = train_bpe(["thing thing thing thing"], 260)
    network = moved(tiny(vocab_size=tokenizer.vocab_size, context_length=CONTEXT))
    assert len(tokenizer.encode("thing")) < len(tokenizer.encode("th") + tokenizer.encode("ing"))

    [(found, _)] = asked(network, tokenizer=tokenizer).loglikelihood(requests(("th", "ing")))

    before = [tokenizer.end_of_text, *tokenizer.encode("th")]
    expected = by_hand(network, before, tokenizer.encode("ing"))[0]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.fixture
def home(harness, tmp_path, monkeypatch):
    """A project's folder with items of both tasks, and no network."""
    items = tmp_path / "datasets" / "evals"
    items.mkdir(parents=True)
    for name, rows in (("lambada_test", WORDS), ("hellaswag_val", SCENES)):
        (items / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(harness, "ROOT", tmp_path)
    monkeypatch.setattr(places, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "CACHE", tmp_path / "cache")
    addresses = []

    def refuse(*address, **_):
        addresses.append(address)  # an error alone would be swallowed
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tmp_path
    assert addresses == []


@pytest.fixture
def evaluated(home, harness, asked, network):
    def scores(task, folder=EVALS):
        model = asked(network, batch=4)
        found = harness.evaluate_tasks(model, tasks=[task], limit=3, folder=str(folder))
        assert {score.task for score in found} == {task}
        return {score.metric: score for score in found}

    return scores


def test_the_last_word_is_scored_as_by_hand(evaluated, network):
    found = evaluated("lambada_local")

    hand = [of_texts(network, row["context"], row["target"]) for row in WORDS]
    perplexity, accuracy = found["perplexity"], found["acc"]
    assert perplexity.value == pytest.approx(math.exp(-fmean(n for n, _ in hand)), rel=1e-12)
    assert perplexity.stderr > 0
    assert perplexity.items == ()
    assert accuracy.items == tuple(float(greedy) for _, greedy in hand)
    assert accuracy.chance is None
    assert (perplexity.n_items, accuracy.n_items) == (3, 3)


def test_endings_are_chosen_as_by_hand(evaluated, network):
    found = evaluated("hellaswag_local")

    right = {"acc": [], "acc_norm": []}
    for scene in SCENES[:3]:
        nats = [of_texts(network, scene["query"], " " + one)[0] for one in scene["choices"]]
        by_length = [n / len(one) for n, one in zip(nats, scene["choices"], strict=True)]
        for metric, scores in (("acc", nats), ("acc_norm", by_length)):
            right[metric].append(float(scores.index(max(scores)) == scene["gold"]))
    for metric, items in right.items():
        score = found[metric]
        assert score.items == tuple(items)
        assert score.value == pytest.approx(fmean(items))
        assert score.stderr == pytest.approx(stdev(items) / math.sqrt(3))
        assert score.chance == pytest.approx(fmean([1 / 3, 1 / 2, 1 / 4]))
    assert right["acc"] != right["acc_norm"], "the two must differ to be told apart"


def test_nothing_is_said_or_left_behind(home, evaluated, monkeypatch, capfd):
    monkeypatch.chdir(home / "datasets")
    monkeypatch.setenv("HOME", str(home / "nobody"))

    evaluated("lambada_local")

    assert capfd.readouterr() == ("", "")
    assert sorted(path.name for path in home.iterdir()) == ["cache", "datasets"]


def defined(home, **changes) -> str:
    """A folder with one task; keywords change its definition."""
    folder = home / "tasks"
    folder.mkdir()
    task = yaml.safe_load((EVALS / "lambada_local.yaml").read_text()) | {"task": "mine"} | changes
    (folder / "mine.yaml").write_text(yaml.safe_dump(task))
    return "tasks"


def test_each_filter_of_a_metric_has_a_score(home, evaluated):
    first = [{"function": "take_first"}]
    filters = [{"name": name, "filter": first} for name in ("one", "other")]

    found = evaluated("mine", folder=defined(home, filter_list=filters))

    assert list(found) == [f"{m},{way}" for way in ("one", "other") for m in ("perplexity", "acc")]
    assert found["acc,one"].items == found["acc,other"].items != ()


@pytest.mark.parametrize(
    ("tasks", "folder", "message"),
    [
        (["hellaswag_local", "lambada"], str(EVALS),
         "unknown task 'lambada', did you mean .*There are: hellaswag_local, lambada_local"),
        (["hellaswagg"], "", r"'hellaswagg', did you mean 'hellaswag'\?"),
        (["lambada_local"], "params/eval", r"lm_eval_folder must be .*, got params/eval, which"),
        (["mine"], {"dataset_kwargs": {"data_files": "datasets/none.jsonl"}},
         "items of 'mine' must be in .*none.jsonl, which does not exist; put them there"),
        (["mine"], {"doc_to_text": "{{nothing.at.all}}"},
         "items of 'mine' cannot be read: UndefinedError: .*; compare them with the task's"),
        (["mine"], {"dataset_path": "nobody/nothing", "dataset_kwargs": {}},
         "items of 'mine' cannot be read: .*; check the network connection, or name an lm_eval"),
        (["mine"], {"output_type": "generate_until"}, "'mine' asks for text, .*; leave it out"),
    ],
    ids=["own", "of lm-eval", "no folder", "no file", "no field", "no hub", "text"],
)  # fmt: skip
def test_a_task_that_cannot_be_asked_is_refused(home, harness, monkeypatch, tasks, folder, message):
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)

    with pytest.raises(ConfigError, match=message) as refused:
        harness.load_tasks(tasks, folder if isinstance(folder, str) else defined(home, **folder))

    assert "\n" not in str(refused.value)
