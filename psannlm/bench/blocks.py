"""The order of a run's cells: in blocks, one a repeat, each shuffled anew.

A machine that grows slower or faster during a run does so for all settings alike, and a ratio is
taken within a block.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

SettingT = TypeVar("SettingT")


def shuffled_blocks(
    settings: Sequence[SettingT],
    *,
    n_repeats: int,
    seed: int,
    once: Sequence[SettingT] = (),
) -> list[tuple[int, int, SettingT]]:
    """The cells of a run, in the order in which they are measured.

    Args:
        settings: What every block measures, each once.
        n_repeats: Number of blocks.
        seed: Of the shuffling.
        once: What the first block measures beside them, as it repeats exactly.

    Returns:
        Of each cell the number of its block, its own number in the run, and its setting.
    """
    shuffler = random.Random(seed)
    cells: list[tuple[int, int, SettingT]] = []
    for repeat in range(n_repeats):
        block = [*settings, *(once if repeat == 0 else ())]
        shuffler.shuffle(block)
        cells += [(repeat, len(cells) + i, setting) for i, setting in enumerate(block)]
    return cells
