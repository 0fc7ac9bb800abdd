"""The published package's side, on a stand-in with its interface."""

import pytest
import torch

from psannlm.pages.peer import published as peer_published
from psannlm.pages.peer import saved_worker as peer_worker
from psannlm.pages.peer.published import Published, endless
from psannlm.pages.peer.works import batch_of
from tests.peers import side_task, stand_in
from tests.standing_alone import foreign_imports


@pytest.fixture
def package(monkeypatch):
    return stand_in(monkeypatch)


def side(package, **changes) -> Published:
    return Published(side_task(python="other", **changes), package, peer_worker)


def test_the_network_has_the_shape_and_positions_of_ours(package):
    found = side(package, base="transformer")

    shape = {"vocab_size": 24, "d_model": 8, "n_layers": 2, "n_heads": 2, "d_mlp": 12}
    assert found.config.base == "transformer"
    assert dict(found.config.shape) == shape
    assert found.config.positional_encoding == "rope"
    assert found.network().config == found.config


def test_the_best_setting_alone_has_fused_attention(package):
    defaults, best = (side(package, setting=setting) for setting in ("defaults", "best"))

    assert defaults.config.attention_implementation == "math"
    assert best.config.attention_implementation == "sdpa"
    assert (defaults.attention, best.attention) == ("math attention", "sdpa attention")


def test_weights_are_drawn_by_the_seed(package):
    first, again, other = (side(package, seed=seed).network() for seed in (0, 0, 1))

    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_checkpointing_is_asked_of_the_network(package):
    assert side(package).network(checkpointing=True).checkpointed
    assert not side(package).network().checkpointed


def test_waveresnet_without_options_is_said_to_be_respsann(package):
    assert side(package, base="waveresnet").note.endswith("same network as respsann")
    assert side(package, base="respsann").note == ""


def test_a_base_that_the_package_lacks_is_its_own_complaint(package):
    with pytest.raises(ValueError, match="sgrpsann"):
        side(package, base="sgrpsann")


def test_the_loss_is_that_of_the_next_token_in_the_precision(package):
    for precision, rel in (("fp32", 1e-6), ("bf16", 1e-2)):
        found = side(package, precision=precision)
        model = found.network()
        tokens, targets = batch_of(found.task)

        loss = found.loss_of(model, compiled=False)(tokens, targets)

        probabilities = model(tokens).log_softmax(-1).gather(-1, targets[..., None])
        assert loss.item() == pytest.approx(-probabilities.mean().item(), rel=rel)


@pytest.mark.parametrize(
    ("setting", "called"),
    [
        ("defaults", ("generate", {"top_k": 1})),
        ("best", ("generate_batch", {"top_k": 1, "top_p": None})),
    ],
)
def test_generation_is_the_packages_own_and_makes_all_tokens(package, setting, called):
    found = side(package, setting=setting)

    assert found.generator([4, 5, 6])() == 5

    [language] = package.made
    assert language.asked == [called]
    assert language.config == found.config
    assert found.generation.startswith(called[0])


def test_a_text_has_no_end_and_is_always_the_prompt(package):
    tokenizer = endless(package, [4, 5, 6])

    assert tokenizer.encode("whatever") == [4, 5, 6]
    assert tokenizer.eos_id == -1
    tokenizer.decode([7, 8])
    assert tokenizer.made == (7, 8)


def test_it_needs_torch_alone():
    assert foreign_imports(peer_published) == set()
