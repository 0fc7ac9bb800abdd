"""Positions are rotations, biases or sines exactly as published, wherever a sequence is cut."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from psannlm.model.positions import Alibi, Rotary, alibi_slopes, sinusoidal_table

pytestmark = pytest.mark.usefixtures("float64")

EXACT = 1e-12  # a few float64 roundings of numbers of size 10


def test_rotary_turns_each_pair_by_its_angle(generator: torch.Generator) -> None:
    x = torch.randn(1, 1, 20, 4, generator=generator)

    turned = Rotary(4, 20)(x, 0)

    for t in (0, 1, 7, 19):
        for pair, rate in ((0, 1.0), (1, 0.01)):  # 10000 ** (-2 i / 4)
            left, right = x[0, 0, t, pair].item(), x[0, 0, t, pair + 2].item()
            point = complex(left, right) * complex(math.cos(t * rate), math.sin(t * rate))
            actual = turned[0, 0, t, [pair, pair + 2]].tolist()
            assert actual == pytest.approx([point.real, point.imag], abs=EXACT)


@pytest.mark.parametrize("apply", [Rotary(8, 600), Alibi(2).key], ids=["rotary", "alibi"])
def test_positions_at_an_offset_are_a_slice_of_the_whole(
    apply: Callable[[Tensor, int], Tensor], generator: torch.Generator
) -> None:
    x = torch.randn(1, 2, 600, 8, generator=generator)

    whole = apply(x, 0)

    for start, stop in ((0, 5), (250, 260), (511, 600)):
        assert torch.equal(apply(x[:, :, start:stop], start), whole[:, :, start:stop])


@pytest.mark.parametrize(
    ("n_heads", "expected"),
    [
        (1, [2**-8]),
        (2, [2**-4, 2**-8]),
        (8, [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8]),
        (3, [2**-4, 2**-8, 2**-2]),
        (6, [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3]),
        (12, [2**-1, 2**-2, 2**-3, 2**-4, 2**-5, 2**-6, 2**-7, 2**-8,
              2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]),
    ],
)  # fmt: skip
def test_slopes_are_the_published_ones(n_heads: int, expected: list[float]) -> None:
    assert alibi_slopes(n_heads) == pytest.approx(expected, rel=1e-15)  # one rounding


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_half_precision_positions_beyond_256_are_exact(dtype: torch.dtype) -> None:
    length, d_head = 4096, 4
    alibi = Alibi(8)
    zeros = torch.zeros(1, 8, length, d_head, dtype=dtype)

    query, key = alibi.query(zeros[:, :, :1]), alibi.key(zeros, 0)
    bias = (query.double() @ key.double().transpose(-1, -2))[0, :, 0] / math.sqrt(d_head)

    assert query.dtype == key.dtype == dtype
    # Slopes and sqrt(K) are powers of two here, so nothing at all is rounded.
    expected = torch.tensor(alibi_slopes(8))[:, None] * torch.arange(length)
    assert torch.equal(bias, expected)


def test_the_sinusoidal_table_holds_sines_and_cosines() -> None:
    table = sinusoidal_table(10, 6)

    assert table.shape == (10, 6)
    for t in (0, 1, 9):
        angles = [t / 10000 ** (2 * pair / 6) for pair in range(3)]
        expected = [wave(angle) for angle in angles for wave in (math.sin, math.cos)]
        assert table[t].tolist() == pytest.approx(expected, abs=1e-15)  # one rounding


def test_tables_are_made_in_float64_and_only_then_rounded(float64: None) -> None:
    # A float32 angle of 65535 radians would be off by 4e-3.
    torch.set_default_dtype(torch.float32)

    rotary, table = Rotary(2, 2**16), sinusoidal_table(2**16, 2)

    angle = 2.0**16 - 1
    expected = [math.sin(angle), math.cos(angle)]
    assert [rotary.sine[-1].item(), rotary.cosine[-1].item()] == pytest.approx(expected, abs=6e-8)
    assert table[-1].tolist() == pytest.approx(expected, abs=6e-8)
