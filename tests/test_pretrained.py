"""A trained network comes back with its own tokenizer, and tells what its sines have learned."""

import shutil
from pathlib import Path

import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.model.bases import build
from psannlm.model.generate import generate
from psannlm.model.sampling import GREEDY
from psannlm.model.sine import DampedSine
from psannlm.model.transformer import GeluScaled
from psannlm.train import checkpoint, pretrained
from psannlm.train.checkpoint import CheckpointError, checkpoints
from psannlm.train.pretrained import TOKENIZER, continuations, load
from psannlm.train.tokenizer import train_bpe
from psannlm.train.trainer import Trainer
from tests.networks import moved, tiny
from tests.tiny_trainings import begun, data_for, training_config, write_text

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder = tmp_path_factory.mktemp("pretrained")
    sizes = {"epochs": 0.5, "batch_tokens": 256, "pass_tokens": 256, "checkpoint_steps": 2}
    config = training_config(corpus=str(write_text(folder)), evaluations=1, **sizes)
    trainer = begun(folder / "training", data_for(config, folder), config)
    trainer.data.tokenizer.save(trainer.folder / TOKENIZER)
    trainer.run()
    return trainer


@pytest.fixture
def folder(trained: Trainer, tmp_path: Path) -> Path:
    """A copy of the training that a test may harm."""
    return Path(shutil.copytree(trained.folder, tmp_path / "training"))


def test_the_newest_network_of_a_training_comes_back_and_continues_a_prompt(trained) -> None:
    found = load(trained.folder, CPU)

    tokens = torch.randint(257, (2, 16))
    with torch.no_grad():
        assert torch.equal(found.model(tokens), trained.model.eval()(tokens))
    assert not found.model.training
    assert found.tokenizer.sha256 == trained.data.tokenizer.sha256
    assert found.about["step"] == trained.plan.n_steps == 3
    assert load(checkpoints(trained.folder)[0], CPU).about["step"] == 2
    [text] = continuations(found.model, found.tokenizer, ["ada "], 5, GREEDY, seed=0)
    ids = generate(found.model, [[256, *b"ada "]], n_tokens=5)[0].tolist()
    assert text == bytes(i for i in ids[: [*ids, 256].index(256)]).decode(errors="replace")


def test_another_tokenizer_is_refused_by_its_hash_and_one_elsewhere_can_be_given(
    folder, tmp_path, trained
) -> None:
    (folder / TOKENIZER).rename(tmp_path / "mine.json")
    assert load(folder, CPU, tokenizer=tmp_path / "mine.json").tokenizer.kind == "bytes"
    with pytest.raises(ConfigError, match=r"tokenizer\.json cannot be read"):
        load(folder, CPU)

    other = train_bpe(["a text of texts of text " * 9], 260)
    other.save(folder / TOKENIZER)
    right = trained.data.tokenizer.sha256[:12]
    message = f"trained with the tokenizer {right}, .* is {other.sha256[:12]}; give the"
    with pytest.raises(CheckpointError, match=message):
        load(folder, CPU)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"d_mlp": 32}, r"another network: .*\.raw_amplitude \[24\] and not \[32\]"),
        ({"base": "sgrpsann"}, r"another network: blocks\.0\.strength None and not \[1\]"),
        ({"base": "respsan"}, "network of .*unknown base 'respsan', did you mean 'respsann'"),
        ({"d_model": "wide"}, "network of .*d_model: expected a whole number, got 'wide'"),
        ({"n_heads": 3}, "d_model must be a multiple of n_heads, got 16 and 3"),
    ],
    ids=["width", "base", "unknown", "word", "rule"],
)
def test_weights_of_another_network_than_is_named_are_refused(folder, network, message) -> None:
    loaded = checkpoint.load(checkpoints(folder)[-1])
    about = {key: value for key, value in loaded.about.items() if key != "schema"}
    about["network"] = {**about["network"], **network}
    checkpoint.save(folder, loaded.weights, loaded.optimizer, about)  # its hashes are right

    with pytest.raises(ConfigError, match=f"(?s){message}"):
        load(folder, CPU)


def told(**changes: object) -> list[pretrained.LearnedNonlinearity]:
    config = tiny(**changes)
    return list(pretrained.nonlinearities(build(config, seed=0), moved(config)))


def test_every_nonlinearity_is_told_with_the_parameters_it_has_before_and_after() -> None:
    options = {"base": "waveresnet", "wave": "interleave"}
    sine = moved(tiny(**options)).blocks[1].mlp.nonlinearity

    found = told(**options)
    [fewer, _], [gelu, _] = told(decay_mode="none"), told(base="transformer", mlp="gelu_scaled")

    assert [one.layer for one in found] == ["0 mlp", "0 wave", "1 mlp", "1 wave"]
    assert {one.kind for one in found} == {DampedSine}
    for part in ("amplitude", "frequency", "decay"):
        assert torch.equal(found[2].after[part], getattr(sine, part).detach())
    assert found[2].before["decay"].tolist() == pytest.approx([0.01] * 12)
    assert not found[2].after["amplitude"].requires_grad
    for one in (fewer, gelu):
        assert list(one.before) == list(one.after) == ["amplitude", "frequency"]
    assert (gelu.layer, gelu.kind) == ("0 mlp", GeluScaled)
    assert gelu.before["amplitude"].tolist() == pytest.approx([1.0] * 12)
    assert told(base="transformer", mlp="swiglu") == []  # has no parameters of its own
