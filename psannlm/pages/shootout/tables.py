"""The tables of a shootout: every column that is published, and how records become rows."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psannlm.evidence.page import Tables
from psannlm.evidence.table import (
    BASE,
    DEVICE,
    N_FAILED,
    PEAK_RSS_BYTES,
    REASON,
    STARTED_AT,
    STATUS,
    VERDICT,
    Column,
    Table,
)
from psannlm.evidence.text import UNKNOWN
from psannlm.pages.shootout import controls, gain_control
from psannlm.pages.shootout.columns import (
    ARM,
    BUDGETS,
    DIFFERENCE,
    DIFFERENCE_ENDS,
    FIRST,
    FREQUENCY,
    LOSS,
    LOSS_ENDS,
    N_SEEDS,
    P_HOLM,
    PEAK_CUDA,
    RATE,
    SIGNED,
    SURE,
    TEST_BITS,
    TEST_PPL,
    TRAIN_FLOPS,
    VAL_BITS,
    VAL_PPL,
    VAL_TOP1,
    P,
    amount,
    arm_cell,
    chosen_cell,
    documents_cell,
    smallest_cell,
    time_cell,
    verdict_cell,
)
from psannlm.pages.shootout.config import ShootoutConfig
from psannlm.pages.shootout.records import (
    D_MLP,
    FLOPS_PER_TOKEN,
    GATES,
    KEY,
    LEAK,
    N_PARAMETERS,
    OVERHEAD_SECONDS,
    REFUSED,
    SAME_AS,
    SEED,
    TEST_LOSS,
    TRAIN_LOSS,
    TRAIN_SECONDS,
    TRAIN_TOKENS,
    TRAIN_TOKENS_PER_S,
    VAL_LOSS,
    ShootoutRecord,
)
from psannlm.pages.shootout.results import Trainings, run_rows, summary_rows
from psannlm.train.learned import HIGH, LOW, PARTS

SUMMARY = Table(
    "summary.csv",
    "One row an arm, by place; means over seeds.",
    (
        Column(
            "place",
            "One more than the arms separated as better; empty if not ranked.",
            heading="place",
            format=".0f",
        ),
        ARM.but(cell=arm_cell),
        VERDICT.but(cell=verdict_cell),
        REFUSED,
        SAME_AS,
        N_SEEDS,
        N_FAILED,
        LOSS,
        *LOSS_ENDS,
        VAL_PPL.but(text="Exponential of the mean validation loss."),
        VAL_BITS.but(quantity="validation text", better="lower", headline="BMRK-04"),
        VAL_TOP1,
        TEST_LOSS,
        TEST_PPL.but(text="Exponential of the mean loss on the test split."),
        TEST_BITS,
        DIFFERENCE,
        *DIFFERENCE_ENDS,
        Column(
            "documents_low",
            "Lower end of the interval of the difference, over documents.",
            "nats/token",
            heading="difference to the baseline, over documents",
            cell=documents_cell,
        ),
        Column(
            "documents_high",
            "Upper end of the interval of the difference, over documents.",
            "nats/token",
        ),
        P.but(
            text="Largest p of three tests, over seeds, over documents, and over both drawn anew."
        ),
        P_HOLM.but(
            text="The same, corrected by Holm for all arms that are compared with the baseline."
        ),
        Column(
            "test_difference",
            "The difference on the test split.",
            "nats/token",
            heading="difference on the test split",
            format=SIGNED,
        ),
        Column("test_difference_low", "Lower end of its interval, over seeds.", "nats/token"),
        Column("test_difference_high", "Upper end of its interval, over seeds.", "nats/token"),
        TRAIN_TOKENS_PER_S,
        TRAIN_SECONDS.but(heading="time", unit="s", cell=time_cell),
        TRAIN_TOKENS,
        TRAIN_FLOPS,
        N_PARAMETERS,
        D_MLP,
        PEAK_CUDA,
        RATE,
        FREQUENCY,
        Column(
            "grid_edge",
            "Whether the chosen setting lies at an end of its grid, along three values or more.",
            heading="edge of its grid",
            cell=lambda row: "yes" if row["grid_edge"] else "",
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
    "runs.csv",
    "One row a compared training.",
    (
        ARM, SEED, STATUS.but(heading="result"), REASON, KEY,
        VAL_LOSS.but(text="Loss on the validation split at the end."),
        VAL_PPL, VAL_BITS, VAL_TOP1, TEST_LOSS, TEST_PPL, TEST_BITS,
        Column(
            "test_top1_acc",
            "Share of tokens of the test split that were the likeliest to the network.",
        ),
        TRAIN_LOSS, TRAIN_TOKENS_PER_S, TRAIN_SECONDS.but(heading="time", cell=time_cell),
        OVERHEAD_SECONDS, TRAIN_TOKENS, TRAIN_FLOPS.but(heading="matrix products", format=".3g"),
        N_PARAMETERS, D_MLP, FLOPS_PER_TOKEN, PEAK_CUDA,
        PEAK_RSS_BYTES.but(name="peak_rss_mib", unit="MiB", heading="peak RSS", format=",.0f"),
        RATE, FREQUENCY, LEAK, DEVICE, STARTED_AT,
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
    "tuning.csv",
    "One row a tuning.",
    (
        ARM, RATE, FREQUENCY, SEED, STATUS.but(heading="result"), REASON, VAL_LOSS,
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
    "ablation.csv",
    "One row a subset of learned parameters of the damped sine.",
    (
        BASE.but(heading="arm"),
        Column(
            "learnable",
            "Parameters of the damped sine that learn; none, if none does.",
            heading="learned",
        ),
        N_SEEDS, VAL_LOSS, *LOSS_ENDS,
        DIFFERENCE.but(
            text="Mean loss less that with all parameters learned, paired by seed.",
            heading="difference to all learned", quantity="", headline="",
        ),
        *DIFFERENCE_ENDS, P, P_HOLM, VERDICT,
    ),
    caption="Subsets of learned parameters",
    shown=("base", "learnable", "n_seeds", "val_loss", "difference", "p_holm", "verdict"),
)  # fmt: skip
SCALES = Table(
    "scales.csv",
    "One row an arm and initial scale.",
    (
        ARM,
        Column(
            "scale",
            "Initial frequency, or without one a factor of the deviation of all initial weights.",
            heading="initial scale",
            format="g",
        ),
        RATE, N_SEEDS, N_FAILED, VAL_LOSS, *LOSS_ENDS,
    ),
    caption="Loss at other initial scales",
    shown=("base", "scale", "learning_rate", "val_loss", "n_seeds"),
)  # fmt: skip
CURVES = Table(
    "curves.csv",
    "One row an evaluation of a compared training.",
    (
        ARM,
        SEED,
        Column("step", "Number of the step."),
        Column("tokens", "Trained on so far.", "tokens"),
        Column("flops", "Matrix products so far.", "FLOP"),
        Column("seconds", "Time of all steps so far.", "s"),
        VAL_LOSS,
    ),
)
MATCHED = Table(
    "matched.csv",
    "One row an arm and budget, losses at equal tokens, FLOPs and seconds.",
    (
        Column(
            "budget", "What is equal, tokens, flops or seconds.", heading="equal", words=BUDGETS
        ),
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
    "learned.csv",
    "One row a parameter of the nonlinearities of a layer, before and after.",
    (
        ARM,
        SEED,
        Column("layer", "Number of the block, and the part of it.", heading="layer"),
        Column("part", "amplitude, frequency or decay."),
        Column("before", "Mean over features before the training."),
        Column("after", "Mean over features after the training."),
        Column("low", "5% of the features lie below, after."),
        Column("high", "5% of the features lie above, after."),
    ),
)
SCORES = Table(
    "scores.csv",
    "One row a task of lm-eval and training; no rows if none was asked for.",
    (
        ARM,
        SEED,
        Column("task", "Name of the task.", heading="task"),
        Column("metric", "What the task counts.", heading="metric"),
        Column("value", "Result of the task."),
        Column(
            "stderr", "Standard error of the value.", heading="standard error of one", format=".4f"
        ),
        Column("n_items", "Items of the task.", heading="items", format=",d"),
        Column(
            "chance",
            "Of a blind guess; empty where guessing gets nowhere.",
            heading="chance",
            format=".4f",
        ),
    ),
)
DOCUMENTS = Table(
    "documents.csv",
    "One row a validation document and compared training.",
    (
        ARM,
        SEED,
        Column("document", "Number of the document in its split, from 0."),
        Column("nats", "Loss of the whole document.", "nats"),
        Column("n_tokens", "Tokens of the document.", "tokens"),
    ),
)
PUBLISHED = (
    SUMMARY, RUNS, TUNING, ABLATION, SCALES, CURVES, MATCHED, LEARNED, SCORES, DOCUMENTS,
)  # fmt: skip
RAW = (
    Table(
        "summary.json",
        "The arms and their trainings, with the settings that were chosen.",
        (
            Column("arms", "One entry an arm, with the columns of summary.csv."),
            Column("runs", "One entry a compared training, with the columns of runs.csv."),
            Column(
                "settings", "Baseline, seeds, grids of the tuning, and what it has chosen."
            ),
        ),
    ),
    Table("runs/*/metrics.json", "One compared training.", RUNS.columns),
    Table("leaderboard.md", "The summary as a table to read.", ()),
)  # fmt: skip

LAYERS = Table(
    "layers",
    "One row an arm and layer, means over seeds.",
    (
        ARM,
        LEARNED["layer"],
        *(
            Column(part, "Before and after.", heading=f"{letter} ({LOW:.0%} – {HIGH:.0%} after)")
            for part, letter in PARTS.items()
        ),
        N_SEEDS.but(cell=None),
    ),
    caption="Learned parameters by layer",
)
TASKS = Table(
    "tasks",
    "One row an arm and metric of a task, means over seeds.",
    (
        SCORES["task"],
        SCORES["metric"],
        ARM,
        Column("value", "Mean, least and most.", heading="mean (least – most)", format=".4f"),
        SCORES["stderr"],
        SCORES["chance"],
        SCORES["n_items"],
        Column(
            "smallest", "Of shares.", heading="smallest effect they can show", cell=smallest_cell
        ),
        N_SEEDS,
        Column("value_low", "Least."),
        Column("value_high", "Most."),
    ),
    caption="Tasks of lm-eval, means over seeds",
)
FAILURES = Table(
    "failures",
    "One row a training that failed.",
    (
        ARM,
        Column("part", "compared, tuning or control.", heading="part"),
        SEED,
        RATE,
        FREQUENCY,
        Column("init_std", "Deviation of the initial weights.", heading="init_std", format="g"),
        Column("learned", "What the sine learns.", heading="learned"),
        REASON.but(heading="reason"),
        KEY.but(heading="key"),
        STATUS,
        TRAIN_SECONDS,
    ),
    caption="Trainings that failed",
    shown=(
        "base", "part", "seed", "learning_rate", "sine_frequency", "init_std", "learned", "reason",
        "key",
    ),
)  # fmt: skip
SINGLE_SCALES = Table("single scales", "", (ARM, SCALES["scale"], SEED, VAL_LOSS))
GAIN = Table(
    "gain",
    "",
    tuple(Column(name, "") for name in ("arm", "other", "mean", "low", "high", "n", "verdict")),
)
BOARD = Table(
    "leaderboard.md",
    "The summary as a table to read.",
    (
        SUMMARY["place"],
        BASE,
        LOSS.but(heading=f"val loss, nats/token ({SURE} interval)"),
        VAL_PPL.but(heading="val ppl"),
        VAL_BITS.but(heading="bits/byte"),
        VAL_TOP1.but(format=".1%"),
        DIFFERENCE.but(heading="difference to {baseline} (interval)", unit=""),
        VERDICT.but(cell=lambda row: row["verdict"] or ("refused" if row["refused"] else UNKNOWN)),
        TRAIN_TOKENS_PER_S,
        PEAK_CUDA.but(heading="peak CUDA, GB", unit="", format=".2f"),
        N_PARAMETERS,
        N_SEEDS,
    ),
)
"""Columns of leaderboard.md and README.md."""


def tabulate(records: Sequence[ShootoutRecord], config: ShootoutConfig) -> Tables:
    """All tables of a shootout, also of one that is not finished.

    No arm has a place of which a tuning or a seed is still to come, or that no gate has examined.
    """
    trainings = Trainings.of(records, config)
    rows: Mapping[Table, Iterable[Mapping[str, Any]]] = {
        SUMMARY: summary_rows(trainings),
        RUNS: run_rows(trainings),
        TUNING: controls.tuning_rows(trainings),
        ABLATION: controls.ablation_rows(trainings),
        SCALES: controls.scale_rows(trainings),
        CURVES: controls.curve_rows(trainings),
        MATCHED: controls.matched_rows(trainings),
        LEARNED: controls.learned_rows(trainings),
        SCORES: controls.score_rows(trainings),
        DOCUMENTS: controls.document_rows(trainings),
        GATES: map(vars, trainings.gates),
        SINGLE_SCALES: controls.scale_seed_rows(trainings),
        GAIN: gain_control.gain_rows(trainings.compared),
        FAILURES: controls.training_rows(trainings),
    }
    tables = {table.file: table.frame(found) for table, found in rows.items()}
    every = tables[FAILURES.file]
    return tables | {
        "trainings": every,
        FAILURES.file: every[every["status"] != "ok"],
        LAYERS.file: LAYERS.frame(controls.layer_rows(tables[LEARNED.file])),
        TASKS.file: TASKS.frame(controls.task_rows(tables[SCORES.file])),
    }
