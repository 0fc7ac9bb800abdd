"""Tables of the shootout page, each as people read it."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from psannlm.evidence.text import UNKNOWN, duration, flops, interval, number
from psannlm.pages.shootout.comparison import LEVEL
from psannlm.pages.shootout.proportions import smallest_effect
from psannlm.pages.shootout.tables import Shootout
from psannlm.train.learned import HIGH, LOW, PARTS

BUDGETS = {"tokens": "tokens", "flops": "FLOPs", "seconds": "seconds"}
"""What arms can be given equally much of, as people call it."""

SURE = f"{1 - LEVEL:.0%}"
"""How often an interval holds what it is for."""

AROUND = f"({SURE} interval)"
LEARNED, FROZEN = "✓ learned", "frozen"

SHARES = ("acc", "exact_match")
"""How the metrics of lm-eval begin that are shares of right answers."""


def leaderboard(shootout: Shootout, asked: Mapping[str, Any]) -> pd.DataFrame:
    """Every arm by its place: losses, differences to the baseline, what they cost; refused last.

    Args:
        shootout: Of the run.
        asked: Parameters of the run.
    """
    table = shootout.summary
    refused = [bool(text(why)) for why in table["refused"]]
    table = pd.concat([table[[not no for no in refused]], table[refused]])
    to = f"difference to {asked['baseline']}"
    columns = {
        "place": _numbers(table, "place", ".0f"),
        "arm": [named(row) for row in table.to_dict("records")],
        "verdict": [verdict(row) for row in table.to_dict("records")],
        f"validation loss {AROUND}": _intervals(table, "val_loss"),
        f"{to}, over seeds": _intervals(table, "difference", sign="+"),
        f"{to}, over documents": [
            interval(*row, "+.4f")
            for row in zip(
                table["difference"], table["documents_low"], table["documents_high"], strict=True
            )
        ],
        "p (Holm)": _numbers(table, "p_holm", ".3g"),
        "perplexity": _numbers(table, "val_ppl", ",.2f"),
        "bits per byte": _numbers(table, "val_bits_per_byte", ".4f"),
        "top-1": _numbers(table, "val_top1_acc", ".2%"),
        "test loss": _numbers(table, "test_loss", ".4f"),
        f"test: {to}": _intervals(table, "test_difference", sign="+"),
        "tokens/s": _numbers(table, "train_tokens_per_s", ",.0f"),
        "time": _durations(table, "train_seconds"),
        "peak memory, GB": _numbers(table, "peak_cuda_mem_gb", ".3f"),
        "parameters": _numbers(table, "n_parameters", ",.0f"),
        "d_mlp": _numbers(table, "d_mlp", ",.0f"),
        "learning rate": _numbers(table, "learning_rate", "g"),
        "f": _numbers(table, "sine_frequency", "g"),
        "edge of its grid": ["yes" if is_true(edge) else "" for edge in table["grid_edge"]],
        "seeds": _seeds(table),
    }
    return pd.DataFrame(columns)


def named(row: Mapping[Any, Any]) -> str:
    """An arm's name, and whose network it is too where two arms are one."""
    twin = text(row["same_as"])
    return f"{row['base']} (same network as {twin})" if twin else str(row["base"])


def verdict(row: Mapping[Any, Any]) -> str:
    """The verdict on an arm, or why it has none."""
    why = text(row["refused"])
    return f"refused: {why}" if why else text(row["verdict"]) or UNKNOWN


def is_true(value: Any) -> bool:
    """Whether a cell holds a yes; an empty one does not."""
    return not pd.isna(value) and bool(value)


def text(value: Any) -> str:
    """The text of a cell; nothing where there is none."""
    return value if isinstance(value, str) else ""


def tuning(shootout: Shootout) -> pd.DataFrame:
    """Every setting that every arm was tried at; the chosen one of each arm is marked."""
    table = shootout.tuning
    marks = zip(table["chosen"], table["grid_edge"], strict=True)
    return pd.DataFrame(
        {
            "arm": list(table["base"]),
            "learning rate": _numbers(table, "learning_rate", "g"),
            "f": _numbers(table, "sine_frequency", "g"),
            "seed": _numbers(table, "seed", ".0f"),
            "validation loss": _numbers(table, "val_loss", ".4f"),
            "chosen": [
                ("chosen, edge of its grid" if edge else "chosen") if chosen else ""
                for chosen, edge in marks
            ],
            "result": _results(table),
        }
    )


def ablation(shootout: Shootout) -> pd.DataFrame:
    """One row a subset of the damped sine's learned parameters, against all of them learned."""
    table = shootout.ablation
    switches = {
        f"{part} {letter}": [LEARNED if part in subset else FROZEN for subset in table["learnable"]]
        for part, letter in PARTS.items()
    }
    return pd.DataFrame(
        {
            "arm": list(table["base"]),
            **switches,
            "seeds": _numbers(table, "n_seeds", ".0f"),
            f"validation loss {AROUND}": _intervals(table, "val_loss"),
            "difference to all learned": _intervals(table, "difference", sign="+"),
            "p (Holm)": _numbers(table, "p_holm", ".3g"),
            "verdict": [text(said) or UNKNOWN for said in table["verdict"]],
        }
    )


def scales(shootout: Shootout) -> pd.DataFrame:
    """One row an arm and initial scale."""
    table = shootout.scales
    return pd.DataFrame(
        {
            "arm": list(table["base"]),
            "initial scale": _numbers(table, "scale", "g"),
            "learning rate": _numbers(table, "learning_rate", "g"),
            f"validation loss {AROUND}": _intervals(table, "val_loss"),
            "seeds": _seeds(table),
        }
    )


def matched(shootout: Shootout, asked: Mapping[str, Any]) -> pd.DataFrame:
    """Loss of each arm when all have spent equally many tokens, FLOPs or seconds."""
    table = shootout.matched
    return pd.DataFrame(
        {
            "equal": [BUDGETS[budget] for budget in table["budget"]],
            "amount": [amount(*row) for row in zip(table["budget"], table["amount"], strict=True)],
            "arm": list(table["base"]),
            f"validation loss {AROUND}": _intervals(table, "val_loss"),
            f"difference to {asked['baseline']}": _intervals(table, "difference", sign="+"),
            "seeds": _numbers(table, "n_seeds", ".0f"),
        }
    )


def amount(budget: str, size: float) -> str:
    """A budget as people say it: 3,276,800 tokens, 1.2 PFLOP, 4 min 3 s."""
    if budget == "seconds":
        return duration(size)
    return f"{size:,.0f} tokens" if budget == "tokens" else flops(size)


def learned(shootout: Shootout) -> pd.DataFrame:
    """One row an arm and layer: means of its learned parameters, before and after, over seeds."""
    rows = []
    for (base, layer), group in shootout.learned.groupby(["base", "layer"], sort=False):
        row = {"arm": base, "layer": layer, "seeds": f"{group['seed'].nunique()}"}
        means = group.groupby("part")[["before", "after", "low", "high"]].mean()
        for part, letter in PARTS.items():
            row[f"{letter} ({LOW:.0%} – {HIGH:.0%} after)"] = UNKNOWN
            if part in means.index:
                before, after, low, high = means.loc[part]
                row[f"{letter} ({LOW:.0%} – {HIGH:.0%} after)"] = (
                    f"{before:.3f} → {interval(after, low, high, '.3f')}"
                )
        rows.append(row)
    return pd.DataFrame(rows)


def scores(shootout: Shootout) -> pd.DataFrame:
    """One row an arm and task of lm-eval, means over seeds; of none, no row."""
    rows = []
    keys = ["task", "metric", "base"]
    for (task, metric, base), group in shootout.scores.groupby(keys, sort=False):
        n_items, chance = int(group["n_items"].iloc[0]), group["chance"].iloc[0]
        value = float(group["value"].mean())
        rows.append(
            {
                "task": task,
                "metric": metric,
                "arm": base,
                "mean over seeds": f"{value:.4f}",
                "least – most": f"{group['value'].min():.4f} – {group['value'].max():.4f}",
                "standard error of one": number(group["stderr"].mean(), ".4f"),
                "chance": number(chance, ".4f"),
                "items": f"{n_items:,}",
                "smallest effect they can show": _smallest(n_items, chance, value, str(metric)),
                "seeds": f"{len(group)}",
            }
        )
    return pd.DataFrame(rows)


def _smallest(n_items: int, chance: Any, value: float, metric: str) -> str:
    """The least difference of shares above chance, or above the score where chance gets nowhere."""
    if not metric.startswith(SHARES) or (pd.isna(chance) and value >= 1):
        return UNKNOWN
    return f"{smallest_effect(n_items, value if pd.isna(chance) else float(chance)):.4f}"


def failures(shootout: Shootout, asked: Mapping[str, Any]) -> pd.DataFrame:
    """Every training that failed, and why."""
    failed = [record for record in shootout.records if record.status != "ok"]
    return pd.DataFrame(
        {
            "arm": [record.arm for record in failed],
            "part": [
                "compared" if r.final else "tuning" if r.seed == asked["tuning_seed"] else "control"
                for r in failed
            ],
            "seed": [f"{record.seed}" for record in failed],
            "learning rate": [f"{record.setting.learning_rate:g}" for record in failed],
            "f": [f"{record.setting.sine_frequency:g}" for record in failed],
            "init_std": [f"{record.setting.init_std:g}" for record in failed],
            "learned": [", ".join(record.setting.learnable) or "none" for record in failed],
            "reason": [record.reason for record in failed],
            "key": [record.key for record in failed],
        }
    )


def runs(shootout: Shootout) -> pd.DataFrame:
    """Every compared training as people read it, failures too."""
    table = shootout.runs
    return pd.DataFrame(
        {
            "arm": list(table["base"]),
            "seed": _numbers(table, "seed", ".0f"),
            "validation loss": _numbers(table, "val_loss", ".4f"),
            "perplexity": _numbers(table, "val_ppl", ",.2f"),
            "bits per byte": _numbers(table, "val_bits_per_byte", ".4f"),
            "top-1": _numbers(table, "val_top1_acc", ".2%"),
            "test loss": _numbers(table, "test_loss", ".4f"),
            "training loss": _numbers(table, "train_loss", ".4f"),
            "tokens": _numbers(table, "train_tokens", ",.0f"),
            "GFLOP": [number(size / 1e9, ",.1f") for size in table["train_flops"]],
            "tokens/s": _numbers(table, "train_tokens_per_s", ",.0f"),
            "time": _durations(table, "train_seconds"),
            "to the first step, s": _numbers(table, "overhead_seconds", ".1f"),
            "peak memory, GB": _numbers(table, "peak_cuda_mem_gb", ".3f"),
            "peak RSS, MiB": _numbers(table, "peak_rss_mib", ",.0f"),
            "leak": _numbers(table, "leak", ".1e"),
            "result": _results(table),
        }
    )


def _numbers(table: pd.DataFrame, column: str, pattern: str) -> list[str]:
    return [number(value, pattern) for value in table[column]]


def _intervals(table: pd.DataFrame, column: str, *, sign: str = "") -> list[str]:
    rows = zip(table[column], table[f"{column}_low"], table[f"{column}_high"], strict=True)
    return [interval(*row, f"{sign}.4f") for row in rows]


def _durations(table: pd.DataFrame, column: str) -> list[str]:
    return [UNKNOWN if pd.isna(seconds) else duration(seconds) for seconds in table[column]]


def _seeds(table: pd.DataFrame) -> list[str]:
    return [
        f"{n:.0f}" + (f" ({failed:.0f} failed)" if failed else "")
        for n, failed in zip(table["n_seeds"], table["n_failed"], strict=True)
    ]


def _results(table: pd.DataFrame) -> list[str]:
    pairs = zip(table["status"], table["reason"], strict=True)
    return [status if status == "ok" else f"{status}: {reason}" for status, reason in pairs]
