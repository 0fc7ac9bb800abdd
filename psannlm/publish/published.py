"""The published figures of 2025-11-07: refused if altered, and what arithmetic says of each."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field, ValidationError

from psannlm import ROOT
from psannlm.bench.steps import stated_peak
from psannlm.config.network import ModelConfig
from psannlm.config.parse import read_parameters
from psannlm.config.schema import ConfigError, Number, OneOrMore, Strict, Text, Whole
from psannlm.evidence.text import flops
from psannlm.files import MIB
from psannlm.model.bases import cost_of
from psannlm.model.cost import Cost, Shape, training_bytes

PATH = ROOT / "book" / "published.yaml"
DIGITS = 16  # of a figure's hash: enough to see a change, short enough to read
POSSIBLE, IMPOSSIBLE, NOTHING = "possible", "impossible as stated", "says nothing"
BUSY = 0.01  # least share of a time that its arithmetic must take, at the peak, to be about it
MLP_RATIO = 4  # width of an MLP over that of its network, as the published package builds it


class Conditions(Strict):
    """What a figure was measured under, as far as it is known."""

    device: str = ""
    base: str = ""
    work: str = ""
    precision: str = ""
    batch: Whole | None = None
    context_length: Whole | None = None
    batch_tokens: Whole | None = None
    steps: Whole | None = None
    d_model: Whole | None = None
    n_layers: Whole | None = None
    n_heads: Whole | None = None
    d_mlp: Whole | None = None
    vocab_size: Whole | None = None
    world_size: Whole | None = None
    grad_checkpoint: bool | None = None
    timestamp: str = ""


class Source(Strict):
    """Where in the public repository something stands."""

    file: Text
    lines: str = ""
    commit: Text


class Protocol(Strict):
    """Which measure of our repetition of the original protocol stands beside a figure."""

    check: Text
    measure: Text


class Beside(Strict):
    """Which rows of ours stand beside a figure under a fair protocol."""

    page: Text
    where: Text  # a condition on columns of the page's table; `{base}` is that of the figure
    column: str = ""
    low: str = ""
    high: str = ""
    measure: str = ""  # of a validation: the measure of its findings that is shown
    unit: str = ""
    about: Text


class Figure(Strict):
    """One published figure, what it is of, and what was really measured."""

    id: Text
    kind: Text  # which arithmetic it is held against: a name in ARITHMETIC
    what: Text
    published: Text  # as it is printed in the bundle
    unit: str = ""
    stated: Conditions
    used: Conditions  # what the public files show it was measured with
    measured: Text  # in sentences; names in braces are filled in from `facts`
    facts: Mapping[str, Number | str] = {}  # what else the public files state
    source: OneOrMore[Source]
    protocol: Protocol | None = None
    beside: tuple[Beside, ...] = ()
    sha256: Text

    @property
    def title(self) -> str:
        """What it is of, in words."""
        tokens = self.stated.batch_tokens
        return self.what.format(batch_tokens=f"{tokens:,}" if tokens else "")

    @property
    def base(self) -> str:
        """The base that it is of; empty where it is of none in particular."""
        return self.stated.base or self.used.base

    @property
    def printed(self) -> str:
        """What is printed, with its unit."""
        return f"{self.published} {self.unit}".strip()

    @property
    def decimal(self) -> Decimal:
        """The printed number, as exact as it is printed; `k` stands for a thousand."""
        return Decimal(self.published.lstrip("~").replace(",", "").replace("k", "e3"))

    @property
    def value(self) -> float:
        """The printed number."""
        return float(self.decimal)

    @property
    def rounding(self) -> float:
        """Half a unit of the last printed digit: how far the number may be from what it was."""
        return float(0.5 * 10.0 ** int(self.decimal.as_tuple().exponent))

    def fact(self, name: str) -> float:
        """A number of `facts`."""
        return float(self.facts[name])


class Published(Strict):
    """All figures of the bundle of a date."""

    bundle: Text
    repository: Text
    figures: Annotated[tuple[Figure, ...], Field(min_length=1)]
    sha256: Text


def load(path: Path = PATH) -> Published:
    """The figures as they were published; ConfigError names what is malformed or was altered."""
    name, out = f"{path.parent.name}/{path.name}", "git has the file as committed"
    try:
        published = Published.model_validate(read_parameters(path))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"{name}: {where}: {first['msg']}; {out}") from None
    altered = [f"figure {one.id}" for one in published.figures if one.sha256 != fingerprint(one)]
    if not altered and published.sha256 != fingerprint(published):
        altered = ["the file"]
    rule = "was altered, its sha256 differs; a published figure does not change"
    if altered:
        raise ConfigError("\n".join(f"{name}: {what} {rule}; {out}" for what in altered))
    return published


def fingerprint(part: Figure | Published) -> str:
    """The hash of all that a figure, or the file, says beside its hash."""
    content = part.model_dump(mode="json", exclude={"sha256"})
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


class Judgement(NamedTuple):
    """A verdict with the arithmetic behind it, as sentences."""

    verdict: str
    because: str


def _possible(holds: bool, because: str) -> Judgement:
    return Judgement(POSSIBLE if holds else IMPOSSIBLE, because)


def _speed(figure: Figure) -> Judgement:
    used, elapsed, steps = figure.used, figure.fact("elapsed_s"), figure.fact("steps")
    cost, tokens = cost_of_pass(used)
    each = cost.executed_flops / tokens
    rate = figure.value * each
    single, half = peak_of(used, "fp32"), peak_of(used, "bf16")
    timed = steps * tokens / elapsed
    ends = (cost.parameters["embedding"] + cost.parameters["head"]) / cost.n_parameters
    training = "more than it can do" if 3 * rate > single else "which it could do"
    # The time is recorded to a tenth of a millisecond.
    agrees = abs(timed - figure.value) <= figure.rounding + timed * 0.5e-4 / elapsed
    return _possible(
        rate <= single and agrees,
        f"The network that was timed has {cost.n_parameters:,} parameters, {ends:.0%} of them in "
        f"embedding and head; its forward pass costs {flops(each)} a token. So {figure.printed} "
        f"are {flops(rate)}/s: {rate / single:.1%} of the {flops(single)}/s that the maker of "
        f"{used.device} states for float32, {rate / half:.1%} of its {flops(half)}/s for bfloat16. "
        f"A training step costs three times that: {3 * rate / single:.0%} of the float32 peak, "
        f"{training}, and {3 * rate / half:.1%} of that of bfloat16. "
        f"Its record, {steps:.0f} steps of {tokens:,} tokens in {elapsed:g} s, gives {timed:,.0f} "
        "tokens/s.",
    )


def _batch(figure: Figure) -> Judgement:
    used = figure.used
    step, steps = (used.batch or 0) * (used.context_length or 0), used.steps or 0
    what = "the tokens of the whole timed window" if figure.value == step * steps else "neither"
    instead = f" {figure.printed} are {what}, not of a step." if figure.value != step else ""
    return _possible(
        figure.value == step,
        f"A batch of {used.batch} sequences of {used.context_length} tokens has {step:,} tokens; "
        f"{steps} steps of it have {step * steps:,}.{instead}",
    )


def _held(figure: Figure) -> Judgement:
    stated, used, bound = figure.stated, figure.used, figure.value
    width = MLP_RATIO * (stated.d_model or 1)
    least = {"vocab_size": 2, "context_length": 1, "n_heads": 1, "d_mlp": width}
    cost = cost_of(network(stated.model_copy(update=least)), Shape(1, 1))
    whole, weights = held_mib(cost.n_parameters), 4 * cost.n_parameters / MIB
    attention = held_mib(cost.parameters["attention"])
    really = held_mib(cost_of_pass(used)[0].n_parameters)
    alone = f" Attention alone, without any MLP, would take {attention:.1f} MiB."
    too_much = whole > bound + figure.rounding
    return _possible(
        not too_much,
        f"A {stated.base} of {stated.n_layers} layers, {stated.d_model} wide, with the smallest "
        f"possible vocabulary and an MLP {MLP_RATIO} times as wide has {cost.n_parameters:,} "
        f"parameters. Its float32 weights alone take {weights:.1f} MiB, with gradients and the "
        f"moments of AdamW {whole:.1f} MiB, before any activation."
        f"{alone if attention > bound else ''} "
        f"The figure is {figure.printed}. The network that the record names, {used.n_layers} "
        f"layers, {used.d_model} wide, vocabulary {used.vocab_size}, needs {really:.1f} MiB"
        f"{', which fits' if really <= bound else ''}.",
    )


def _time(figure: Figure) -> Judgement:
    cost, tokens = cost_of_pass(figure.used)
    needed = 3 * cost.executed_flops
    least = needed / peak_of(figure.used, "fp32")
    share = least / figure.value
    sentence = (
        f"A forward and a backward pass of the network that ran, over {tokens} tokens, cost "
        f"{flops(needed)}: {1e6 * least:.2f} µs at the stated float32 peak of "
        f"{figure.used.device}, {share:.4%} of {figure.printed}."
    )
    if share < BUSY:
        return Judgement(NOTHING, f"{sentence} What the time was spent on is not the micro-batch.")
    return _possible(share <= 1, sentence)


def _precision(figure: Figure) -> Judgement:
    single, half = figure.fact("fp32_loss"), figure.fact("amp_loss")
    found, unit = abs(half - single) / single, 2.0**-9
    spread = figure.fact("largest") / figure.fact("smallest")
    return _possible(
        abs(found - figure.value) <= figure.rounding,
        f"The recorded losses, {single:g} and {half:g}, differ by {found:.3g} of the first. One "
        f"rounding to bfloat16 moves a number by up to {unit:.3g} of itself, {unit / found:.0f} "
        "times as much: a difference this small is what rounding leaves. Another run may give "
        f"{spread:.0f} times as much, for so far apart lie those that are recorded.",
    )


def _averaged(figure: Figure) -> Judgement:
    ranks = figure.stated.world_size or 1
    loss = np.float32(figure.fact("loss"))
    mean = np.float32(sum([loss] * ranks, np.float32(0)) / np.float32(ranks))
    difference = abs(float(mean) - float(loss)) / float(loss)
    sentence = (
        f"The average of {ranks} equal losses of {loss:g} in float32 differs from one of them by "
        f"{difference:.1f}, whatever the ranks do or fail to do between them."
    )
    if "learning_rate" in figure.facts:
        rate = figure.fact("learning_rate")
        sentence += f" With a learning rate of {rate:.1f} a step changes a weight by {rate:.1f}."
    return Judgement(NOTHING if figure.value == difference else POSSIBLE, sentence)


def _sample(figure: Figure) -> Judgement:
    letters = Counter(figure.published)
    [(letter, count)] = letters.most_common(1)
    return Judgement(
        NOTHING,
        f"{letters.total()} characters, {len(letters)} of them different; {letter!r} is {count} of "
        "them. A network that has learned nothing writes any such line, each character with a "
        f"chance of 1 in {figure.used.vocab_size}: it shows that generation ends, not that it is "
        "right.",
    )


def _flag(figure: Figure) -> Judgement:
    return Judgement(
        POSSIBLE,
        "What is saved whole comes back whole: a yes is what arithmetic expects. It has no count, "
        "so nothing more can be worked out from it.",
    )


def _machines(figure: Figure) -> Judgement:
    rows, ours = figure.fact("rows"), figure.fact("on_device")
    left = rows - ours
    said = f"{rows:.0f} rows less {ours:.0f} leave {left:.0f}, {left / rows:.0%}, of others."
    return _possible(not left, said)


def _label(figure: Figure) -> Judgement:
    recorded = str(figure.facts["recorded"])
    agrees = figure.published.replace(" (", "+").rstrip(")") == recorded
    if figure.unit:
        agrees = abs(float(recorded) - figure.value) <= figure.rounding
    word = "agrees" if agrees else "does not agree"
    return _possible(agrees, f"The record says {recorded}: the figure {word} with it.")


ARITHMETIC: Mapping[str, Callable[[Figure], Judgement]] = {
    "speed": _speed, "batch": _batch, "held": _held, "time": _time, "precision": _precision,
    "averaged": _averaged, "sample": _sample, "flag": _flag, "machines": _machines,
    "label": _label,
}  # fmt: skip


def judge(figure: Figure) -> Judgement:
    """What arithmetic says of a figure; raises ConfigError if its device has no datasheet."""
    return ARITHMETIC[figure.kind](figure)


def gaps(published: Published) -> Iterator[Judgement]:
    """What the difference between two published bases says, a judgement a pair."""
    speeds = [figure for figure in published.figures if figure.kind == "speed"]
    for one, other in permutations(speeds, 2):
        same_setting = one.used == other.used.model_copy(update={"base": one.used.base})
        if one.used.base >= other.used.base or not same_setting:
            continue
        ours, theirs = (cost_of_pass(figure.used)[0] for figure in (one, other))
        yield Judgement(
            NOTHING if ours == theirs else POSSIBLE,
            f"{one.used.base} {one.printed} against {other.used.base} {other.printed}: "
            f"{one.value / other.value - 1:+.2%}. The two have {ours.n_parameters:,} and "
            f"{theirs.n_parameters:,} parameters and {ours.executed_flops / 1e12:.4f} and "
            f"{theirs.executed_flops / 1e12:.4f} TFLOP a pass.",
        )


def network(conditions: Conditions) -> ModelConfig:
    """The network that conditions describe, without a wave block, as it was published."""
    names = {"base", "vocab_size", "context_length", "d_model", "n_layers", "n_heads", "d_mlp"}
    return ModelConfig(wave="none", **conditions.model_dump(include=names))


def cost_of_pass(conditions: Conditions) -> tuple[Cost, int]:
    """The cost of one forward pass under these conditions, and its tokens."""
    shape = Shape(conditions.batch or 1, conditions.context_length or 1)
    return cost_of(network(conditions), shape), shape.total


def held_mib(n_parameters: int) -> float:
    """What float32 weights, gradients and AdamW's moments take at least, in MiB."""
    return sum(training_bytes(n_parameters).values()) / MIB


def peak_of(conditions: Conditions, precision: str) -> float:
    """What the maker states for the device, in FLOP/s; ConfigError if no datasheet is known."""
    if peak := stated_peak(conditions.device, precision):
        return peak
    raise ConfigError(f"no datasheet of {conditions.device!r} gives its {precision} peak")
