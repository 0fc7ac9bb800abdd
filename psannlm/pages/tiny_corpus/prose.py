"""Tables and sentences of the tiny-corpus page, from a training's files and the manifest."""

import html
import math
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from psannlm.config.training import TrainingConfig
from psannlm.evidence.page import RunInfo
from psannlm.evidence.table import Number
from psannlm.evidence.text import (
    UNKNOWN,
    duration,
    facts_table,
    literal,
    number,
    printable,
    sortable,
)
from psannlm.pages.tiny_corpus.tables import LOSS, YARDSTICKS, Trained, beside_yardsticks
from psannlm.train.compilation import Compilation
from psannlm.train.pretrained import HIGH, LOW, PARTS
from psannlm.train.recorder import bits_per_byte

ANSWER = (
    "- Perplexity on the validation split after {said_epochs}: **{perplexity:.2f}** ({base}); the "
    "target, at most {target_perplexity:g}, is **{verdict}**.\n"
    "- That is **{bits_per_byte:.3f} bits per byte**, at {bytes_per_token:.2f} bytes a token. A "
    "perplexity of {target_perplexity:g} is {target_bits:.3f} bits per byte under this tokenizer, "
    "and another number under another.\n"
    "- {yardsticks}\n"
    "- Test split, read once at the end: {test_bits_per_byte:.3f} bits per byte, perplexity "
    "{test_perplexity:.2f}; next token right in {top1:.1%} of the validation split.\n"
    "- Trained in {time} on {device}: {n_parameters:,} parameters, {train_tokens:,} tokens, "
    "{tokens_per_s:,.0f} tokens/s."
)
RISEN = (
    "\n- The lowest validation loss, {best_val_loss:.4f} nats a token, was at step {best_step:,} "
    "of {n_steps:,}; what stands above is the end of the training, not its best moment."
)
READING = (
    "- **Text.** Trained on {whole}; evaluated on {val_tokens:,} tokens, all of them, at every "
    "evaluation. A document belongs to one split only.\n"
    "- **Perplexity** is per token: with shorter tokens it falls while the network knows no more. "
    "*Bits per byte* do not depend on the tokenizer; they are what to compare.\n"
    "- **Yardsticks** encode the same validation text. A compressor by itself starts from nothing; "
    "`xz after training text` and the n-gram model have seen what the network was trained on, and "
    "are the fair ones.\n"
    "- **One training**, from one seed: there is no interval, and the difference between two such "
    "runs is no verdict on their bases."
)
FACTS = {
    "text": "{corpus_path} (sha256 {corpus_sha256:.12}…)",
    "training split": "{train_split_bytes:,} bytes, {train_split_tokens:,} tokens",
    "validation split": "{val_bytes:,} bytes, {val_tokens:,} tokens",
    "test split": "{test_bytes:,} bytes, {test_tokens:,} tokens",
    "tokenizer": "{tokenizer}, {vocab_size:,} ids, {bytes_per_token:.3f} bytes a token on the "
    "validation split",
    "network": "{base}, {n_parameters:,} parameters",
    "training": "{n_steps:,} steps of {batch_tokens:,} tokens, {train_tokens:,} in all, "
    "{said_epochs}",
    "ranks": "{ranks}",
    "time": "{time}, evaluations included",
    "speed": "{tokens_per_s:,.0f} tokens/s, of the median steady step",
    "MFU": "{mfu_share} of the measured ceiling",
    "waiting": "{wait_share:.2%} of the steps' time, for data",
    "peak memory": "{peak_rss_mib:,.0f} MiB resident{allocated}",
}
"""What the training was made of and what it cost, by name."""


def _filled(pattern: str, trained: Trained, **values: str | float) -> str:
    """The pattern with the training's metrics, and with what else is said of them."""
    metrics = trained.metrics
    epochs = f"{metrics['epochs']:g} epoch" + ("" if metrics["epochs"] == 1 else "s")
    time = duration(metrics["train_seconds"])
    return pattern.format(**metrics, said_epochs=epochs, time=time, **values)


def answer(trained: Trained, device: str) -> str:
    """What the training says: target, bits per byte, yardsticks, test split, time; all computed."""
    metrics = trained.metrics
    has_risen = metrics["best_step"] < metrics["n_steps"]
    target = math.log(metrics["target_perplexity"])
    return _filled(
        ANSWER + (RISEN if has_risen else ""),
        trained,
        verdict="reached" if metrics["target_reached"] else "not reached",
        target_bits=bits_per_byte(target, metrics["bytes_per_token"]),
        yardsticks=_against_yardsticks(trained),
        device=device,
    )


def _against_yardsticks(trained: Trained) -> str:
    """Which yardsticks need more bits than the network, and which do not."""
    bits = trained.metrics["bits_per_byte"]
    rows = trained.yardsticks.sort_values("bits_per_byte", ascending=False, kind="stable")
    pairs = list(zip(rows["name"], rows["bits_per_byte"], strict=True))
    beaten = ", ".join(f"{name} ({theirs:.3f})" for name, theirs in pairs if theirs > bits)
    ahead = ", ".join(f"{name} ({theirs:.3f})" for name, theirs in pairs if theirs <= bits)
    if not ahead:
        return f"Fewer bits per byte than every yardstick: {beaten}."
    if not beaten:
        return f"**No** fewer bits per byte than any yardstick: {ahead}."
    return f"Fewer bits per byte than {beaten}; **not** fewer than {ahead}."


def yardstick_rows(trained: Trained) -> pd.DataFrame:
    """The network among its yardsticks, best first."""
    table = beside_yardsticks(trained)
    view = YARDSTICKS.view(table)
    view["model"] += table["is_network"].map({True: ", the network", False: ""})
    shares = table["bits_per_byte"] / trained.metrics["bits_per_byte"]
    view.insert(3, "over the network's", shares.map("{:.2f} ×".format))
    return view


def facts(trained: Trained) -> str:
    """HTML of the table of facts."""
    metrics = trained.metrics
    ranks, allocated = metrics["n_ranks"], metrics["peak_allocated_mib"]
    found = {
        "ranks": "1" if ranks == 1 else f"{ranks}, by {metrics['parallel']}",
        "mfu_share": number(metrics["mfu"], ".1%"),
        "allocated": "" if allocated is None else f", {allocated:,.0f} MiB allocated on the GPU",
    }
    return facts_table({name: _filled(said, trained, **found) for name, said in FACTS.items()})


def sine_rows(trained: Trained) -> pd.DataFrame:
    """What each layer's features learned: median and the span of most, before and after."""
    table = []
    for layer, rows in trained.sine.groupby("layer", sort=False):
        row = {"layer": str(layer), "features": f"{len(rows):,}"}
        for part, letter in PARTS.items():
            for when in ("before", "after"):
                low, middle, high = rows[f"{part}_{when}"].quantile([LOW, 0.5, HIGH])
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
    whole = "the whole training split"
    if config.train_megabytes:
        whole = f"the first {config.train_megabytes:g} MB of the training split, no more"
    said = _filled(READING, trained, whole=whole)
    if "eager" in trained.metrics:  # else it was not to be compiled, or it is not on record
        made = Compilation(*(trained.metrics[name] for name in Compilation._fields))
        said += f"\n- **Compilation.** The steps ran {literal(made.words)}."
    return said


def readme(trained: Trained, run: RunInfo[TrainingConfig]) -> str:
    """README.md of a run folder: the answer, and an epoch a row."""
    return (
        f"# Tiny corpus, {run.name}\n\n"
        f"Preset {run.config.preset}, {trained.metrics['base']}, on {run.device}.\n\n"
        f"{answer(trained, run.device)}\n\n"
        f"{LOSS.markdown(trained.rows('epoch'))}\n\n"
        f"{run.origin}"
    )


SECTIONS: Mapping[str, Callable[[Trained], str]] = {
    "epochs": lambda trained: LOSS.html(trained.rows("epoch")),
    "yardsticks": lambda trained: sortable(
        yardstick_rows(trained), "The network among its yardsticks, on the validation split"
    ),
    "facts": facts,
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
