"""The columns that several tables of a shootout share, and how their cells are written."""

import math
from collections.abc import Mapping
from typing import Any

from scipy.optimize import brentq
from scipy.stats import norm

from psannlm.bench.statistics import CONFIDENCE
from psannlm.evidence.table import BASE, Column, interval_columns
from psannlm.evidence.text import UNKNOWN, duration, flops
from psannlm.pages.shootout.records import VAL_LOSS

SURE = f"{CONFIDENCE:.0%}"  # how often an interval holds what it is for
POWER = 0.8  # chance with which a difference that is there is found
SIGNED = "+.4f"  # format of differences
SHARES = ("acc", "exact_match")  # metrics of lm-eval that are shares of right answers begin so

BUDGETS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
"""What arms can be given equally much of, as people call it."""

FIRST = ("val_loss", "val_ppl", "val_top1_acc", "train_tokens_per_s", "peak_cuda_mem_gb")
"""Names that open metrics.json."""


def amount(budget: str, size: float) -> str:
    """A budget as people say it: 3,276,800 tokens, 1.2 PFLOP, 4 min 3 s."""
    if budget == "seconds":
        return duration(size)
    return f"{size:,.0f} tokens" if budget == "tokens" else flops(size)


def arm_cell(row: Mapping[str, Any]) -> str:
    """An arm's name, and whose network it is too where two arms are one."""
    twin = row["same_as"]
    return f"{row['base']} (same network as {twin})" if twin else str(row["base"])


def verdict_cell(row: Mapping[str, Any]) -> str:
    """The verdict, or why the arm was refused."""
    return f"refused: {row['refused']}" if row["refused"] else row["verdict"] or UNKNOWN


def time_cell(row: Mapping[str, Any]) -> str:
    """The time of the training, or that it is unknown."""
    seconds = row["train_seconds"]
    return UNKNOWN if seconds is None else duration(seconds)


def seeds_cell(row: Mapping[str, Any]) -> str:
    """Seeds whose trainings came to their end, and how many failed."""
    failed = row.get("n_failed")
    return f"{row['n_seeds']:.0f}" + (f" ({failed:.0f} failed)" if failed else "")


def chosen_cell(row: Mapping[str, Any]) -> str:
    """Whether the setting was chosen, and lies at an edge of its grid."""
    edge = ", edge of its grid" if row["grid_edge"] else ""
    return f"chosen{edge}" if row["chosen"] else ""


def smallest_cell(row: Mapping[str, Any]) -> str:
    """The least difference of shares above chance, or above the score where chance gets nowhere."""
    chance, value = row["chance"], row["value"]
    if not row["metric"].startswith(SHARES) or (chance is None and value >= 1):
        return UNKNOWN
    return f"{smallest_effect(row['n_items'], value if chance is None else chance):.4f}"


def smallest_effect(n_items: int, p: float) -> float:
    """How much more than `p` a second share must be so that n items of each are likely to show it.

    With 80% power at 5% two-sided. Solved for d, with q = p + d and m = p + d / 2, from
    n = (z(0.975) sqrt(2 m (1 - m)) + z(0.8) sqrt(p (1 - p) + q (1 - q)))^2 / d^2
    (Fleiss, Levin, Paik 2003, Statistical Methods for Rates and Proportions, 4.2). Items of both
    are taken as independent: two networks on the same items often show smaller differences. It is
    infinite if so few items cannot show any; p, such as the chance of a guess, is less than 1.
    """
    z_level, z_power = norm.ppf(1 - (1 - CONFIDENCE) / 2), norm.ppf(POWER)

    def lack(d: float) -> float:
        """How far d falls short of what n items show."""
        middle, q = p + d / 2, p + d
        under_equal = math.sqrt(2 * middle * (1 - middle))
        under_d = math.sqrt(p * (1 - p) + max(q * (1 - q), 0.0))
        return float(z_level * under_equal + z_power * under_d - d * math.sqrt(n_items))

    return math.inf if lack(1 - p) > 0 else float(brentq(lack, 0, 1 - p))


ARM = BASE.but(text="Name of the arm.", heading="arm")
N_SEEDS = Column(
    "n_seeds", "Seeds whose trainings came to their end.", heading="seeds", cell=seeds_cell
)
LOSS = VAL_LOSS.but(
    quantity="validation loss", better="lower", compare="interval", headline="BMRK-04"
)
LOSS_ENDS = interval_columns("val_loss", "the loss, over seeds", "nats/token")
VAL_PPL = Column(
    "val_ppl", "Exponential of the loss on the validation split.", heading="perplexity",
    format=",.2f",
)  # fmt: skip
VAL_BITS = Column(
    "val_bits_per_byte", "Validation loss over ln 2 and the bytes of a token.", "bits/byte",
    heading="validation text", format=".4f",
)  # fmt: skip
VAL_TOP1 = Column(
    "val_top1_acc",
    "Share of tokens of the validation split that were the likeliest to the network.",
    heading="top-1", format=".2%",
)  # fmt: skip
TEST_PPL = Column("test_ppl", "Exponential of the loss on the test split.")
TEST_BITS = Column(
    "test_bits_per_byte", "Loss on the test split over ln 2 and the bytes of a token.", "bits/byte"
)
DIFFERENCE = Column(
    "difference", "Mean loss less that of the arm compared against, paired by seed.", "nats/token",
    heading="difference to the baseline, over seeds", format=SIGNED,
    quantity="validation loss less that of {baseline}", better="lower", headline="BMRK-04",
)  # fmt: skip
DIFFERENCE_ENDS = interval_columns("difference", "the difference, over seeds", "nats/token")
DOCUMENTS_ENDS = interval_columns("documents", "the difference, over documents", "nats/token")
P = Column("p", "Chance of such a difference if there were none, over seeds.")
P_HOLM = Column(
    "p_holm", "The same, corrected by Holm for all subsets of the arm.", heading="p (Holm)",
    format=".3g",
)  # fmt: skip
TRAIN_FLOPS = Column("train_flops", "Matrix products of the whole training.", "FLOP")
PEAK_CUDA = Column(
    "peak_cuda_mem_gb", "Most CUDA memory handed out at one time; empty on a CPU.", "10**9 bytes",
    heading="peak CUDA memory", format=".3f",
)  # fmt: skip
RATE = Column(
    "learning_rate", "Largest learning rate of the schedule.", heading="learning rate", format="g"
)
FREQUENCY = Column(
    "sine_frequency", "Initial frequency f of the damped sine; empty without one.", heading="f",
    format="g",
)  # fmt: skip
