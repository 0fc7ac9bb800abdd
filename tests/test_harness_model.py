"""A network answers lm-eval as scoring by hand does, one token and one full pass at a time."""

from types import SimpleNamespace

import pytest
import torch

from psannlm.config.schema import ConfigError
from psannlm.train.tokenizer import Tokenizer, byte_tokenizer, train_bpe
from tests.networks import moved, tiny

pytestmark = pytest.mark.slow  # lm-eval takes seconds to load

CONTEXT = 24
END = 256
"""Of the tokenizer of bytes."""


@pytest.fixture
def network(float64):
    """One that writes ASCII, so that what it writes can be asked of it again."""
    model = moved(tiny(vocab_size=END + 1, context_length=CONTEXT))
    model.lm_head.weight.data[128:] = 0
    return model


def asked(network, batch: int = 3, tokenizer: Tokenizer | None = None):
    pytest.importorskip("lm_eval", reason="an extra")
    from psannlm.pages.shootout.lm_eval_model import HarnessModel

    return HarnessModel(
        network,
        tokenizer or byte_tokenizer(),
        device=torch.device("cpu"),
        precision="fp32",
        batch=batch,
    )


def requests(*arguments):
    return [SimpleNamespace(args=one) for one in arguments]


def logs(network, ids: list[int]):
    """Log-chances of what follows `ids`, from a pass over all of them."""
    with torch.no_grad():
        return network(torch.tensor([ids]))[0, -1].log_softmax(-1)


def by_hand(network, before: list[int], targets: list[int]) -> tuple[float, bool]:
    """Likelihood of targets, and whether greedy decoding gives them, in one window."""
    total, greedy = 0.0, True
    first = max(0, len(before) + len(targets) - CONTEXT - 1)
    for place, target in enumerate(targets):
        found = logs(network, (before + targets[:place])[first:])
        total += found[target].item()
        greedy &= found.argmax().item() == target
    return total, greedy


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


PAIRS = [
    ("He is", " here"),
    ("", "alone"),
    ("long ago," * 8, " end"),
    ("x", "a"),
    ("é ü", " ö"),
    ("A context", ", and all that is left of it"[:CONTEXT]),
]


def test_likelihoods_are_those_of_scoring_token_by_token(network):
    found = asked(network).loglikelihood(requests(*PAIRS))

    for (context, continuation), (likelihood, greedy) in zip(PAIRS, found, strict=True):
        expected = by_hand(network, [END, *context.encode()], list(continuation.encode()))
        assert likelihood == pytest.approx(expected[0], rel=1e-12)
        assert greedy is expected[1]


def test_what_greedy_decoding_writes_is_called_greedy(network):
    text = greedily(network, [END, *b"He is"], 4)
    other = text[:-1] + ("a" if text[-1] != "a" else "b")

    found = asked(network).loglikelihood(requests(("He is", text), ("He is", other)))

    assert [greedy for _, greedy in found] == [True, False]


def test_a_rolled_continuation_is_greedy_only_if_all_of_it_is(network):
    text = "nothing that it would say"[:CONTEXT]
    last = chr(logs(network, list(text.encode())).argmax())

    [(_, greedy)] = asked(network).loglikelihood(requests(("Once", text + last)))

    assert not greedy


def test_a_batch_gives_what_its_texts_give_one_by_one(network):
    together = asked(network, batch=len(PAIRS)).loglikelihood(requests(*PAIRS))
    alone = [asked(network, batch=1).loglikelihood(requests(pair))[0] for pair in PAIRS]

    for both in zip(together, alone, strict=True):
        assert both[0] == pytest.approx(both[1], rel=1e-12)


def test_only_the_end_of_a_long_context_is_seen(network):
    cut = "long ago," * 8

    [(seen, _), (changed, _), (near, _)] = asked(network).loglikelihood(
        requests((cut, "end"), ("L" + cut[1:], "end"), (cut[:-1] + "!", "end"))
    )

    assert seen == pytest.approx(changed, rel=1e-12)
    assert seen != pytest.approx(near, rel=1e-3)


@pytest.mark.parametrize("n", [CONTEXT + 1, 2 * CONTEXT, 60])
def test_a_continuation_longer_than_the_context_is_rolled_over(network, n):
    text = "what is told and told again, and never comes to an end, ever and ever"[:n]

    [(found, _)] = asked(network).loglikelihood(requests(("Once", text)))

    assert found == pytest.approx(rolled_by_hand(network, ord("e"), list(text.encode())), rel=1e-12)


@pytest.mark.parametrize("n", [0, 1, CONTEXT, CONTEXT + 1, 2 * CONTEXT, 60])
def test_every_token_of_a_long_text_is_predicted_once(network, n):
    text = "what is told and told again, and never comes to an end, ever and ever"[:n]

    [found, other] = asked(network).loglikelihood_rolling(requests((text,), ("other",)))

    assert found == pytest.approx(rolled_by_hand(network, END, list(text.encode())), rel=1e-12)
    assert other == pytest.approx(by_hand(network, [END], list(b"other"))[0], rel=1e-12)


def test_white_space_at_the_end_of_a_context_counts_to_the_continuation(network):
    [before, behind] = asked(network).loglikelihood(requests(("a b ", "c"), ("a b", " c")))

    assert before[0] == pytest.approx(behind[0], rel=1e-12)
    assert before[1] == behind[1]


def test_a_token_across_the_border_is_not_lost(float64):
    tokenizer = train_bpe(["thing thing thing thing"], 260)
    network = moved(tiny(vocab_size=tokenizer.vocab_size, context_length=CONTEXT))
    assert len(tokenizer.encode("thing")) < len(tokenizer.encode("th") + tokenizer.encode("ing"))

    [(found, _)] = asked(network, tokenizer=tokenizer).loglikelihood(requests(("th", "ing")))

    before = [tokenizer.end_of_text, *tokenizer.encode("th")]
    expected = by_hand(network, before, tokenizer.encode("ing"))[0]
    assert found == pytest.approx(expected, rel=1e-12)


WISHES = [
    ("He is", {"max_gen_toks": 5}),
    ("She", {"max_gen_toks": 5, "do_sample": False, "temperature": 0.7}),
    ("They " * 10, {"max_gen_toks": 3, "until": []}),
    ("", {"until": ["\0never"]}),
]


def test_continuations_are_those_of_greedy_decoding(network):
    found = asked(network).generate_until(requests(*WISHES))

    for (context, how), text in zip(WISHES, found, strict=True):
        n_tokens = min(how.get("max_gen_toks", 256), CONTEXT // 2)
        ids = [END, *context.encode()][n_tokens - CONTEXT :]
        assert text == greedily(network, ids, n_tokens)


def test_a_continuation_ends_before_the_first_of_its_stops(network):
    whole = greedily(network, [END, *b"He is"], 8)
    stops = [whole[5], whole[3:5], "never", ""]
    first = min(whole.find(stop) for stop in stops[:2])

    [cut, once] = asked(network).generate_until(
        requests(
            ("He is", {"max_gen_toks": 8, "until": stops}),
            ("He is", {"max_gen_toks": 8, "until": stops[0]}),
        )
    )

    assert cut == whole[:first]
    assert once == whole[: whole.find(stops[0])]


def test_what_is_drawn_does_not_depend_on_the_batch(network):
    how = {"max_gen_toks": 6, "do_sample": True, "temperature": 2.0}
    wishes = requests(*((context, how) for context in ("a", "bcd", "ef", "a")))

    together = asked(network, batch=4).generate_until(wishes)
    alone = asked(network, batch=1).generate_until(wishes)

    assert together == alone
    assert together[0] != greedily(network, [END, *b"a"], 6)


def test_an_unknown_wish_is_refused(network):
    with pytest.raises(ConfigError, match=r"among until, .*got num_beams; leave the task out"):
        asked(network).generate_until(requests(("a", {"num_beams": 4})))
