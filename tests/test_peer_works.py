"""What the processes of either side measure, on networks whose every number is known."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import psannlm
from psannlm.bench import memory, timing
from psannlm.bench import worker as shared
from psannlm.bench.timing import Timing
from psannlm.config.network import ModelConfig
from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.pages.peer import protocol, published, worker, works
from psannlm.pages.peer.ours import Ours
from psannlm.pages.peer.protocol import CHECKS, N_STEPS, N_WARMUP, WIDE
from psannlm.pages.peer.published import Published, endless
from psannlm.pages.peer.works import batch_of, n_parameters, next_token_loss
from tests.peers import TOOLS, side_task, stand_in, text_of
from tests.standing_alone import foreign_imports

ALONE = (timing, memory, shared, works, protocol, published, worker)


class Known:
    """An embedding and a head; tells what it was asked for."""

    attention, loss, generation, note = "no attention", "plain loss", "all at once", "a stand-in"

    def __init__(self, n_made: int = 5) -> None:
        self.n_made, self.asked = n_made, []
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(24, 8), nn.Linear(8, 24, bias=False))

    def network(self, *, checkpointing: bool = False) -> nn.Module:
        return self.model

    def loss_of(self, model: nn.Module, *, compiled: bool) -> Callable[[Tensor, Tensor], Tensor]:
        self.asked.append(compiled)
        return lambda tokens, targets: next_token_loss(model, tokens, targets, "fp32")

    def generator(self, prompt: list[int]) -> Callable[[], int]:
        self.prompt = prompt
        return lambda: self.n_made


def time_steps(step, *, stopwatch, min_seconds, min_steps) -> Timing:
    """Three steps, of which two are timed."""
    results = [step() for _ in range(3)]
    seconds = tuple(1.0 for _ in results[1:])
    return Timing(first_seconds=1.0, n_warmup=1, steady=True, seconds=seconds)


FAST = SimpleNamespace(
    **vars(TOOLS) | {"timing": SimpleNamespace(**vars(timing) | {"time_steps": time_steps})}
)


def measured(side, mode, tools=FAST, **changes):
    return (works.MODES | protocol.MODES)[mode](side, side_task(**changes), tools)


@pytest.mark.parametrize("module", ALONE)
def test_what_another_interpreter_loads_needs_torch_alone(module):
    assert foreign_imports(module) == set()


def test_both_sides_get_the_same_tokens_and_those_that_follow():
    tokens, targets = batch_of(side_task())

    text = text_of(side_task())
    assert torch.equal(tokens, text[:, :-1])
    assert torch.equal(targets, text[:, 1:])
    assert not torch.equal(tokens, batch_of(side_task(seed=1))[0])


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp32", torch.float)])
def test_a_forward_pass_is_in_evaluation_mode_without_gradients(precision, dtype):
    side, seen = Known(), []
    side.model.register_forward_hook(
        lambda model, inputs, out: seen.append((model.training, out.requires_grad, out.dtype))
    )

    found = measured(side, "forward", precision=precision)

    assert seen == [(False, False, dtype)] * 3
    assert found == {
        "n_parameters": 2 * 24 * 8,
        "choices": "no attention; eager; a stand-in",
        "tokens": 16,
        "seconds": (1.0, 1.0),
    }


def test_a_training_step_learns():
    side = Known()
    before = [p.clone() for p in side.model.parameters()]

    found = measured(side, "train_step")

    assert side.model.training
    assert not any(torch.equal(a, b) for a, b in zip(before, side.model.parameters(), strict=True))
    assert found["choices"] == "no attention; plain loss; eager; a stand-in"


def test_a_loss_that_is_no_number_is_a_failure():
    side = Known()
    with torch.no_grad():
        side.model[1].weight.fill_(math.nan)

    with pytest.raises(ArithmeticError, match="loss is nan after 2 timed steps"):
        measured(side, "train_step")


def test_saved_bytes_are_those_of_the_whole_step_without_parameters():
    found = measured(Known(), "saved")

    tokens, embedded, log_probabilities, targets = 16 * 8, 16 * 8 * 4, 16 * 24 * 4, 16 * 8
    # Besides, the sum of the targets' weights.
    assert found["saved_bytes"] == tokens + embedded + log_probabilities + targets + 4
    assert found["seconds"] == ()


def test_generation_continues_the_first_tokens_of_the_batch():
    side = Known()

    found = measured(side, "generate")

    assert side.prompt == text_of(side_task())[0, :3].tolist()
    assert (found["tokens"], found["choices"]) == (
        5,
        "no attention; all at once; eager; a stand-in",
    )
    with pytest.raises(ArithmeticError, match="made 4 tokens where 5 were asked for"):
        measured(Known(n_made=4), "generate")


@pytest.fixture
def compiled(monkeypatch):
    """Calls of functions that were asked to be compiled."""
    calls = []

    def compile_(function):
        def whole(*inputs):
            calls.append(inputs)
            return function(*inputs)

        return whole

    monkeypatch.setattr(torch, "compile", compile_)
    return calls


@pytest.mark.parametrize(
    ("work", "asked"),
    [("forward", []), ("train_step", [True]), ("saved", [False]), ("generate", [])],
)
def test_the_best_setting_alone_is_compiled_where_it_is_timed_by_the_step(work, asked, compiled):
    measured(Known(), work)
    assert compiled == []

    side = Known()
    found = measured(side, work, setting="best")

    assert side.asked == asked
    by_step = work in ("forward", "train_step")
    assert len(compiled) == (1 + 3 if by_step else 0)
    assert ("compiled" in found["choices"]) == by_step


def refuses(error: Exception) -> Callable:
    def fails(*_):
        raise error

    return lambda function: fails


@pytest.mark.parametrize("work", ["forward", "train_step"])
def test_what_does_not_compile_is_measured_eager_and_says_so(work, monkeypatch):
    monkeypatch.setattr(torch, "compile", refuses(ValueError("no such\noperation")))

    found = measured(Known(), work, setting="best")

    assert "eager, as it does not compile (ValueError: no such)" in found["choices"]
    assert len(found["seconds"]) == 2


def test_memory_that_runs_out_in_compiling_is_a_failure(monkeypatch):
    monkeypatch.setattr(torch, "compile", refuses(torch.OutOfMemoryError("8 GiB")))

    with pytest.raises(torch.OutOfMemoryError):
        measured(Known(), "forward", setting="best")


# Our side.


@pytest.mark.parametrize("base", BASES)
def test_our_network_is_that_of_the_task(base):
    task = side_task(base=base)

    model = Ours(task).network()

    assert n_parameters(model) == cost_of(model.config, Shape(1, 1)).n_parameters
    assert model.config.model_dump() == task["model"]


def test_our_weights_are_drawn_by_the_seed_and_checkpointing_changes_none():
    first, other = (Ours(side_task(seed=seed)).network() for seed in (0, 1))
    again = Ours(side_task()).network(checkpointing=True)

    assert (first.config.grad_checkpoint, again.config.grad_checkpoint) == (False, True)
    assert torch.equal(first.lm_head.weight, again.lm_head.weight)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_our_loss_is_that_of_the_next_token_and_generation_makes_all_tokens():
    side = Ours(side_task(new_tokens=5))
    model = side.network().train()
    tokens, targets = batch_of(side.task)

    loss = side.loss_of(model, compiled=False)(tokens, targets)

    expected = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert side.generator([1, 2, 3])() == 5


# The published package's side, on a stand-in with its interface.


@pytest.fixture
def package(monkeypatch):
    return stand_in(monkeypatch)


def theirs(package, **changes) -> Published:
    return Published(side_task(python="other", **changes), package, works)


def test_their_network_has_the_shape_and_positions_of_ours(package):
    found = theirs(package, base="transformer")

    shape = {"vocab_size": 24, "d_model": 8, "n_layers": 2, "n_heads": 2, "d_mlp": 12}
    assert (found.config.base, dict(found.config.shape)) == ("transformer", shape)
    assert found.config.positional_encoding == "rope"
    assert found.network().config == found.config
    assert found.network(checkpointing=True).checkpointed
    assert not found.network().checkpointed


def test_their_weights_are_drawn_by_the_seed(package):
    first, again, other = (theirs(package, seed=seed).network() for seed in (0, 0, 1))

    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_waveresnet_without_options_is_said_to_be_respsann(package):
    assert theirs(package, base="waveresnet").note.endswith("same network as respsann")
    assert theirs(package, base="respsann").note == ""
    with pytest.raises(ValueError, match="sgrpsann"):
        theirs(package, base="sgrpsann")


@pytest.mark.parametrize(("precision", "rel"), [("fp32", 1e-6), ("bf16", 1e-2)])
def test_their_loss_is_that_of_the_next_token_in_the_precision(package, precision, rel):
    found = theirs(package, precision=precision)
    model = found.network()
    tokens, targets = batch_of(found.task)

    loss = found.loss_of(model, compiled=False)(tokens, targets)

    probabilities = model(tokens).log_softmax(-1).gather(-1, targets[..., None])
    assert loss.item() == pytest.approx(-probabilities.mean().item(), rel=rel)


@pytest.mark.parametrize(
    ("setting", "attention", "called"),
    [
        ("defaults", "math", ("generate", {"top_k": 1})),
        ("best", "sdpa", ("generate_batch", {"top_k": 1, "top_p": None})),
    ],
)
def test_the_setting_chooses_attention_and_how_to_generate(package, setting, attention, called):
    found = theirs(package, setting=setting)

    assert found.generator([4, 5, 6])() == 5

    [language] = package.made
    assert language.asked == [called]
    assert language.config == found.config
    assert found.config.attention_implementation == attention
    assert found.attention == f"{attention} attention"
    assert found.generation.startswith(called[0])


def test_a_text_has_no_end_and_is_always_the_prompt(package):
    tokenizer = endless(package, [4, 5, 6])

    tokenizer.decode([7, 8])

    assert (tokenizer.encode("whatever"), tokenizer.eos_id) == ([4, 5, 6], -1)
    assert tokenizer.made == (7, 8)


# The original's own protocol.


def test_the_network_of_the_throughput_has_the_size_that_the_original_has():
    config = ModelConfig(base="respsann", context_length=256, **WIDE)
    n = cost_of(config, Shape(1, 256)).n_parameters
    ends = 2 * WIDE["vocab_size"] * WIDE["d_model"]

    assert n == pytest.approx(19.5e6, rel=0.005)
    assert ends / n == pytest.approx(0.84, abs=0.005)
    # FLOPs a token at 131,072 tokens: four layers with causal attention, then the head.
    length = CHECKS["GPU-03"].context_length(131_072)
    layer = 2 * (4 * 256**2 + 2 * 256 * 1024) + 4 * length * 256
    assert 4 * layer + 2 * 32_000 * 256 == pytest.approx(39.5e6, rel=0.01)


def test_the_sanity_throughput_is_that_of_four_short_sequences():
    speed = CHECKS["GPU-03"]

    assert list(map(speed.context_length, (1024, 65_536, 100, 5000))) == [256, 4096, 100, 256]
    assert speed.batches([1024, 65_536]) == (1024, 65_536)
    assert CHECKS["GPU-02"].batches([1024, 65_536]) == (13,)
    assert CHECKS["GPU-04"].batches([1024, 65_536]) == (64,)


class Spoken:
    """A network that counts its calls, and in half precision predicts nothing."""

    def __init__(self) -> None:
        self.n_calls, self.modes = 0, []

    def network(self, *, checkpointing: bool = False) -> "Spoken":
        return self

    def eval(self) -> "Spoken":
        self.modes.append("eval")
        return self

    def __call__(self, tokens):
        self.n_calls += 1
        assert not torch.is_grad_enabled()
        half = torch.is_autocast_enabled("cpu")
        return (0 if half else 2) * nn.functional.one_hot(tokens, 24).float()


def test_parity_is_the_relative_difference_of_a_loss_that_predicts_its_own_input():
    found = measured(Spoken(), "GPU-02", batch=1, tokens=13)

    # A softmax over 24 tokens, that of the input 2 above the others.
    plain = math.log(math.exp(2) + 23) - 2
    value, reason = found["values"]["rel_diff"]
    assert value == pytest.approx((math.log(24) - plain) / plain, rel=1e-5)
    assert reason == ""


def test_the_speed_is_that_of_one_window_after_a_warm_up(monkeypatch):
    side = Spoken()
    monkeypatch.setattr(protocol.time, "perf_counter", lambda: float(side.n_calls))

    found = measured(side, "GPU-03")

    assert side.n_calls == N_WARMUP + N_STEPS == 25
    assert side.modes == ["eval"]
    assert found["values"]["tokens_per_s"] == (20 * 16 / 20, "")


def test_a_checkpointed_step_saves_less_than_a_plain_one_and_a_cpu_has_no_peak():
    task = {"batch": 1, "tokens": 8}
    side = Ours(side_task(**task))

    values = measured(side, "GPU-04", TOOLS, **task)["values"]

    assert set(values) == set(CHECKS["GPU-04"].measures)
    nothing = (None, "only a GPU's allocator tells its peak")
    assert values["max_allocated_mib"] == values["max_reserved_mib"] == nothing
    assert values["elapsed_s"][0] > 0
    plain = measured(side, "saved", **task)["saved_bytes"]
    assert 0 < values["saved_mib"][0] < plain / 2**20


# The script that runs in either interpreter.


def test_our_side_is_our_package(monkeypatch):
    assert isinstance(worker.side_of(side_task(), TOOLS), Ours)

    other = SimpleNamespace(__file__="/elsewhere/psannlm/__init__.py")
    monkeypatch.setitem(sys.modules, "psannlm", other)
    with pytest.raises(ImportError, match="is not ours"):
        worker.side_of(side_task(), TOOLS)


def test_the_other_package_is_the_one_of_its_interpreter(package, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ImportError, match="not the one that was installed"):
        worker.side_of(side_task(python="other"), TOOLS)

    package.__file__ = str(tmp_path / "lib" / "psannlm" / "__init__.py")
    monkeypatch.setitem(sys.modules, "psannlm", package)
    side = worker.side_of(side_task(python="other", setting="best"), TOOLS)

    assert type(side).__name__ == "Published"
    assert side.attention == "sdpa attention"


def test_what_is_shared_is_loaded_from_its_file(monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    loaded = worker.load("memory")

    assert loaded is not memory
    assert Path(str(loaded.__file__)) == Path(str(memory.__file__))


@pytest.fixture
def rows(monkeypatch, tmp_path):
    """Runs a task of these modes with these measures; tells its lines."""

    def run(**measures: Callable) -> list[dict]:
        stubs = {"works": SimpleNamespace(MODES=measures)}
        monkeypatch.setattr("psannlm.bench.worker.stop_when_orphaned", lambda: None)
        monkeypatch.setattr(worker, "load", lambda stem: stubs.get(stem, getattr(TOOLS, stem)))
        (tmp_path / "task").write_text(json.dumps(side_task(modes=list(measures))))
        worker.main([str(tmp_path / "task"), str(tmp_path / "result")])
        return [json.loads(line) for line in (tmp_path / "result").read_text().splitlines()]

    return run


def test_a_failed_mode_does_not_take_the_next_with_it(rows):
    def full(side, task, tools):
        raise MemoryError("full")

    first, second = rows(forward=full, generate=lambda side, task, tools: {"tokens": 5})

    assert (first["mode"], first["status"]) == ("forward", "failed")
    assert first["reason"] == "out of memory: full"
    assert (second["mode"], second["status"], second["reason"]) == ("generate", "ok", "")
    assert second["tokens"] == 5
    assert first["started_at"].endswith("+00:00")


def test_a_wrong_package_is_the_reason_of_every_mode(rows, monkeypatch):
    monkeypatch.setattr(psannlm, "__file__", "/elsewhere/psannlm/__init__.py")

    found = rows(forward=lambda *_: {}, saved=lambda *_: {})

    assert [row["status"] for row in found] == ["failed"] * 2
    assert all("not ours" in row["reason"] for row in found)
