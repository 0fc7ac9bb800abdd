"""Whether the sine's advantage over gelu is gain alone: what the control arm says, in sentences."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import pandas as pd

from psannlm.evidence.text import interval
from psannlm.pages.shootout.comparison import Comparison, Verdict, compare
from psannlm.pages.shootout.prose import SEPARATED, has_verdict
from psannlm.pages.shootout.tables import Shootout
from psannlm.pages.shootout.views import text

SINE, SCALED, PLAIN = "respsann", "gelu_scaled", "gelu"
"""The damped sine; gelu with the same learned gains, before and after it; gelu by itself."""

UNDECIDED: Verdict = "not separated"

HEADLINES: Mapping[tuple[Verdict, Verdict], str] = {
    ("better", "better"): "The sine's advantage over gelu is not gain alone",
    ("better", "not separated"): "Gain alone may be all of the sine's advantage over gelu",
    ("better", "worse"): "Gain alone does more than the sine",
    ("not separated", "better"): "The sine is not separated from gelu, but better than its gains",
    ("not separated", "not separated"): "The sine has no separated advantage to be explained",
    ("not separated", "worse"): "Gain alone does more than the sine, which is not separated "
    "from gelu",
    ("worse", "better"): "The sine is worse than gelu, and gain alone is worse still",
    ("worse", "not separated"): "The sine is worse than gelu, and not separated from gain alone",
    ("worse", "worse"): "The sine is worse than gelu, and worse than gain alone",
}
"""By the verdict on the sine against gelu, and that against the scaled gelu."""


def control(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """How much of the sine's difference to gelu is left against gelu with the same gains.

    Args:
        shootout: Of the run.
        asked: Parameters of the run, by name.
    """
    lines = [_finding(shootout, asked), _from_scales(shootout, asked)]
    return "\n".join(f"- {line}" for line in lines if line)


def contrast(shootout: Shootout, arm: str, other: str) -> Comparison:
    """Two arms compared as arms are with the baseline; one comparison alone, so not corrected."""
    keys = set(shootout.runs["key"])
    finals = {
        name: [record for record in shootout.records if record.arm == name and record.key in keys]
        for name in (arm, other)
    }
    (found,) = compare(finals, other, {})
    return found


def _finding(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """The sine against gelu, against the scaled gelu, and the scaled gelu against gelu."""
    if lacking := _lacking(shootout):
        return f"Whether the sine's advantage is gain alone is not answered here: {lacking}."
    whole = _as_ranked(shootout, SINE, asked)
    rest = contrast(shootout, SINE, SCALED)
    gain = _as_ranked(shootout, SCALED, asked)
    decided = has_verdict(asked)
    said = (
        f"{SINE} less {PLAIN}: {said_of(whole, decided)}. {SINE} less {SCALED}, what is left "
        f"where gains are the same: {said_of(rest, decided)}. {SCALED} less {PLAIN}, gain alone: "
        f"{said_of(gain, decided)}."
    )
    if decided and asked["baseline"] == PLAIN:
        said += f" Verdicts against {PLAIN} are those of the leaderboard; that against {SCALED} "
        said += "is one planned comparison, so it is not corrected."
    if not decided:
        return f"No verdict on whether the sine's advantage is gain alone. {said}"
    said = f"**{HEADLINES[_called(whole), _called(rest)]}.** {said}"
    if _called(rest) == UNDECIDED:
        said += " Not separated is not equal: the interval says what is still possible."
    return said


def _as_ranked(shootout: Shootout, arm: str, asked: Mapping[str, Any]) -> Comparison:
    """An arm against gelu, with the corrected verdict of the leaderboard where that has it."""
    found = contrast(shootout, arm, PLAIN)
    if asked["baseline"] != PLAIN:
        return found
    verdicts = dict(zip(shootout.summary["base"], shootout.summary["verdict"], strict=True))
    return dataclasses.replace(found, verdict=verdicts[arm])


def _lacking(shootout: Shootout) -> str:
    """What the comparison lacks; nothing if all three arms can be compared."""
    rows = {row["base"]: row for row in shootout.summary.to_dict("records")}
    said = [f"{name} was not compared; `base` must name it" for name in _absent(rows)]
    for name in (SINE, SCALED, PLAIN):
        if name in rows and text(rows[name]["refused"]):
            said.append(f"{name} is refused a place, {text(rows[name]['refused'])}")
        elif name in rows and not rows[name]["n_seeds"]:
            said.append(f"no compared training of {name} came to its end")
    if not said and any(not contrast(shootout, SINE, other).seeds.n for other in (SCALED, PLAIN)):
        said.append("no seed was finished by both arms")
    return "; ".join(said)


def _absent(rows: Mapping[str, Any]) -> list[str]:
    return [name for name in (SINE, SCALED, PLAIN) if name not in rows]


def said_of(found: Comparison, decided: bool) -> str:
    """A difference of two arms with its interval over seeds, signed, and its verdict if any."""
    seeds = found.seeds
    said = f"{interval(seeds.mean, seeds.low, seeds.high, '+.4f')} nats"
    return f"{said}, {_called(found)}" if decided else said


def _called(found: Comparison) -> Verdict:
    """A/A stands for networks that are known to be one; these are not."""
    verdict: Verdict = found.verdict
    return verdict if verdict in SEPARATED else UNDECIDED


def _from_scales(shootout: Shootout, asked: Mapping[str, Any]) -> str:
    """What the initial scale alone changes in each arm, and the arms at their best scales."""
    table = shootout.scales[shootout.scales["val_loss"].notna()]
    best: dict[str, dict[Any, Any]] = {}
    said = []
    for name in (SINE, SCALED, PLAIN):
        rows = table[table["base"] == name]
        if rows.empty:
            continue
        best[name] = rows.loc[rows["val_loss"].astype(float).idxmin()].to_dict()
        said.append(_of_scale(name, best[name], rows))
    if not said:
        return ""
    ends = ", ".join(f"{name} {row['val_loss']:.4f}" for name, row in best.items())
    n = asked["side_seeds"]
    return (
        f"By the initial scale alone (at most {n} "
        f"seed{'' if n == 1 else 's'}, no verdict): {'; '.join(said)}. Losses at the best scale "
        f"of each: {ends}."
    )


def _of_scale(name: str, best: Mapping[Any, Any], rows: pd.DataFrame) -> str:
    """An arm at its best scale against scale 1."""
    at = _scale(name, best["scale"])
    usual = rows[rows["scale"] == 1.0]
    if usual.empty:
        return f"{name} is best at {at}"
    if best["scale"] == 1.0:
        return f"{name} is best at {at} itself"
    gained = float(usual["val_loss"].iloc[0]) - float(best["val_loss"])
    return f"{name} is {gained:.4f} nats better at {at} than at {_scale(name, 1.0)}"


def _scale(name: str, scale: float) -> str:
    """A scale as f where the nonlinearity has one, else as a factor of the initial weights."""
    return f"{scale:g} × init_std" if name == PLAIN else f"f = {scale:g}"
