"""Published figures are read as printed, refused if altered, and judged by plain sums."""

import re

import numpy as np
import pytest

from psannlm.config.schema import ConfigError
from psannlm.model.bases import build
from psannlm.publish import published as figures
from psannlm.publish.published import IMPOSSIBLE, NOTHING, POSSIBLE, Conditions, Figure, judge, load

TEXT = figures.PATH.read_text(encoding="utf-8")
FIGURES = {figure.id: figure for figure in load().figures}


def test_the_committed_file_says_what_was_published():
    assert [figure.published for figure in load().figures if figure.kind == "speed"] == [
        "614,749.60", "613,210.62", "612,637.03", "612,338.01", "~299k", "302k",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("printed", "value", "rounding"),
    [
        ("614,749.60", 614749.6, 0.005),
        ("~299k", 299_000, 500),
        ("1.57e-4", 0.000157, 0.0000005),
        ("0.0", 0, 0.05),
        ("20,480", 20480, 0.5),
    ],
)
def test_a_printed_number_has_a_value_and_the_rounding_of_its_last_digit(printed, value, rounding):
    figure = FIGURES["torch"].model_copy(update={"published": printed})

    assert figure.value == pytest.approx(value)
    assert figure.rounding == pytest.approx(rounding)


def test_every_digit_of_every_figure_is_held_by_its_hash():
    for figure in load().figures:
        for place in re.finditer(r"\d", figure.published):
            for step in (1, 5):
                digit = str((int(place[0]) + step) % 10)
                text = figure.published[: place.start()] + digit + figure.published[place.end() :]

                changed = figure.model_copy(update={"published": text})

                assert figures.fingerprint(changed) != figure.sha256, f"{figure.id}: {text}"


FIGURE = "book/published.yaml: figure checkpoint-allocated was altered, its sha256 differs"
FILE = "book/published.yaml: the file was altered, its sha256 differs"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"71.76"', '"71.77"', FIGURE),
        ("alone_mib: 24.01", "alone_mib: 24.02", FIGURE),
        ('lines: "413 to 418"', 'lines: "413 to 419"', FIGURE),
        ("n_layers: 8, precision", "n_layers: 9, precision", FIGURE),
        ('"2025-11-07"', '"2025-11-08"', FILE),
        (TEXT[TEXT.index("\n  - id: torch") :], "\n", FILE),
        ("batch: 4,", "batch: four,", r"figures\.4\.used\.batch: Input should be"),
        ("    unit: tokens\n", "    unit: tokens\n    note: x\n", r"figures\.4\.note: Extra"),
        ("figures:", "figures: [", "is not valid YAML"),
    ],
)
def test_an_altered_or_malformed_file_is_refused_with_the_place(tmp_path, old, new, said):
    path = tmp_path / "book" / "published.yaml"
    path.parent.mkdir()
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")

    with pytest.raises(ConfigError, match=said):
        load(path)


# Verdicts follow from arithmetic that is written out here once more, as plain sums.


def because(name: str) -> str:
    return judge(FIGURES[name]).because


def with_used(name: str, **used: object) -> Figure:
    figure = FIGURES[name]
    return figure.model_copy(update={"used": figure.used.model_copy(update=used)})


def test_every_published_figure_has_a_verdict_with_its_arithmetic():
    found = {name: judge(figure).verdict for name, figure in FIGURES.items()}

    assert [n for n, v in found.items() if v == IMPOSSIBLE] == [
        "lower-batch", "checkpoint-allocated", "checkpoint-reserved", "machine",
    ]  # fmt: skip
    assert [n for n, v in found.items() if v == NOTHING] == [
        "checkpoint-time", "ddp-parity", "fsdp-parity", "generation-sample",
    ]  # fmt: skip


def test_a_speed_is_the_products_of_a_forward_pass_against_the_stated_peak():
    layers = 4 * (8 * 256**2 + 4 * 256 * 1024 + 4 * 4096 * 256)
    rate = 614749.6 * (layers + 2 * 256 * 32000)

    said = because(LARGE)

    assert f"{rate / 67e12:.1%} of the 67 TFLOP/s" in said
    assert f"{rate / 989e12:.1%} of its 989 TFLOP/s" in said
    assert f"{3 * rate / 67e12:.0%} of the float32 peak, more than it can do" in said
    assert f"{20 * 131072 / 4.2642:,.0f} tokens/s" in said


LARGE = "throughput-respsann-131072"
LEAST = 3 * 64 * (2 * (8 * 128**2 + 4 * 128 * 512 + 4 * 64 * 128) + 2 * 128 * 31) / 67e12
"""Seconds of the arithmetic of `checkpoint-time` at the stated peak."""


@pytest.mark.parametrize(
    ("name", "published", "facts", "verdict"),
    [
        # Beyond the peak, or beside its own record.
        (LARGE, "2,000,000.00", {"elapsed_s": 20 * 131072 / 2e6}, IMPOSSIBLE),
        (LARGE, "614,849.60", {}, IMPOSSIBLE),
        ("lower-batch", "1,024", {}, POSSIBLE),
        ("checkpoint-reserved", "386.0", {}, POSSIBLE),
        ("checkpoint-reserved", "384.0", {}, IMPOSSIBLE),
        ("checkpoint-time", f"{2 * LEAST:.9f}", {}, POSSIBLE),
        ("checkpoint-time", f"{LEAST / 2:.9f}", {}, IMPOSSIBLE),
        ("amp-parity", "1.67e-4", {}, IMPOSSIBLE),
        ("ddp-parity", "0.1", {}, POSSIBLE),
        ("fsdp-parity", "0.1", {}, POSSIBLE),
        ("machine", None, {"rows": 6.0}, POSSIBLE),
        ("machine-memory", None, {"recorded": "3.9"}, IMPOSSIBLE),
        ("python", None, {"recorded": "3.9"}, IMPOSSIBLE),
        ("torch", None, {"recorded": "3.9"}, IMPOSSIBLE),
    ],
)
def test_another_figure_or_another_record_has_another_verdict(name, published, facts, verdict):
    figure = FIGURES[name]
    changes = {"published": published or figure.published, "facts": {**figure.facts, **facts}}

    assert judge(figure.model_copy(update=changes)).verdict == verdict


def test_the_arithmetic_is_told():
    assert "has 1,024 tokens; 20 steps of it have 20,480" in because("lower-batch")
    assert "are neither, not of a step" not in because("lower-batch")
    assert f"{1e6 * LEAST:.2f} µs" in because("checkpoint-time")
    assert "differ by 0.000157" in because("amp-parity")
    sample = "19 characters, 7 of them different; 'q' is 7 of them."
    assert because("generation-sample").startswith(sample)
    assert "leave 40, 87%" in because("machine")


def test_the_average_of_equal_losses_differs_from_none_of_them():
    losses = np.random.default_rng(0).uniform(0.1, 12, 1000).astype(np.float32)

    assert ((losses + losses) / np.float32(2) == losses).all()


def test_the_medium_network_holds_more_than_the_published_memory():
    width, mlp = 512, 2048
    block = 4 * width**2 + 2 * width * mlp + mlp + width + 3 * mlp + 1 + 2 * width
    parameters = 8 * block + 2 * 2 * width + width

    said = because("checkpoint-allocated")

    assert f"{parameters:,} parameters" in said
    assert f"weights alone take {4 * parameters / 2**20:.1f} MiB" in said
    assert f"AdamW {16 * parameters / 2**20:.1f} MiB" in said
    assert f"would take {16 * 8 * 4 * width**2 / 2**20:.1f} MiB" in said


def test_the_small_network_fits_the_published_memory():
    block = 4 * 128**2 + 2 * 128 * 512 + 512 + 128 + 3 * 512 + 1 + 2 * 128
    needed = 16 * (2 * block + 2 * 31 * 128 + 128) / 2**20

    said = because("checkpoint-reserved")

    assert needed < 71.76
    assert f"needs {needed:.1f} MiB, which fits" in said


def test_two_names_of_one_network_cannot_differ_by_more_than_noise():
    found = list(figures.gaps(load()))

    assert [one.verdict for one in found] == [NOTHING] * 3
    assert f"{614749.6 / 612637.03 - 1:+.2%}" in found[0].because
    assert f"{299 / 302 - 1:+.2%}" in found[2].because


def test_bases_of_other_shapes_may_differ():
    published = load()
    pair = (published.figures[0], with_used("throughput-waveresnet-131072", d_mlp=2048))

    assert not list(figures.gaps(published.model_copy(update={"figures": pair})))


def test_a_figure_without_a_known_device_is_refused():
    with pytest.raises(ConfigError, match="no datasheet of 'x'"):
        judge(with_used("checkpoint-time", device="x"))


# What conditions imply agrees with networks that are really built, and with hand-written sums.

TINY = Conditions(
    base="respsann", batch=2, context_length=8, d_model=16, n_layers=3, n_heads=2, d_mlp=24,
    vocab_size=11, device="NVIDIA H200",
)  # fmt: skip


@pytest.mark.parametrize("base", ["respsann", "waveresnet"])
def test_parameters_are_those_of_a_network_that_is_built(base):
    conditions = TINY.model_copy(update={"base": base})
    built = build(figures.network(conditions), seed=0)

    cost, tokens = figures.cost_of_pass(conditions)

    assert cost.n_parameters == sum(p.numel() for p in built.parameters())
    assert tokens == 16


def test_a_weight_its_gradient_and_two_moments_are_sixteen_bytes():
    assert figures.held_mib(2**20) == 16.0
