"""The loop learns, adds up passes exactly, and goes on from any checkpoint as if never stopped."""

import dataclasses
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.model import loss as loss_module
from psannlm.model.bases import build, cost_of
from psannlm.model.cost import Shape
from psannlm.train import trainer as trainer_module
from psannlm.train.checkpoint import CheckpointError, checkpoints, load
from psannlm.train.data import Data
from psannlm.train.distributed import Ranks
from psannlm.train.objective import is_decayed
from psannlm.train.plan import rate_at
from psannlm.train.recorder import DivergenceError, Progress
from psannlm.train.trainer import Trainer
from tests.tiny_trainings import begun, column, data_for, trained, training_config, write_text

BASES = ("respsann", "sgrpsann", "waveresnet", "transformer")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    return data_for(training_config(corpus=str(write_text(folder))), folder)


def short(**changes: Any) -> TrainingConfig:
    """6 steps of two passes, evaluations after 3 and 6 and checkpoints after 2, 3, 4 and 6."""
    sizes = {"n_layers": 1, "batch_tokens": 256, "pass_tokens": 128, "checkpoint_steps": 2}
    return training_config(**{"epochs": 1, **sizes, **changes})


@pytest.mark.parametrize("base", BASES)
def test_steps_are_those_of_a_plain_loop(tmp_path, data, base: str) -> None:
    config = short(base=base, clip_norm=0.5)
    trainer = trained(tmp_path, data, config)
    model = build(config.network, seed=config.seed)
    named = list(model.named_parameters())
    optimizer = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.1 * is_decayed(n, p)} for n, p in named],
        betas=(0.9, 0.95),
    )

    losses, norms = [], []
    for step in range(1, 7):
        tokens, targets = trainer.batches.batch(step - 1)
        loss = cross_entropy(model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        norm = math.sqrt(sum(p.grad.square().sum().item() for _, p in named))
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, 6, config)
            group["params"][0].grad *= min(1.0, 0.5 / norm)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        norms.append(norm)

    assert column(tmp_path, "train_loss") == pytest.approx(losses, abs=2e-6)
    assert column(tmp_path, "grad_norm") == pytest.approx(norms, rel=2e-5)
    assert column(tmp_path, "learning_rate") == [rate_at(step, 6, config) for step in range(1, 7)]


@pytest.mark.parametrize("base", BASES)
def test_small_passes_and_saved_memory_change_nothing_that_is_learned(tmp_path, data, base) -> None:
    whole, small, saving = (tmp_path / name for name in ("whole", "small", "saving"))
    options = {"base": base, "epochs": 0.5}

    trained(whole, data, short(**options))
    trained(small, data, short(pass_tokens=64, **options))
    trained(saving, data, short(grad_checkpoint=True, **options))

    assert column(saving, "train_loss") == column(whole, "train_loss")
    assert column(small, "train_loss") == pytest.approx(column(whole, "train_loss"), abs=1e-6)
    assert column(small, "grad_norm") == pytest.approx(column(whole, "grad_norm"), rel=1e-5)


def state_of(folder: Path) -> list[bytes]:
    """All that a repetition must reproduce bit by bit."""
    weights, optimizer = sorted(checkpoints(folder)[-1].glob("*.safetensors"))
    return [path.read_bytes() for path in (folder / "loss.csv", weights, optimizer)]


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw"},
        {"optimizer": "muon", "schedule": "wsd", "base": "sgrpsann"},
        {"precision": "bf16", "base": "waveresnet"},
        {"precision": "fp16", "base": "transformer", "optimizer": "muon"},
        {"learnable": ("amplitude",), "grad_checkpoint": True},
    ],
    ids=lambda changes: "-".join(map(str, changes.values())),
)
def test_a_training_goes_on_from_any_checkpoint_bit_by_bit(tmp_path, data, changes) -> None:
    config, whole = short(**changes), tmp_path / "whole"
    trained(whole, data, config)
    expected, steps = state_of(whole), [0, 2, 3, 4, 6]
    assert [int(path.name[5:]) for path in checkpoints(whole)] == steps[1:]

    for n_left, step in enumerate(steps):  # with none it begins anew, with all nothing is to do
        part = tmp_path / str(step)
        shutil.copytree(whole, part)
        for later in checkpoints(part)[n_left:]:
            shutil.rmtree(later)
        trainer = begun(part, data, config)
        assert trainer.tally.step == step
        trainer.run()

        assert state_of(part) == expected


def test_another_course_or_other_data_is_refused_by_what_differs(tmp_path, data) -> None:
    trained(tmp_path, data, short(epochs=0.5))
    before = (tmp_path / "loss.csv").read_bytes()
    other = dataclasses.replace(data, train=dataclasses.replace(data.train, sha256="f" * 64))

    for changes, read, message in (
        ({"d_mlp": 32}, data, "another course: d_mlp 24 and not 32;"),
        ({}, other, r"another data: train_sha256 .* and not 'ffff"),
    ):
        with pytest.raises(CheckpointError, match=message):
            begun(tmp_path, read, short(epochs=0.5, **changes))

    assert (tmp_path / "loss.csv").read_bytes() == before


def test_the_best_network_is_kept_whatever_comes_after_it(tmp_path, data, monkeypatch) -> None:
    found = {2: 4.0, 3: 2.0, 5: 3.0, 6: 2.5}
    evaluate = Trainer.evaluate

    def made_up(self: Trainer, tokens: Any) -> Any:
        loss = found[self.tally.step]
        return dataclasses.replace(evaluate(self, tokens), loss=loss)

    monkeypatch.setattr(Trainer, "evaluate", made_up)

    trainer = trained(tmp_path, data, short(evaluations=4, checkpoint_steps=4, keep_checkpoints=1))

    assert (trainer.tally.best_step, trainer.tally.best_loss) == (3, 2.0)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000003", "step_00000006"]


@pytest.mark.parametrize(
    ("what", "error", "message"),
    [
        ("loss", DivergenceError, "loss is nan at step 4 of 6.*lower learning_rate"),
        ("gradient", DivergenceError, "the gradient norm is nan at step 4 of 6"),
        ("weight", CheckpointError, r"step_00000004.*lm_head\.weight must be finite"),
    ],
)
def test_what_is_no_number_never_reaches_a_checkpoint(
    tmp_path, data, what: str, error: type[ConfigError], message: str
) -> None:
    trainer = begun(tmp_path, data, short(checkpoint_steps=1))
    take, head = trainer._step, trainer.model.lm_head.weight

    def poisoned(step: int) -> None:
        if step == 4 and what == "gradient":
            head.register_hook(lambda gradient: gradient * math.nan)
        if step == 4 and what == "loss":
            head.data[0, 0] = math.nan
        take(step)
        if step == 4 and what == "weight":
            head.data[0, 0] = math.inf

    trainer._step = poisoned
    with pytest.raises(error, match=message):
        trainer.run()

    assert load(checkpoints(tmp_path)[-1]).about["step"] == 3


def test_fp16_leaves_out_a_step_that_overflows_and_goes_on(tmp_path, data) -> None:
    trainer = begun(tmp_path, data, short(precision="fp16"))
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**19)

    trainer.run()

    first, *others = column(tmp_path, "grad_norm")
    assert first == math.inf
    assert all(map(math.isfinite, [*others, *column(tmp_path, "train_loss")]))
    scale = begun(tmp_path, data, trainer.config).scaler.get_scale()
    assert scale == trainer.scaler.get_scale() == 2.0**18


def test_an_overflow_seen_by_one_optimizer_leaves_out_the_step_of_the_other(tmp_path, data) -> None:
    trainer = begun(tmp_path, data, short(precision="fp16", optimizer="muon"))
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    matrix = trainer.model.blocks[0].attention.to_qkv.weight
    matrix.register_hook(lambda gradient: gradient * math.nan)

    trainer._step(1)

    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_steps_evaluations_and_epochs_are_told_and_logged_as_planned(tmp_path, data) -> None:
    told: list[Progress] = []
    trainer = trained(tmp_path, data, short(epochs=2), watch=told.append, ceiling=1e9)

    ends, losses = trainer.plan.epoch_ends, column(tmp_path, "train_loss")
    assert column(tmp_path, "step", "evaluation") == sorted(trainer.plan.evaluations)
    assert column(tmp_path, "step", "epoch") == list(ends) == [6, 12]
    assert column(tmp_path, "epoch", "epoch") == list(ends.values())
    assert column(tmp_path, "val_loss", "epoch")[-1] == trainer.last_evaluation.loss
    means = [sum(losses[:6]) / 6, sum(losses[6:]) / 6]
    assert column(tmp_path, "train_loss", "epoch") == pytest.approx(means, rel=1e-12)
    assert [(one.step, one.n_steps) for one in told] == [(step, 12) for step in range(1, 13)]
    flops = 3 * cost_of(short().network, Shape(1, 16)).model_flops / 16
    shares = [one.tokens_per_s * flops / 1e9 for one in told]
    assert [one.mfu for one in told] == pytest.approx(shares, rel=1e-12)


def test_a_missing_compiler_leaves_the_training_eager(tmp_path, data, monkeypatch) -> None:
    monkeypatch.setattr(trainer_module, "missing_compiler", lambda device: "none found")

    trainer = begun(tmp_path, data, short(compile=True))

    assert (trainer.compiled, trainer.compilation.eager) == (False, "none found")


@pytest.mark.parametrize("fails_at", [1, 3], ids=["at once", "when a gradient is there"])
def test_a_training_that_does_not_compile_goes_on_eagerly_and_learns_the_same(
    tmp_path, data, monkeypatch, fails_at
) -> None:
    trained(tmp_path / "plain", data, short())
    calls = []

    def compile_not(module) -> None:
        def call(*given):
            calls.append(given)
            if len(calls) == fails_at:
                raise RuntimeError("no such operation")
            return module.forward(*given)

        module._compiled_call_impl = call

    monkeypatch.setattr(torch.nn.Module, "compile", compile_not)
    monkeypatch.setattr(loss_module, "_compiled_share", lambda: loss_module._share)
    trainer = trained(tmp_path / "eager", data, short(compile=True))

    assert len(calls) == fails_at
    assert trainer.compilation.eager == "it does not compile, RuntimeError: no such operation"
    one, two = ((tmp_path / name / "loss.csv").read_bytes() for name in ("plain", "eager"))
    assert one == two


def test_a_training_that_runs_eagerly_without_a_word_says_so(tmp_path, data, monkeypatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: None)
    monkeypatch.setattr(loss_module, "_compiled_share", lambda: loss_module._share)

    trainer = trained(tmp_path, data, short(compile=True))

    made = trainer_module.summarise(trainer, trainer.last_evaluation, None, None)
    assert (made["compiled"], made["frames"]) == (False, 0)
    assert made["eager"] == "torch.compile compiled nothing"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "changes", [{"base": "sgrpsann"}, {"base": "waveresnet", "grad_checkpoint": True}]
)
def test_compiled_trainings_on_two_threads_repeat_and_learn_what_an_eager_one_does(
    tmp_path, data, changes
) -> None:
    trained(tmp_path / "plain", data, short(**changes))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for name in ("one", "two"):
            assert trained(tmp_path / name, data, short(compile=True, **changes)).compiled
    finally:
        torch.set_num_threads(threads)

    one, two = ((tmp_path / name / "loss.csv").read_bytes() for name in ("one", "two"))
    assert one == two
    fast, plain = (column(tmp_path / name, "train_loss") for name in ("one", "plain"))
    assert fast == pytest.approx(plain, abs=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("base", BASES)
def test_a_gpu_learns_what_a_cpu_does(tmp_path, data, base, precision, compiled) -> None:
    gpu = Ranks(0, 1, torch.device("cuda", 0))
    config = short(base=base, precision=precision, compile=compiled)
    trained(tmp_path / "gpu", data, config, ranks=gpu)
    trained(tmp_path / "cpu", data, short(base=base))

    losses = [column(tmp_path / where, "train_loss") for where in ("gpu", "cpu")]
    tolerance = 1e-3 if precision == "fp32" else 5e-2  # 8 or 11 significant bits, a few steps
    assert losses[0] == pytest.approx(losses[1], abs=tolerance)
