"""Tables and sentences of the tiny-corpus page, from a training's files and the manifest."""

import html
import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.evidence.page import RunInfo
from psannlm.evidence.rows import Number
from psannlm.evidence.text import (
    UNKNOWN,
    duration,
    facts_table,
    markdown,
    number,
    printable,
    sortable,
)
from psannlm.pages.tiny_corpus.records import Trained
from psannlm.pages.tiny_corpus.tables import beside_yardsticks
from psannlm.train.journal import bits_per_byte
from psannlm.train.pretrained import HIGH, LOW, PARTS


def answer(trained: Trained, device: str) -> str:
    """What the training says: target, bits per byte, yardsticks, test split, time; all computed."""
    metrics = trained.metrics
    target = metrics["target_perplexity"]
    verdict = "reached" if metrics["target_reached"] else "not reached"
    density = metrics["bytes_per_token"]
    lines = [
        f"- Perplexity on the validation split after {_epochs(metrics['epochs'])}: "
        f"**{metrics['perplexity']:.2f}** ({metrics['base']}); the target, at most {target:g}, is "
        f"**{verdict}**.",
        f"- That is **{metrics['bits_per_byte']:.3f} bits per byte**, at {density:.2f} bytes a "
        f"token. A perplexity of {target:g} is "
        f"{bits_per_byte(math.log(target), density):.3f} bits per byte under this tokenizer, and "
        "another number under another.",
        f"- {_against_yardsticks(trained)}",
        f"- Test split, read once at the end: {metrics['test_bits_per_byte']:.3f} bits per byte, "
        f"perplexity {metrics['test_perplexity']:.2f}; next token right in {metrics['top1']:.1%} "
        "of the validation split.",
        f"- Trained in {duration(metrics['train_seconds'])} on {device}: "
        f"{metrics['n_parameters']:,} parameters, {metrics['train_tokens']:,} tokens, "
        f"{metrics['tokens_per_s']:,.0f} tokens/s.",
    ]
    if trained.has_best_before_end:
        lines.append(
            f"- The lowest validation loss, {metrics['best_val_loss']:.4f} nats a token, was at "
            f"step {metrics['best_step']:,} of {metrics['n_steps']:,}; what stands above is the "
            "end of the training, not its best moment."
        )
    return "\n".join(lines)


def _epochs(epochs: float) -> str:
    return f"{epochs:g} epoch" + ("" if epochs == 1 else "s")


def _against_yardsticks(trained: Trained) -> str:
    """Which yardsticks need more bits than the network, and which do not."""
    bits = trained.metrics["bits_per_byte"]
    rows = trained.yardsticks.sort_values("bits_per_byte", ascending=False, kind="stable")
    pairs = list(zip(rows["name"], rows["bits_per_byte"], strict=True))
    beaten = [f"{name} ({theirs:.3f})" for name, theirs in pairs if theirs > bits]
    ahead = [f"{name} ({theirs:.3f})" for name, theirs in pairs if theirs <= bits]
    if not ahead:
        return f"Fewer bits per byte than every yardstick: {', '.join(beaten)}."
    if not beaten:
        return f"**No** fewer bits per byte than any yardstick: {', '.join(ahead)}."
    return f"Fewer bits per byte than {', '.join(beaten)}; **not** fewer than {', '.join(ahead)}."


def epoch_rows(trained: Trained) -> pd.DataFrame:
    """One row an epoch as people read it."""
    rows = trained.rows("epoch")
    return pd.DataFrame(
        {
            "epoch": [f"{value:g}" for value in rows["epoch"]],
            "step": [f"{value:,}" for value in rows["step"]],
            "tokens": [f"{value:,}" for value in rows["tokens"]],
            "training loss, mean": [f"{value:.4f}" for value in rows["train_loss"]],
            "validation loss": [f"{value:.4f}" for value in rows["val_loss"]],
            "bits per byte": [f"{value:.3f}" for value in rows["bits_per_byte"]],
            "perplexity": [f"{value:.2f}" for value in rows["perplexity"]],
            "top-1": [f"{value:.1%}" for value in rows["top1"]],
        }
    )


def yardstick_rows(trained: Trained) -> pd.DataFrame:
    """The network among its yardsticks, best first."""
    table = beside_yardsticks(trained)
    bits = trained.metrics["bits_per_byte"]
    return pd.DataFrame(
        {
            "model": [
                f"{name}, the network" if mine else name
                for name, mine in zip(table["name"], table["is_network"], strict=True)
            ],
            "read before, bytes": [f"{n_bytes:,}" for n_bytes in table["training_bytes"]],
            "bits per byte": [f"{value:.3f}" for value in table["bits_per_byte"]],
            "over the network's": [f"{value / bits:.2f} ×" for value in table["bits_per_byte"]],
            "time, s": [f"{value:,.1f}" for value in table["seconds"]],
        }
    )


def facts(trained: Trained) -> dict[str, str]:
    """What the training was made of and what it cost, by name."""
    metrics = trained.metrics
    ranks = metrics["n_ranks"]
    memory = f"{metrics['peak_rss_mib']:,.0f} MiB resident"
    if metrics["peak_allocated_mib"] is not None:
        memory += f", {metrics['peak_allocated_mib']:,.0f} MiB allocated on the GPU"
    return {
        "text": f"{metrics['corpus_path']} (sha256 {metrics['corpus_sha256'][:12]}…)",
        "training split": f"{metrics['train_split_bytes']:,} bytes, "
        f"{metrics['train_split_tokens']:,} tokens",
        "validation split": f"{metrics['val_bytes']:,} bytes, {metrics['val_tokens']:,} tokens",
        "test split": f"{metrics['test_bytes']:,} bytes, {metrics['test_tokens']:,} tokens",
        "tokenizer": f"{metrics['tokenizer']}, {metrics['vocab_size']:,} ids, "
        f"{metrics['bytes_per_token']:.3f} bytes a token on the validation split",
        "network": f"{metrics['base']}, {metrics['n_parameters']:,} parameters",
        "training": f"{metrics['n_steps']:,} steps of {metrics['batch_tokens']:,} tokens, "
        f"{metrics['train_tokens']:,} in all, {_epochs(metrics['epochs'])}",
        "ranks": "1" if ranks == 1 else f"{ranks}, by {metrics['parallel']}",
        "time": f"{duration(metrics['train_seconds'])}, evaluations included",
        "speed": f"{metrics['tokens_per_s']:,.0f} tokens/s, of the median steady step",
        "MFU": f"{number(metrics['mfu'], '.1%')} of the measured ceiling",
        "waiting": f"{metrics['wait_share']:.2%} of the steps' time, for data",
        "peak memory": memory,
    }


def sine_rows(trained: Trained) -> pd.DataFrame:
    """What each layer's features learned: median and the span of most, before and after."""
    table = []
    for layer, rows in trained.sine.groupby("layer", sort=False):
        row = {"layer": str(layer), "features": f"{len(rows):,}"}
        for part, letter in PARTS.items():
            for when in ("before", "after"):
                values = rows[f"{part}_{when}"]
                low, middle, high = values.quantile([LOW, 0.5, HIGH])
                spread = f" ({low:.3f} – {high:.3f})" if low < high else ""
                row[f"{letter} {when}"] = UNKNOWN if pd.isna(middle) else f"{middle:.3f}{spread}"
        table.append(row)
    return pd.DataFrame(table)


def learned(trained: Trained) -> str:
    """HTML of the table of learned sine parameters, or a sentence that there are none."""
    if trained.sine.empty:
        return f"<p>{html.escape(trained.metrics['base'])} has no damped sine to learn.</p>"
    caption = f"Damped sine by layer: median ({LOW:.0%} – {HIGH:.0%} of its features)"
    return sortable(sine_rows(trained), caption)


def samples(trained: Trained) -> str:
    """HTML of what the network wrote; whatever it wrote, it stays text."""
    quotes = []
    for sample in trained.samples:
        prompt, text = (html.escape(printable(sample[name])) for name in ("prompt", "text"))
        quotes.append(
            f'<blockquote class="sample" dir="auto"><p><b>{prompt}</b>{text}</p>'
            f"<footer>temperature {sample['temperature']:g}, top-p {sample['top_p']:g}</footer>"
            "</blockquote>"
        )
    return "".join(quotes) or "<p>No prompt was given.</p>"


def reading(trained: Trained, config: TrainingConfig) -> str:
    """How to read the numbers, as far as that depends on the run."""
    metrics = trained.metrics
    whole = "the whole training split"
    if config.train_megabytes:
        whole = f"the first {config.train_megabytes:g} MB of the training split, no more"
    lines = [
        f"- **Text.** Trained on {whole}; evaluated on {metrics['val_tokens']:,} tokens, all of "
        "them, at every evaluation. A document belongs to one split only.",
        "- **Perplexity** is per token: with shorter tokens it falls while the network knows no "
        "more. *Bits per byte* do not depend on the tokenizer; they are what to compare.",
        "- **Yardsticks** encode the same validation text. A compressor by itself starts from "
        "nothing; `xz after training text` and the n-gram model have seen what the network was "
        "trained on, and are the fair ones.",
        "- **One training**, from one seed: there is no interval, and the difference between two "
        "such runs is no verdict on their bases.",
    ]
    return "\n".join(lines)


def readme(trained: Trained, run: RunInfo[TrainingConfig]) -> str:
    """README.md of a run folder: the answer, and an epoch a row."""
    shown = epoch_rows(trained)
    lines = [
        f"# Tiny corpus, {run.name}",
        "",
        f"Preset {run.config.preset}, {trained.metrics['base']}, on {run.device}.",
        "",
        answer(trained, run.device),
        "",
        markdown(list(shown.columns), shown.itertuples(index=False)),
        "",
        f"Made by `{run.manifest['command']}`.",
        "",
    ]
    return "\n".join(lines)


SECTIONS: Mapping[str, Callable[[Trained], str]] = {
    "epochs": lambda trained: sortable(epoch_rows(trained), "Every epoch"),
    "yardsticks": lambda trained: sortable(
        yardstick_rows(trained), "The network among its yardsticks, on the validation split"
    ),
    "facts": lambda trained: facts_table(facts(trained)),
    "learned": learned,
    "samples": samples,
}
"""Pieces of the page beside its answer, by the name that the notebook uses."""


def summary(numbers: Sequence[Number]) -> str:
    """Perplexity against its target, and bits per byte."""
    by_name = {number.column.name: number for number in numbers}
    reached = by_name["perplexity"]
    return (
        f"{reached.base} ends at a validation perplexity of {reached.plain}, "
        f"{by_name['bits_per_byte'].shown}; the target of {reached.target} is "
        f"**{reached.verdict}** (one training, so no interval)."
    )
