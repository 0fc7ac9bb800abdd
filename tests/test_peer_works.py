"""What the processes of either side measure, on networks whose every number is known."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import psannlm
from psannlm.bench import timing
from psannlm.bench import worker as bench_worker
from psannlm.bench.timing import Timing
from psannlm.config.network import ModelConfig
from psannlm.model.bases import BASES, cost_of
from psannlm.model.cost import Shape
from psannlm.pages.peer import worker, works
from psannlm.pages.peer.ours import Ours
from psannlm.pages.peer.worker import Published, endless
from psannlm.pages.peer.works import CHECKS, WIDE, batch_of, next_token_loss
from psannlm.train import compilation
from tests import stand_in
from tests.peers import side_task


class Known:
    """An embedding and a head; tells what it was asked for."""

    attention, loss, generation, note = "no attention", "plain loss", "all at once", "a stand-in"

    def __init__(self, n_made: int = 5) -> None:
        self.n_made, self.asked = n_made, []
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Embedding(24, 8), nn.Linear(8, 24, bias=False))

    def network(self, *, checkpointing: bool = False):
        return self.model

    def loss_of(self, model, *, compiled: bool):
        self.asked.append(compiled)
        return lambda tokens, targets: next_token_loss(model, tokens, targets, "fp32")

    def generator(self, prompt):
        self.prompt = prompt
        return lambda: self.n_made


def time_steps(step, *, stopwatch, min_seconds, min_steps, emulated) -> Timing:
    """Three steps, of which two are timed."""
    results = [step() for _ in range(3)]
    seconds = tuple(1.0 for _ in results[1:])
    return Timing(first_seconds=1.0, n_warmup=1, steady=True, seconds=seconds)


TOOLS = SimpleNamespace(
    timing=SimpleNamespace(**vars(timing) | {"time_steps": time_steps}),
    worker=bench_worker,
    compilation=compilation,
    works=works,
)


def measured(side, mode, **changes):
    side.task = side_task(**changes)
    return works.MODES[mode](side, TOOLS)


def test_both_sides_get_the_same_tokens_and_those_that_follow():
    tokens, targets = batch_of(side_task())

    assert tokens.shape == targets.shape == (2, 16)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert len(tokens.unique()) > 10
    assert torch.equal(tokens, batch_of(side_task())[0])
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
        "tokens": 32,
        "seconds": (1.0, 1.0),
    }


def test_a_training_step_learns_and_a_loss_that_is_no_number_is_a_failure():
    side = Known()
    before = [p.clone() for p in side.model.parameters()]

    found = measured(side, "train_step")

    assert side.model.training
    assert not any(torch.equal(a, b) for a, b in zip(before, side.model.parameters(), strict=True))
    assert found["choices"] == "no attention; plain loss; eager; a stand-in"
    with torch.no_grad():
        side.model[1].weight.fill_(math.nan)
    with pytest.raises(ArithmeticError, match="loss is nan after 2 timed steps"):
        measured(side, "train_step")


def test_saved_bytes_are_those_of_the_whole_step_without_parameters():
    found = measured(Known(), "saved")

    tokens, embedded, log_probabilities, targets = 32 * 8, 32 * 8 * 4, 32 * 24 * 4, 32 * 8
    # Besides, the sum of the targets' weights.
    assert found["saved_bytes"] == tokens + embedded + log_probabilities + targets + 4
    assert found["seconds"] == ()


def test_generation_continues_the_first_tokens_of_the_batch():
    side = Known()

    found = measured(side, "generate")

    assert side.prompt == batch_of(side.task)[0][0, :3].tolist()
    assert found["tokens"] == 5
    assert found["choices"] == "no attention; all at once; eager; a stand-in"
    with pytest.raises(ArithmeticError, match="made 4 tokens where 5 were asked for"):
        measured(Known(n_made=4), "generate")


@pytest.mark.parametrize(
    ("work", "asked", "n_calls"),
    [("forward", [], 4), ("train_step", [True], 4), ("saved", [False], 0), ("generate", [], 0)],
)
def test_the_best_setting_alone_is_compiled_where_it_is_timed_by_the_step(
    work, asked, n_calls, monkeypatch
):
    calls = []

    def compiled(function):
        return lambda *inputs: calls.append(inputs) or function(*inputs)

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(compilation, "read_back", lambda: compilation.Compilation(frames=1))
    measured(Known(), work)
    assert calls == []

    side = Known()
    found = measured(side, work, setting="best")

    assert side.asked == asked
    assert len(calls) == n_calls
    assert ("compiled" in found["choices"]) == bool(n_calls)


def test_what_the_compiler_leaves_alone_is_called_eager(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)

    found = measured(Known(), "forward", setting="best")

    assert found["choices"] == "no attention; eager (torch.compile compiled nothing); a stand-in"


@pytest.mark.parametrize("work", ["forward", "train_step"])
def test_what_does_not_compile_is_measured_eager_unless_memory_ran_out(work, monkeypatch):
    def refuse(error: Exception) -> None:
        def fails(*_):
            raise error

        monkeypatch.setattr(torch, "compile", lambda function: fails)

    refuse(ValueError("no such\noperation"))
    found = measured(Known(), work, setting="best")
    assert "eager (it does not compile, ValueError: no such" in found["choices"]
    assert len(found["seconds"]) == 2

    refuse(torch.OutOfMemoryError("8 GiB"))
    with pytest.raises(torch.OutOfMemoryError):
        measured(Known(), work, setting="best")


# Our side.


@pytest.mark.parametrize("base", BASES)
def test_our_network_is_that_of_the_task(base):
    side = ours(base=base)

    model = side.network()

    n_parameters = cost_of(model.config, Shape(1, 1)).n_parameters
    assert measured(side, "saved", base=base)["n_parameters"] == n_parameters
    assert model.config.model_dump() == side.task["model"]


def test_checkpointing_changes_no_weight_of_ours():
    side = ours()
    plain, again = side.network(), side.network(checkpointing=True)

    assert (plain.config.grad_checkpoint, again.config.grad_checkpoint) == (False, True)
    assert torch.equal(plain.lm_head.weight, again.lm_head.weight)


# The published package's side, on a stand-in with its interface.


@pytest.fixture(autouse=True)
def languages(monkeypatch):
    """How the stand-in was asked to generate."""
    tokenizers = SimpleNamespace(Tokenizer=stand_in.Tokenizer, TokenizerConfig=dict)
    monkeypatch.setitem(sys.modules, "tests.stand_in.lm.data.tokenizer", tokenizers)
    monkeypatch.setattr(stand_in.PSANNLM, "asked", [])
    return stand_in.PSANNLM


def ours(**changes) -> Ours:
    return Ours(side_task(**changes))


def theirs(**changes) -> Published:
    return Published(side_task(python="other", **changes), stand_in, works)


def test_their_network_has_the_shape_and_positions_of_ours():
    found = theirs(base="transformer")

    shape = {"vocab_size": 24, "d_model": 8, "n_layers": 2, "n_heads": 2, "d_mlp": 12}
    assert (found.config.base, dict(found.config.shape)) == ("transformer", shape)
    assert found.config.positional_encoding == "rope"
    assert found.network().config == found.config
    assert found.network(checkpointing=True).checkpointed
    assert not found.network().checkpointed


def test_waveresnet_without_options_is_said_to_be_respsann():
    assert theirs(base="waveresnet").note.endswith("same network as respsann")
    assert theirs(base="respsann").note == ""
    with pytest.raises(ValueError, match="sgrpsann"):
        theirs(base="sgrpsann")


each_side = pytest.mark.parametrize("side_of", [ours, theirs])


@each_side
def test_weights_are_drawn_by_the_seed(side_of):
    first, again, other = (
        torch.cat([p.flatten() for p in side_of(seed=seed).network().parameters()])
        for seed in (0, 0, 1)
    )

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_side
@pytest.mark.parametrize(("precision", "rel"), [("fp32", 1e-5), ("bf16", 1e-2)])
def test_the_loss_is_that_of_the_next_token_in_the_precision(side_of, precision, rel):
    side = side_of(precision=precision)
    model = side.network().train()
    tokens, targets = batch_of(side.task)

    loss = side.loss_of(model, compiled=False)(tokens, targets)

    expected = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
    assert loss.item() == pytest.approx(expected.item(), rel=rel)


@pytest.mark.parametrize(
    ("setting", "attention", "how", "options"),
    [
        ("defaults", "math", "generate", {"top_k": 1}),
        ("best", "sdpa", "generate_batch", {"top_k": 1, "top_p": None}),
    ],
)
def test_the_setting_chooses_attention_and_how_to_generate(
    setting, attention, how, options, languages
):
    found = theirs(setting=setting)

    assert found.generator([4, 5, 6])() == 5

    assert languages.asked == [(how, found.config, options)]
    assert found.config.attention_implementation == attention
    assert found.attention == f"{attention} attention"
    assert found.generation.startswith(how)


def test_ours_generates_all_tokens():
    assert ours().generator([1, 2, 3])() == 5


def test_a_text_has_no_end_and_is_always_the_prompt():
    tokenizer = endless(stand_in, [4, 5, 6])

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


def test_parity_is_the_relative_difference_of_a_loss_that_predicts_its_own_input():
    side = Known()

    found = measured(side, "GPU-02", length=13, batch_tokens=13)

    tokens, _ = batch_of(side.task)
    plain, half = (next_token_loss(side.model, tokens, tokens, p).item() for p in ("fp32", "bf16"))
    assert half != plain
    assert found["values"] == {"rel_diff": (pytest.approx(abs(half - plain) / plain), "")}


def test_the_speed_is_that_of_one_window_after_a_warm_up(monkeypatch):
    side, seen = Known(), []
    side.model.register_forward_hook(
        lambda model, inputs, out: seen.append((model.training, out.requires_grad))
    )
    monkeypatch.setattr(works.time, "perf_counter", lambda: float(len(seen)))

    found = measured(side, "GPU-03")

    assert seen == [(False, False)] * (5 + 20)
    assert found["values"]["tokens_per_s"] == (20 * 32 / 20, "")


def test_a_checkpointed_step_saves_less_than_a_plain_one_and_a_cpu_has_no_peak():
    side = ours()

    values = measured(side, "GPU-04", length=8, batch_tokens=8)["values"]

    assert set(values) == set(CHECKS["GPU-04"].measures)
    nothing = (None, "only a GPU's allocator tells its peak")
    assert values["max_allocated_mib"] == values["max_reserved_mib"] == nothing
    assert values["elapsed_s"][0] > 0
    plain = measured(side, "saved", length=8, batch_tokens=8)["saved_bytes"]
    assert 0 < values["saved_mib"][0] < plain / 2**20


# The script that runs in either interpreter.


def test_our_side_is_our_package(monkeypatch):
    assert isinstance(worker.side_of(side_task(), works), Ours)

    other = SimpleNamespace(__file__="/elsewhere/psannlm/__init__.py")
    monkeypatch.setitem(sys.modules, "psannlm", other)
    with pytest.raises(ImportError, match="is not ours"):
        worker.side_of(side_task(), works)


def test_the_other_package_is_the_one_of_its_interpreter(monkeypatch, tmp_path):
    task = side_task(python="other", setting="best")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ImportError, match="not the one that was installed"):
        worker.side_of(task, works)

    installed = str(tmp_path / "lib" / "psannlm" / "__init__.py")
    monkeypatch.setattr(stand_in, "__file__", installed)
    monkeypatch.setitem(sys.modules, "psannlm", stand_in)
    side = worker.side_of(task, works)

    assert isinstance(side, Published)
    assert side.attention == "sdpa attention"


def test_what_is_shared_is_loaded_from_its_file(monkeypatch):
    monkeypatch.setattr(sys, "modules", dict(sys.modules))

    loaded = worker.load(Path(timing.__file__))

    assert loaded is not timing
    assert loaded.__file__ == timing.__file__


def test_a_failed_mode_or_a_wrong_package_is_a_reason_of_its_own_line(monkeypatch, tmp_path):
    def full(side, tools):
        raise MemoryError("full")

    def lines(name: str) -> list[dict]:
        result = tmp_path / name
        worker.main([str(tmp_path / "task"), str(result)])
        return [json.loads(line) for line in result.read_text().splitlines()]

    modes: dict[str, Callable] = {"forward": full, "generate": lambda side, tools: {"tokens": 5}}
    monkeypatch.setattr(works, "MODES", modes)
    monkeypatch.setattr(bench_worker, "stop_when_orphaned", lambda: None)
    monkeypatch.setattr(worker, "load", lambda path: getattr(TOOLS, path.stem))
    (tmp_path / "task").write_text(json.dumps(side_task(modes=list(modes))))

    first, second = lines("of our package")
    assert (first["mode"], first["status"]) == ("forward", "failed")
    assert first["reason"] == "out of memory: full"
    assert (second["mode"], second["status"], second["tokens"]) == ("generate", "ok", 5)

    monkeypatch.setattr(psannlm, "__file__", "/elsewhere/psannlm/__init__.py")
    wrong = lines("of another")
    assert [row["status"] for row in wrong] == ["failed"] * 2
    assert all("not ours" in row["reason"] for row in wrong)
