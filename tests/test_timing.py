"""Steps, the loop that times them, the ceiling it measures, and what its samples mean."""

import math

import numpy as np
import pytest
import torch

from psannlm.bench import statistics, steps, timing
from psannlm.bench.statistics import Interval, median_interval, noise_floor, ratio_interval, verdict
from psannlm.bench.steps import forward_step, plain_loss, random_batch
from psannlm.bench.timing import CudaStopwatch, HostStopwatch, Timing, time_steps, training_step
from psannlm.device import DTYPES
from psannlm.model.bases import build
from psannlm.model.cost import Shape
from psannlm.train.objective import NextToken
from tests.networks import moved, tiny

CPU = torch.device("cpu")


class FakeWork:
    """Steps that take the given seconds, the last for ever, on a clock that only they move."""

    def __init__(self, *durations: float) -> None:
        self.now, self.durations, self.n_calls = 0.0, list(durations), 0

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.n_calls += 1
        self.now += self.durations.pop(0) if len(self.durations) > 1 else self.durations[0]


def timed(work: FakeWork, min_seconds: float = 0.0, min_steps: int = 4):
    stopwatch = HostStopwatch(work.clock)
    return time_steps(work.step, stopwatch=stopwatch, min_seconds=min_seconds, min_steps=min_steps)


def test_the_first_call_is_told_apart_warmup_ends_when_two_windows_agree_and_order_stays():
    found = timed(FakeWork(9.0, 3.0, 3.0, 3.0, *[1.0] * 6, 1.0, 7.0, 2.0, 1.0))

    assert (found.first_seconds, found.steady) == (9.0, True)
    assert found.n_warmup == 3 * timing.WINDOW
    assert found.seconds == (1.0, 7.0, 2.0, 1.0)


def test_steps_fill_the_least_time_every_call_is_counted_and_endless_warmup_is_capped():
    growing, work = timed(FakeWork(*(1.5**i for i in range(100)))), FakeWork(0.25)

    assert (growing.steady, growing.n_warmup) == (False, timing.MAX_WINDOWS * timing.WINDOW)

    found = timed(work, min_seconds=5.0, min_steps=4)

    assert len(found.seconds) == 20
    assert work.n_calls == 1 + found.n_warmup + 20


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_steps_are_timed_to_their_end():
    a = torch.randn(8192, 8192, device="cuda")
    [short] = CudaStopwatch().lap(lambda: a[:64, :64] @ a[:64, :64], 1)
    [long] = CudaStopwatch().lap(lambda: a @ a, 1)

    # 2 * 8192**3 FLOPs take milliseconds on any GPU, the small product microseconds.
    assert long > 10 * short


def took(*seconds: float) -> Timing:
    return Timing(first_seconds=9.0, n_warmup=6, steady=True, seconds=seconds)


@pytest.mark.parametrize("order", [(8, 16, 32), (32, 16, 8)])
def test_the_size_with_the_highest_rate_is_the_ceiling(monkeypatch, order):
    # Products of 16 take as long as those of 8, those of 32 a hundred times as long.
    seconds = iter({8: 1.0, 16: 1.0, 32: 100.0}[size] for size in order)
    monkeypatch.setattr(steps, "SIZES", {"cpu": order})
    monkeypatch.setattr(steps, "time_steps", lambda step, **_: took(next(seconds)))

    flops, found = steps.measure_ceiling(CPU, "fp32", min_seconds=1.0, min_steps=1)

    assert flops == 2 * 16**3
    assert found.seconds == (1.0,)
    assert steps.rate(600, took(1.0, 2.0, 3.0)) == 300.0, "of all timed products, without warm-up"


@pytest.mark.parametrize("precision", DTYPES)
def test_products_are_square_drawn_by_their_seed_and_in_the_precision_asked_for(
    monkeypatch, precision
):
    products = []

    def run_once(step, *, min_seconds, min_steps, stopwatch, emulated) -> Timing:
        products.append(step())
        assert (min_seconds, min_steps, emulated) == (0.5, 7, False)  # the sizes share the time
        return took(1.0)

    monkeypatch.setattr(steps, "SIZES", {"cpu": (8, 16)})
    monkeypatch.setattr(steps, "time_steps", run_once)

    for seed in (0, 0, 1):
        steps.measure_ceiling(CPU, precision, min_seconds=1.0, min_steps=7, seed=seed)

    assert [product.shape for product in products] == 3 * [(8, 8), (16, 16)]
    assert {product.dtype for product in products} == {DTYPES[precision]}
    assert products[1].float().std() == pytest.approx(4.0, rel=0.2)  # sqrt(16) of normal draws
    assert torch.equal(products[0], products[2])
    assert not torch.equal(products[0], products[4])


def test_a_stated_peak_is_found_by_the_whole_name_and_never_guessed():
    names = [f"NVIDIA {name}" for name in ("H200", "A100-SXM4-80GB", "L40S", "H200 NVL", "L40")]

    peaks = [steps.stated_peak(name, "bf16") for name in names]

    assert peaks == [989e12, 312e12, 362e12, None, None]


CONFIG = tiny(vocab_size=40)
BATCH = random_batch(40, Shape(2, 12), seed=3, device=CPU)


def test_a_batch_is_drawn_by_its_seed_and_its_targets_are_the_tokens_that_follow():
    tokens, targets = BATCH
    again, other = (random_batch(40, Shape(2, 12), seed=seed, device=CPU)[0] for seed in (3, 4))

    assert tokens.shape == targets.shape == (2, 12)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, other)


def test_a_forward_pass_keeps_no_gradient_and_the_plain_loss_is_the_chunked_one():
    model = moved(CONFIG).train()

    plain, chunked = plain_loss(model, "fp32")(*BATCH), NextToken(model, "fp32", 5)(*BATCH)
    logits = forward_step(model, BATCH[0], precision="fp32", compiled=False)()

    assert plain.item() == pytest.approx(chunked.item(), rel=1e-5)
    assert not logits.requires_grad


@pytest.mark.parametrize("precision", DTYPES)
def test_a_training_step_learns_and_leaves_no_gradient(precision):
    model = build(CONFIG, seed=0)
    step, last_loss = training_step(
        model, plain_loss(model, precision), *BATCH, precision=precision, learning_rate=0.02
    )

    for _ in range(30):
        step()

    assert last_loss().item() < math.log(40) - 0.5
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture
def fewer_resamples(monkeypatch):
    """A tenth of them: of a thousand intervals, none needs its third digit."""
    monkeypatch.setattr(statistics, "N_RESAMPLES", 999)


def test_the_interval_of_six_processes_covers_the_true_median_nine_times_in_ten(fewer_resamples):
    draw = np.random.default_rng(0)
    samples = np.exp(draw.normal(0.0, 0.03, size=(400, 6)))

    covered = np.mean([found.low <= 1.0 <= found.high for found in map(median_interval, samples)])

    # 400 tries at a true 0.93 stay within 0.93 +- 0.03 (2.3 standard errors).
    assert 0.90 <= covered <= 0.97


def test_an_interval_is_repeatable_that_of_one_value_is_the_value_and_none_has_no_interval():
    values = [3.0, 1.0, 2.0, 5.0]

    assert median_interval(values) == median_interval(values)
    assert median_interval([2.0]) == Interval(2.0, 2.0, 2.0, 1)
    with pytest.raises(ValueError, match="at least one value, got none"):
        median_interval([])


def test_ratios_are_paired_within_the_blocks_that_both_sides_measured():
    drifting = {0: 10.0, 1: 20.0, 2: 40.0}
    half = {block: value / 2 for block, value in drifting.items()}

    # Unpaired, the medians' interval would span the drift.
    assert ratio_interval(half, drifting) == Interval(0.5, 0.5, 0.5, 3)
    assert ratio_interval({0: 1.0, 1: 8.0}, {1: 4.0, 2: 9.0}) == Interval(2.0, 2.0, 2.0, 1)
    assert ratio_interval({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("ratio", "floor", "expected"),
    [
        (Interval(1.10, 1.05, 1.15, 6), 0.02, "faster"),
        (Interval(0.90, 0.85, 0.95, 6), 0.02, "slower"),
        (Interval(1.10, 0.99, 1.20, 6), 0.02, "not separated"),
        (Interval(1.10, 1.05, 1.15, 6), 0.12, "not separated"),
        (Interval(1.005, 1.004, 1.006, 6), 0.0, "not separated"),
        (Interval(1.10, 1.05, 1.15, statistics.FEWEST_REPEATS - 1), 0.02, "not separated"),
        (None, 0.0, "not separated"),
        (Interval(1.10, 1.05, 1.15, 6), None, "not separated"),
    ],
    ids=["faster", "slower", "holds 1", "noise", "too small", "too few", "no ratio", "no floor"],
)
def test_a_verdict_needs_repeats_an_interval_without_one_and_size(ratio, floor, expected):
    assert verdict(ratio, floor) == expected
    assert noise_floor(Interval(1.0, 0.97, 1.01, 6)) == pytest.approx(0.03), "its far end"


def test_equal_arms_are_rarely_called_different(fewer_resamples):
    draw = np.random.default_rng(1)
    called = 0
    for _ in range(200):
        rates = np.exp(draw.normal(0.0, 0.02, size=(3, 6)))
        one, same, other = (dict(enumerate(row)) for row in rates)
        floor = noise_floor(ratio_interval(same, one))
        called += verdict(ratio_interval(other, one), floor) != "not separated"

    assert called / 200 <= 0.05


SETTINGS = ["a", "b", "c", "d", "e"]


def test_every_block_has_every_setting_once_shuffled_anew_and_the_first_some_more():
    cells = statistics.shuffled_blocks(SETTINGS, n_repeats=3, seed=0, once=["x", "y"])
    blocks = [[what for repeat, _, what in cells if repeat == block] for block in range(3)]
    plain, other = (
        "".join(what for _, _, what in statistics.shuffled_blocks(SETTINGS, n_repeats=3, seed=seed))
        for seed in (0, 1)
    )

    assert [sorted(block) for block in blocks] == [[*SETTINGS, "x", "y"], SETTINGS, SETTINGS]
    assert [order for _, order, _ in cells] == list(range(len(cells)))
    assert [repeat for repeat, _, _ in cells] == [0] * 7 + [1] * 5 + [2] * 5
    assert plain != other
    assert len({plain[i : i + 5] for i in (0, 5, 10)}) == 3
    assert plain.startswith("cbaed"), "runs of today are resumed tomorrow"
