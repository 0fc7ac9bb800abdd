"""The answer in a few lines: one sentence a page, by the verdicts of its headline numbers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from psannlm.evidence.runs import Evidence
from psannlm.pages.peer.headlines import WORK
from psannlm.pages.shootout import gain_control as shootout_gain
from psannlm.pages.shootout.comparison import Verdict
from psannlm.pages.shootout.headlines import GAIN
from psannlm.pages.throughput.prose import MODES
from psannlm.publish.headline import Headline
from psannlm.publish.phrases import date, machine, measured, page

NO_RUN = "No complete run yet: `make report` makes the first."
ORDER = ("faster", "better", "less", "fewer", "not separated", "equal", "slower", "worse", "more")
SETTINGS = {"best": "each with its fastest choices", "defaults": "each by its defaults"}
MOST_OTHERS = 3
"""Other runs of a page whose results are told, the newest first."""


def answers(found: Sequence[Headline], others: Sequence[Sequence[Headline]] = ()) -> str:
    """What was found, as Markdown: a line a page, and one on machine and date.

    Args:
        found: The headlines of the best runs.
        others: Those of each other run that asks the same questions, the newest first.
    """
    pages: dict[str, list[Headline]] = {}
    for headline in found:
        pages.setdefault(headline.row.page, []).append(headline)
    machines = {machine(headline.row) for headline in found}
    lines = []
    for name, (question, say) in LINES.items():
        here = pages.get(name, [])
        if not here and name == "peer":
            continue
        said = say(here) if here else NO_RUN
        where = f" On {machine(here[0].row)}." if here and len(machines) > 1 else ""
        lines.append(f"1. **{question}** {said}{where} ({page(name)})")
        if here:
            lines += _others([other for other in others if other[0].row.page == name], here)
    if found:
        lines += ["", _measured_on(found, machines)]
    return "\n".join(lines) + "\n"


def _others(others: Sequence[Sequence[Headline]], best: Sequence[Headline]) -> Iterator[str]:
    """What other runs found, so that nobody takes the one above for all that is known."""
    for other in others[:MOST_OTHERS]:
        said = LINES[other[0].row.page][1](other)
        run = other[0].row.run
        differs = _otherwise(run, best[0].row.run)
        asked = f", asked with other {', '.join(differs)}" if differs else ""
        yield f"   - Another complete run, `{run.name}`{asked}: {said}"
    if len(others) > MOST_OTHERS:
        n = len(others) - MOST_OTHERS
        yield f"   - Older complete runs: {n}, in the [history](results/history)."


def _otherwise(run: Evidence, other: Evidence) -> list[str]:
    """Names of the parameters in which two runs differ."""
    mine, theirs = (one.manifest["parameters"] for one in (run, other))
    return sorted(
        name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name)
    )


def _measured_on(found: Sequence[Headline], machines: set[str]) -> str:
    """On what, when, and what that is worth."""
    days = sorted({date(headline.row) for headline in found})
    presets = sorted({str(headline.row.run.manifest["preset"]) for headline in found})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    said = f"Measured on **{'**, **'.join(sorted(machines))}**, {when}, "
    said += f"preset{'s' if len(presets) > 1 else ''} {', '.join(presets)}."
    if "smoke" in presets:
        said += " Numbers of a smoke run mean nothing: they prove that its page runs."
    return f"{said} Intervals in parentheses."


def _learning(found: Sequence[Headline]) -> str:
    perplexity = _ending(found, ".perplexity")[0]
    bits = _ending(found, ".bits_per_byte")[0]
    base = perplexity.row.values["base"]
    return (
        f"{base} ends at a validation perplexity of {measured(perplexity, unit=False)}, "
        f"{measured(bits)}; the target of {perplexity.target} is **{perplexity.verdict}** "
        "(one training, so no interval)."
    )


def _speed(found: Sequence[Headline]) -> str:
    """At the largest batch whose ratios are known, a training step before anything else."""
    ratios = _ending(found, ".ratio")
    baseline = found[0].row.run.manifest["parameters"]["baseline"]
    if not ratios:
        return f"Nothing but {baseline} was measured."
    known = [ratio for ratio in ratios if ratio.value is not None] or ratios
    best = max(known, key=lambda h: (h.row.values["mode"] == "train_step", _tokens(h)))
    setting = _setting(best)
    here = [ratio for ratio in ratios if _setting(ratio) == setting]
    mode, tokens, precision = setting
    said = (
        f"Speed as a ratio to {baseline} ({MODES[mode]}, {precision}, {tokens:,} tokens): "
        f"{_by_verdict(here)}."
    )
    others = len({_setting(ratio) for ratio in ratios}) - 1
    return said + (f" {others} more setting{'s' * (others > 1)} on the page." if others else "")


def _setting(headline: Headline) -> tuple[str, int, str]:
    values = headline.row.values
    return values["mode"], int(values["batch_tokens"]), values["precision"]


def _tokens(headline: Headline) -> int:
    return _setting(headline)[1]


def _memory(found: Sequence[Headline]) -> str:
    """In half precision where that was measured: without checkpointing, with it, at what time."""
    shares = _ending(found, ".saved_less_share")
    known = [share for share in shares if share.value is not None]
    if not known:
        return "No row without checkpointing has one with it beside."
    precisions = [share.row.values["precision"] for share in known]
    precision = "bf16" if "bf16" in precisions else precisions[0]
    times = {headline.row.label: headline for headline in _ending(found, ".time_ratio")}
    groups: dict[str, list[str]] = {}
    for share in known:
        values = share.row.values
        if values["precision"] == precision:
            groups.setdefault(share.verdict, []).append(
                f"{values['base']} {values['saved_without_mib']:,.1f} to "
                f"{values['saved_with_mib']:,.1f} MiB at "
                f"{measured(times[share.row.label], unit=False)} × the time"
            )
    said = "; ".join(f"**{verdict}** {', '.join(of)}" for verdict, of in groups.items())
    return f"Kept for backward without and with it, {precision}: {said} of a step."


def _checks(found: Sequence[Headline]) -> str:
    counts = {status: _counts(found, status) for status in ("passed", "failed", "skipped")}
    total = {status: sum(by_check.values()) for status, by_check in counts.items()}
    made = total["passed"] + total["failed"]
    if total["failed"]:
        which = ", ".join(f"{check} on {n}" for check, n in counts["failed"].items() if n)
        said = f"**{total['failed']} of {made} checks failed** ({which} of its bases)"
    elif made:
        said = f"**All {made} checks passed**, a check counted once a base"
    else:
        said = "**No check could be made**"
    if total["skipped"]:
        which = ", ".join(check for check, n in counts["skipped"].items() if n)
        said += f"; {total['skipped']} could not be made here ({which})"
    return f"{said}."


def _counts(found: Sequence[Headline], status: str) -> dict[str, int]:
    return {h.claim: int(h.value or 0) for h in _ending(found, f".{status}")}


def _bases(found: Sequence[Headline]) -> str:
    """Each arm against the baseline, and what is left of the sine where gains are the same."""
    differences = [h for h in _ending(found, ".difference") if h.value is not None]
    baseline = found[0].row.run.manifest["parameters"]["baseline"]
    if not differences:
        return f"No arm could be compared with {baseline}."
    said = (
        f"Validation loss less that of {baseline}, nats per token (less is better): "
        f"{_by_verdict(differences)}."
    )
    gain = next((h for h in found if h.name == GAIN), None)
    return f"{said} {_gain(gain, differences, baseline)}".strip()


def _gain(gain: Headline | None, differences: Iterable[Headline], baseline: str) -> str:
    if gain is None:
        return ""
    said = f"{shootout_gain.SINE} less {shootout_gain.SCALED}: {measured(gain, unit=False)}"
    said += f", {gain.verdict or 'no verdict'}."
    verdicts = {h.row.values["base"]: h.verdict for h in differences}
    key = _called(verdicts.get(shootout_gain.SINE, "")), _called(gain.verdict)
    if baseline == shootout_gain.PLAIN and key in shootout_gain.HEADLINES:
        return f"**{shootout_gain.HEADLINES[key]}**: {said}"  # type: ignore[index]
    return said


def _called(verdict: str) -> Verdict | str:
    return shootout_gain.UNDECIDED if verdict == "A/A" else verdict


def _peer(found: Sequence[Headline]) -> str:
    """In every setting that was measured: neither stands for the other."""
    peer = found[0].row.run.manifest["parameters"]["peer"]
    groups = {name: [h for h in found if h.row.values["setting"] == name] for name in SETTINGS}
    said = (f"*{SETTINGS[name]}*: {_by_verdict(h, _work)}" for name, h in groups.items() if h)
    return f"Ours as a ratio to {peer}: {'. '.join(said)}."


def _work(headline: Headline) -> str:
    values = headline.row.values
    return f"{values['base']} {WORK[values['work']]}"


def _base(headline: Headline) -> str:
    return str(headline.row.values["base"])


def _by_verdict(found: Iterable[Headline], name: Callable[[Headline], str] = _base) -> str:
    """Names with their numbers, gathered under the verdicts they share."""
    groups: dict[str, list[str]] = {}
    for headline in found:
        said = f"{name(headline)} {measured(headline, unit=False)}"
        groups.setdefault(headline.verdict or "no verdict", []).append(said)
    order = sorted(groups, key=lambda word: ORDER.index(word) if word in ORDER else len(ORDER))
    return "; ".join(f"**{word}** {', '.join(groups[word])}" for word in order)


def _ending(found: Iterable[Headline], end: str) -> list[Headline]:
    return [headline for headline in found if headline.name.endswith(end)]


LINES: Mapping[str, tuple[str, Callable[[Sequence[Headline]], str]]] = {
    "tiny_corpus": ("Does it learn?", _learning),
    "throughput": ("Is it as fast?", _speed),
    "memory": ("What does checkpointing save?", _memory),
    "validation": ("Does it do what it says?", _checks),
    "shootout": ("Does it learn more than a plain transformer?", _bases),
    "peer": ("Is it better than the published package?", _peer),
}
"""Of each page: the question, and its answer from the headlines of a run."""
