"""The tables of a shootout: every column that is published, and how records become rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.bench.statistics import CONFIDENCE
from psannlm.evidence import table
from psannlm.evidence.page import Tables
from psannlm.evidence.table import Column, Table
from psannlm.evidence.text import UNKNOWN, duration, flops, interval
from psannlm.pages.shootout import records, results
from psannlm.pages.shootout.comparison import smallest_effect
from psannlm.pages.shootout.records import SEED, VAL_LOSS, ShootoutConfig
from psannlm.train.pretrained import HIGH, LOW, PARTS

SURE = f"{CONFIDENCE:.0%}"  # how often an interval holds what it is for
SIGNED = "+.4f"  # format of differences
SHARES = ("acc", "exact_match")  # metrics of lm-eval that are shares of right answers begin so
BUDGETS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}  # as people call them
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


ARM = table.BASE.but(text="Name of the arm.", heading="arm")
N_SEEDS = Column(
    "n_seeds", "Seeds whose trainings came to their end.", heading="seeds", cell=seeds_cell
)
LOSS = VAL_LOSS.but(
    quantity="validation loss", better="lower", compare="interval", headline="BMRK-04"
)
LOSS_ENDS = table.interval_columns("val_loss", "the loss, over seeds", "nats/token")
VAL_PPL = Column(
    "val_ppl", "Exponential of the loss on the validation split.", "", "perplexity", ",.2f"
)
VAL_BITS = Column(
    "val_bits_per_byte", "Validation loss over ln 2 and the bytes of a token.", "bits/byte",
    "validation text", ".4f",
)  # fmt: skip
VAL_TOP1 = Column("val_top1_acc", records.TOP1.format("validation"), "", "top-1", ".2%")
TEST_PPL = Column("test_ppl", "Exponential of the loss on the test split.")
TEST_BITS = Column(
    "test_bits_per_byte", "Loss on the test split over ln 2 and the bytes of a token.", "bits/byte"
)
DIFFERENCE = Column(
    "difference", "Mean loss less that of the arm compared against, paired by seed.", "nats/token",
    "difference to the baseline, over seeds", SIGNED,
    quantity="validation loss less that of {baseline}", better="lower", headline="BMRK-04",
)  # fmt: skip
DIFFERENCE_ENDS = table.interval_columns("difference", "the difference, over seeds", "nats/token")
DOCUMENTS_ENDS = table.interval_columns("documents", "the difference, over documents", "nats/token")
P = Column("p", "Chance of such a difference if there were none, over seeds.")
P_HOLM = Column(
    "p_holm", "The same, corrected by Holm for all subsets of the arm.", "", "p (Holm)", ".3g"
)
TIME = records.TRAIN_SECONDS.but(
    heading="time",
    cell=lambda row: UNKNOWN if row["train_seconds"] is None else duration(row["train_seconds"]),
)
TRAIN_FLOPS = Column("train_flops", "Matrix products of the whole training.", "FLOP")
PEAK_CUDA = Column(
    "peak_cuda_mem_gb", "Most CUDA memory handed out at one time; empty on a CPU.", "10**9 bytes",
    "peak CUDA memory", ".3f",
)  # fmt: skip
RATE = Column("learning_rate", "Largest learning rate of the schedule.", "", "learning rate", "g")
FREQUENCY = Column(
    "sine_frequency", "Initial frequency f of the damped sine; empty without one.", "", "f", "g"
)

SUMMARY = Table(
    "summary.csv", "One row an arm, by place; means over seeds.",
    (
        Column(
            "place", "One more than the arms separated as better; empty if not ranked.", "",
            "place", ".0f",
        ),
        ARM.but(cell=arm_cell), table.VERDICT.but(cell=verdict_cell),
        records.REFUSED, records.SAME_AS, N_SEEDS, table.N_FAILED, LOSS, *LOSS_ENDS,
        VAL_PPL.but(text="Exponential of the mean validation loss."),
        VAL_BITS.but(quantity="validation text", better="lower", headline="BMRK-04"),
        VAL_TOP1, records.TEST_LOSS,
        TEST_PPL.but(text="Exponential of the mean loss on the test split."),
        TEST_BITS, DIFFERENCE, *DIFFERENCE_ENDS,
        DOCUMENTS_ENDS[0].but(
            heading="difference to the baseline, over documents",
            cell=lambda row: interval(
                row["difference"], row["documents_low"], row["documents_high"], SIGNED
            ),
        ),
        DOCUMENTS_ENDS[1],
        P.but(
            text="Largest p of three tests, over seeds, over documents, and over both drawn anew."
        ),
        P_HOLM.but(
            text="The same, corrected by Holm for all arms that are compared with the baseline."
        ),
        Column(
            "test_difference", "The difference on the test split.", "nats/token",
            "difference on the test split", SIGNED,
        ),
        Column("test_difference_low", "Lower end of its interval, over seeds.", "nats/token"),
        Column("test_difference_high", "Upper end of its interval, over seeds.", "nats/token"),
        records.TRAIN_TOKENS_PER_S, TIME, records.TRAIN_TOKENS, TRAIN_FLOPS, records.N_PARAMETERS,
        records.D_MLP, PEAK_CUDA, RATE, FREQUENCY,
        Column(
            "grid_edge",
            "Whether the chosen setting lies at an end of its grid, along three values or more.",
            heading="edge of its grid", cell=lambda row: "yes" if row["grid_edge"] else "",
        ),
    ),
    caption="Arms by place",
    shown=(
        "place", "base", "verdict", "val_loss", "difference", "documents_low", "p_holm", "val_ppl",
        "val_bits_per_byte", "val_top1_acc", "test_loss", "test_difference", "train_tokens_per_s",
        "train_seconds", "peak_cuda_mem_gb", "n_parameters", "d_mlp", "learning_rate",
        "sine_frequency", "grid_edge", "n_seeds",
    ),
    fixed=("base", *FIRST),
)  # fmt: skip
RUNS = Table(
    "runs.csv", "One row a compared training.",
    (
        ARM, SEED, table.STATUS.but(heading="result"), table.REASON, records.KEY,
        VAL_LOSS.but(text="Loss on the validation split at the end."),
        VAL_PPL, VAL_BITS, VAL_TOP1,
        records.TEST_LOSS, TEST_PPL, TEST_BITS,
        Column("test_top1_acc", records.TOP1.format("test")),
        records.TRAIN_LOSS, records.TRAIN_TOKENS_PER_S, TIME,
        records.OVERHEAD_SECONDS, records.TRAIN_TOKENS,
        TRAIN_FLOPS.but(heading="matrix products", format=".3g"),
        records.N_PARAMETERS, records.D_MLP, records.FLOPS_PER_TOKEN, PEAK_CUDA,
        table.PEAK_RSS_BYTES.but(
            name="peak_rss_mib", unit="MiB", heading="peak RSS", format=",.0f"
        ),
        RATE, FREQUENCY, records.LEAK, table.DEVICE, table.STARTED_AT,
    ),
    caption="One row a training",
    shown=(
        "base", "seed", "val_loss", "val_ppl", "val_bits_per_byte", "val_top1_acc", "test_loss",
        "train_loss", "train_tokens", "train_flops", "train_tokens_per_s", "train_seconds",
        "overhead_seconds", "peak_cuda_mem_gb", "peak_rss_mib", "leak", "status",
    ),
    fixed=("base", "seed", *FIRST),
)  # fmt: skip
TUNING = Table(
    "tuning.csv", "One row a tuning.",
    (
        ARM, RATE, FREQUENCY, SEED, table.STATUS.but(heading="result"), table.REASON, VAL_LOSS,
        Column(
            "chosen", "Whether this setting was chosen for the arm.", heading="chosen",
            cell=chosen_cell,
        ),
        Column(
            "grid_edge",
            "Whether it was chosen and lies at an end of its grid, along three values or more.",
        ),
    ),
    caption="Every setting of every arm",
    shown=("base", "learning_rate", "sine_frequency", "seed", "val_loss", "chosen", "status"),
)  # fmt: skip
ABLATION = Table(
    "ablation.csv", "One row a subset of learned parameters of the damped sine.",
    (
        table.BASE.but(heading="arm"),
        Column(
            "learnable", "Parameters of the damped sine that learn; none, if none does.", "",
            "learned",
        ),
        N_SEEDS, VAL_LOSS, *LOSS_ENDS,
        DIFFERENCE.but(
            text="Mean loss less that with all parameters learned, paired by seed.",
            heading="difference to all learned", quantity="", headline="",
        ),
        *DIFFERENCE_ENDS, P, P_HOLM, table.VERDICT,
    ),
    caption="Subsets of learned parameters",
)  # fmt: skip
SCALES = Table(
    "scales.csv", "One row an arm and initial scale.",
    (
        ARM,
        Column(
            "scale",
            "Initial frequency, or without one a factor of the deviation of all initial weights.",
            "", "initial scale", "g",
        ),
        RATE, N_SEEDS, table.N_FAILED, VAL_LOSS, *LOSS_ENDS,
    ),
    caption="Loss at other initial scales",
    shown=("base", "scale", "learning_rate", "val_loss", "n_seeds"),
)  # fmt: skip
CURVES = Table(
    "curves.csv", "One row an evaluation of a compared training.",
    (
        ARM, SEED,
        Column("step", "Number of the step."),
        Column("tokens", "Trained on so far.", "tokens"),
        Column("flops", "Matrix products so far.", "FLOP"),
        Column("seconds", "Time of all steps so far.", "s"),
        VAL_LOSS,
    ),
)  # fmt: skip
MATCHED = Table(
    "matched.csv", "One row an arm and budget, losses at equal tokens, FLOPs and seconds.",
    (
        Column("budget", "What is equal, tokens, flops or seconds.", "", "equal", words=BUDGETS),
        Column(
            "amount", "Largest amount that all reach, in units of the budget.", heading="amount",
            cell=lambda row: amount(row["budget"], row["amount"]),
        ),
        ARM, N_SEEDS, VAL_LOSS, *LOSS_ENDS,
        DIFFERENCE.but(heading="difference to the baseline", quantity="", headline=""),
        *DIFFERENCE_ENDS,
    ),
    caption="Loss at one budget for all",
    shown=("budget", "amount", "base", "val_loss", "difference", "n_seeds"),
)  # fmt: skip
LEARNED = Table(
    "learned.csv", "One row a parameter of the nonlinearities of a layer, before and after.",
    (
        ARM, SEED,
        Column("layer", "Number of the block, and the part of it.", heading="layer"),
        Column("part", "amplitude, frequency or decay."),
        Column("before", "Mean over features before the training."),
        Column("after", "Mean over features after the training."),
        Column("low", "5% of the features lie below, after."),
        Column("high", "5% of the features lie above, after."),
    ),
)  # fmt: skip
SCORES = Table(
    "scores.csv", "One row a task of lm-eval and training; no rows if none was asked for.",
    (
        ARM, SEED,
        Column("task", "Name of the task.", heading="task"),
        Column("metric", "What the task counts.", heading="metric"),
        Column("value", "Result of the task."),
        Column("stderr", "Standard error of the value.", "", "standard error of one", ".4f"),
        Column("n_items", "Items of the task.", "", "items", ",d"),
        Column(
            "chance", "Of a blind guess; empty where guessing gets nowhere.", "", "chance", ".4f"
        ),
    ),
)  # fmt: skip
DOCUMENTS = Table(
    "documents.csv", "One row a validation document and compared training.",
    (
        ARM, SEED,
        Column("document", "Number of the document in its split, from 0."),
        Column("nats", "Loss of the whole document.", "nats"),
        Column("n_tokens", "Tokens of the document.", "tokens"),
    ),
)  # fmt: skip
PUBLISHED = (
    SUMMARY, RUNS, TUNING, ABLATION, SCALES, CURVES, MATCHED, LEARNED, SCORES, DOCUMENTS,
)  # fmt: skip
RAW = (
    Table(
        "summary.json", "The arms and their trainings, with the settings that were chosen.",
        (
            Column("arms", "One entry an arm, with the columns of summary.csv."),
            Column("runs", "One entry a compared training, with the columns of runs.csv."),
            Column("settings", "Baseline, seeds, grids of the tuning, and what it has chosen."),
        ),
    ),
    Table("runs/*/metrics.json", "One compared training.", RUNS.columns),
    Table("leaderboard.md", "The summary as a table to read.", ()),
)  # fmt: skip
LAYERS = Table(
    "layers", "One row an arm and layer, means over seeds.",
    (
        ARM, LEARNED["layer"],
        *(
            Column(part, "Before and after.", heading=f"{letter} ({LOW:.0%} – {HIGH:.0%} after)")
            for part, letter in PARTS.items()
        ),
        N_SEEDS.but(cell=None),
    ),
    caption="Learned parameters by layer",
)  # fmt: skip
TASKS = Table(
    "tasks", "One row an arm and metric of a task, means over seeds.",
    (
        SCORES["task"], SCORES["metric"], ARM,
        Column("value", "Mean, least and most.", "", "mean (least – most)", ".4f"),
        SCORES["stderr"], SCORES["chance"], SCORES["n_items"],
        Column("smallest", "Of shares.", "", "smallest effect they can show", cell=smallest_cell),
        N_SEEDS, Column("value_low", "Least."), Column("value_high", "Most."),
    ),
    caption="Tasks of lm-eval, means over seeds",
)  # fmt: skip
FAILURES = Table(
    "failures", "One row a training that failed.",
    (
        ARM, Column("part", "compared, tuning or control.", "", "part"), SEED, RATE, FREQUENCY,
        Column("init_std", "Deviation of the initial weights.", "", "init_std", "g"),
        Column("learned", "What the sine learns.", heading="learned"),
        table.REASON.but(heading="reason"), records.KEY.but(heading="key"), table.STATUS,
        records.TRAIN_SECONDS,
    ),
    caption="Trainings that failed",
)  # fmt: skip
SINGLE_SCALES = Table("single scales", "", (ARM, SCALES["scale"], SEED, VAL_LOSS))
BOARD = Table(
    "leaderboard.md", "The summary as a table to read.",
    (
        SUMMARY["place"], table.BASE,
        LOSS.but(heading=f"val loss, nats/token ({SURE} interval)"),
        VAL_PPL.but(heading="val ppl"), VAL_BITS.but(heading="bits/byte"),
        VAL_TOP1.but(format=".1%"),
        DIFFERENCE.but(heading="difference to {baseline} (interval)", unit=""),
        table.VERDICT.but(
            cell=lambda row: row["verdict"] or ("refused" if row["refused"] else UNKNOWN)
        ),
        records.TRAIN_TOKENS_PER_S, PEAK_CUDA.but(heading="peak CUDA, GB", unit="", format=".2f"),
        records.N_PARAMETERS, N_SEEDS,
    ),
)  # fmt: skip
"""Columns of leaderboard.md and README.md."""


def tabulate(found: Sequence[records.ShootoutRecord], config: ShootoutConfig) -> Tables:
    """All tables of a shootout, also of one that is not finished.

    No arm has a place of which a tuning or a seed is still to come, or that no gate has examined.
    """
    trainings = results.Trainings.of(found, config)
    scales = results.scale_rows(trainings)
    rows: Mapping[Table, Iterable[Mapping[str, Any]]] = {
        SUMMARY: results.summary_rows(trainings),
        RUNS: (results.run_row(r, config) for mine in trainings.compared.values() for r in mine),
        TUNING: results.tuning_rows(trainings),
        ABLATION: results.ablation_rows(trainings),
        SCALES: scales,
        CURVES: results.item_rows("curve", trainings),
        MATCHED: results.matched_rows(trainings),
        LEARNED: results.item_rows("learned", trainings),
        SCORES: results.item_rows("scores", trainings),
        DOCUMENTS: results.item_rows("documents", trainings),
        records.GATES: map(vars, trainings.gates),
        SINGLE_SCALES: (
            row | {"seed": seed, "val_loss": loss}
            for row in scales
            for seed, loss in row["losses"].items()
        ),
        FAILURES: results.training_rows(trainings),
    }
    tables = {table.file: table.frame(made) for table, made in rows.items()}
    every = tables[FAILURES.file]
    return tables | {
        "trainings": every,
        "gain": pd.DataFrame(results.gain_rows(trainings.compared)),
        FAILURES.file: every[every["status"] != "ok"],
        LAYERS.file: LAYERS.frame(results.layer_rows(tables[LEARNED.file])),
        TASKS.file: TASKS.frame(results.task_rows(tables[SCORES.file])),
    }
