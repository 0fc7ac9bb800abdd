"""The page of published figures: each beside ours, with what arithmetic says of it."""

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from psannlm.evidence.runs import Evidence, best_run
from psannlm.evidence.text import UNKNOWN, sortable
from psannlm.publish import plausibility
from psannlm.publish.beside import NO_GPU, PEER, Ours, fair, same_protocol
from psannlm.publish.plausibility import IMPOSSIBLE, NOTHING, POSSIBLE, Judgement, judge
from psannlm.publish.published import Conditions, Figure, Published, Source, load

LIMITS = """## What this does not show

- *Possible* is not confirmed: arithmetic can refute a figure, it cannot vouch for it.
- Parameters, bytes and FLOPs are those of our network of the same base and shape, from its \
construction. Another implementation may have a few more or fewer; no verdict hangs on them.
- The bundle does not state the width of the MLP: that the reserved memory is impossible rests on \
the usual one, that the allocated memory is rests on attention alone.
- What was really measured is read from the public repository at the commits named, not run again \
on its machine.
- Our numbers come from the device beside them. One of another device repeats the protocol, not \
the figure.
"""


def page(runs: Sequence[Evidence]) -> str:
    """The page, in Markdown.

    Args:
        runs: All sound runs; the best of each page stands beside the figures.

    Raises:
        ConfigError: The file of figures is malformed or was altered.
    """
    published = load()
    pages = {beside.page for figure in published.figures for beside in figure.beside}
    best = {name: best_run(name, list(runs)) for name in sorted(pages | {PEER})}
    judged = {figure.id: judge(figure) for figure in published.figures}
    ours = {f.id: (same_protocol(f, best[PEER]), fair(f, best)) for f in published.figures}
    parts = [
        "# Published figures",
        "",
        f"**What is asked.** The bundle of {published.bundle} states what PSANN-LM reaches on "
        "GPUs. What was measured for each of its figures, can it be right as it is stated, and "
        "what do we find, under the same protocol and under a fair one?",
        "",
        answer(published, judged, ours),
        "",
        sortable(_table(published, judged), f"Figures of the bundle of {published.bundle}"),
        "",
        sortable(_beside_table(published, ours), "Ours beside them, as far as we have measured"),
        "",
        *_two_bases(published),
        "## Figure by figure",
        "",
        f"Files and commits are those of the public repository `{published.repository}`.",
        "",
    ]
    for figure in published.figures:
        parts += _section(figure, judged[figure.id], *ours[figure.id])
    return "\n".join([*parts, LIMITS])


def answer(
    published: Published,
    judged: Mapping[str, Judgement],
    ours: Mapping[str, tuple[Sequence[Ours], Sequence[Ours]]],
) -> str:
    """How many figures stand as stated, and which do not, in Markdown."""
    counted = {
        verdict: [f for f in published.figures if judged[f.id].verdict == verdict]
        for verdict in (POSSIBLE, IMPOSSIBLE, NOTHING)
    }
    on_gpu = sum(any(one.on_gpu for both in ours[f.id] for one in both) for f in published.figures)
    n = len(published.figures)
    beside = f"{on_gpu} of them have" if on_gpu else "None has"
    lines = [
        f"**What was found.** Of {n} published figures {len(counted[POSSIBLE])} stand as stated, "
        f"as far as arithmetic can tell; {len(counted[IMPOSSIBLE])} are impossible as stated, and "
        f"{len(counted[NOTHING])} say nothing about what they are named for. {beside} GPU evidence "
        "of ours beside it.",
        "",
    ]
    for verdict, word in ((IMPOSSIBLE, "Impossible as stated"), (NOTHING, "Says nothing")):
        links = (f"[{title(f)}](#{_label(f)}), {f.printed}" for f in counted[verdict])
        lines.append(f"- {word}: {'; '.join(links) or 'none'}.")
    forward = [f for f in published.of("speed") if f.used.work == "forward"]
    lines.append(
        f"- {len(forward)} of {len(published.of('speed'))} figures of throughput are of a forward "
        "pass alone, in float32, of one network [under two names](#published-two-bases)."
    )
    return "\n".join(lines)


def _table(published: Published, judged: Mapping[str, Judgement]) -> pd.DataFrame:
    rows = [
        {
            "figure": title(figure),
            "published": figure.printed,
            "arithmetic says": judged[figure.id].verdict,
        }
        for figure in published.figures
    ]
    return pd.DataFrame(rows)


def _beside_table(
    published: Published, ours: Mapping[str, tuple[Sequence[Ours], Sequence[Ours]]]
) -> pd.DataFrame:
    """A row a figure that something can stand beside; of several numbers the first."""
    rows = []
    for figure in published.figures:
        same, other = ours[figure.id]
        if other:
            one = other[0]
            rows.append(
                {
                    "figure": title(figure),
                    "published": figure.printed,
                    "ours, same protocol": same[0].short,
                    "ours, fair protocol": one.text,
                    "which is": one.about,
                    "measured": one.where or UNKNOWN,
                    "GPU evidence": "yes" if one.on_gpu else NO_GPU,
                }
            )
    return pd.DataFrame(rows)


def title(figure: Figure) -> str:
    """What a figure is of, in words."""
    tokens = figure.stated.batch_tokens
    return figure.what.format(batch_tokens=f"{tokens:,}" if tokens else "")


def _two_bases(published: Published) -> list[str]:
    lines = [
        "(published-two-bases)=",
        "## respsann against waveresnet",
        "",
        "The bundle puts two bases side by side. What their difference can say:",
        "",
    ]
    lines += [f"- *{one.verdict}*: {one.because}" for one in plausibility.gaps(published)]
    return [
        *lines,
        "",
        "Networks with the same parameters in the same shapes, doing the same products, are one "
        "network: what differs between their speeds is the noise of the measurement.",
        "",
    ]


def _section(
    figure: Figure, judgement: Judgement, same: Sequence[Ours], other: Sequence[Ours]
) -> Iterator[str]:
    yield from (f"({_label(figure)})=", f"### {title(figure)}", "")
    yield f"- **Published**: {figure.printed}, stated for {conditions(figure.stated)}."
    device = {} if figure.used.device != figure.stated.device else {"device": ""}
    used = conditions(figure.used.model_copy(update=device))
    under = f" It ran with {used}." if used else ""
    yield f"- **What was measured**: {_filled(figure)}{under}"
    yield f"- **Source**: {'; '.join(map(_source, figure.source))}."
    yield f"- **Arithmetic says**: *{judgement.verdict}*. {judgement.because}"
    for name, ours in (("same", same), ("a fair", other)):
        lines = [one.line for one in ours] or ["nothing to set beside it."]
        yield f"- **Ours, {name} protocol**: " + "; ".join(lines).rstrip(".") + "."
    yield ""


def conditions(known: Conditions) -> str:
    """Conditions as people read them; empty if none is known."""
    said = []
    for name, value in known.known().items():
        plain = name.replace("_", " ")
        match name:
            case "device" | "base" | "work":
                said.append(str(value))
            case "grad_checkpoint":
                said.append(f"gradient checkpointing {'on' if value else 'off'}")
            case "timestamp":
                said.append(f"run {value}")
            case "d_model" | "n_layers" | "n_heads" | "d_mlp":
                said.append(f"{name} {value:,}")
            case _:
                said.append(f"{plain} {value:,}" if isinstance(value, int) else f"{plain} {value}")
    return ", ".join(said)


def _filled(figure: Figure) -> str:
    facts = {k: v if isinstance(v, str) else f"{v:g}" for k, v in figure.facts.items()}
    return figure.measured.strip().format(**facts)


def _source(source: Source) -> str:
    word = "line" if source.lines.isdigit() else "lines"
    lines = f", {word} {source.lines}" if source.lines else ""
    return f"`{source.file}`{lines} at `{source.commit}`"


def _label(figure: Figure) -> str:
    return f"published-{figure.id}"
