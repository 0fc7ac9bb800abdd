"""Whether the sine's advantage over gelu is gain alone: what the control arm says, in sentences."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from psannlm.evidence.page import Tables
from psannlm.evidence.text import interval
from psannlm.pages.shootout.comparison import FEWEST_SEEDS, Comparison, Finals, Verdict, compare
from psannlm.pages.shootout.config import ShootoutConfig

SINE, SCALED, PLAIN = "respsann", "gelu_scaled", "gelu"
"""The damped sine; gelu with the same learned gains, before and after it; gelu by itself."""

UNDECIDED: Verdict = "not separated"
SEPARATED = ("better", "worse")

HEADLINES: Mapping[tuple[str, str], str] = {
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


def contrast(finals: Finals, arm: str, other: str) -> Comparison:
    """Two arms compared as arms are with the baseline; one comparison alone, so not corrected."""
    (found,) = compare({name: finals.get(name, ()) for name in (arm, other)}, other, {})
    return found


def gain_rows(finals: Finals) -> Iterator[dict[str, Any]]:
    """The sine against gelu and the scaled gelu, and that against gelu: one row each."""
    for arm, other in ((SINE, PLAIN), (SINE, SCALED), (SCALED, PLAIN)):
        found = contrast(finals, arm, other)
        seeds = found.seeds
        yield {
            "arm": arm,
            "other": other,
            "mean": seeds.mean,
            "low": seeds.low,
            "high": seeds.high,
            "n": seeds.n,
            "verdict": found.verdict,
        }


def has_verdict(config: ShootoutConfig) -> bool:
    """Whether there are seeds enough, in a run that is no smoke test, to call arms separated."""
    return len(config.seeds) >= FEWEST_SEEDS and config.preset != "smoke"


def called(verdict: str) -> str:
    """A verdict on arms that are not one network: A/A, and none, are not separated."""
    return verdict if verdict in SEPARATED else UNDECIDED


def control(tables: Tables, config: ShootoutConfig) -> str:
    """How much of the sine's difference to gelu is left against gelu with the same gains."""
    lines = [_finding(tables, config), _from_scales(tables["scales.csv"], config)]
    return "\n".join(f"- {line}" for line in lines if line)


def _finding(tables: Tables, config: ShootoutConfig) -> str:
    """The sine against gelu, against the scaled gelu, and the scaled gelu against gelu."""
    rows = {row["base"]: row for row in tables["summary.csv"].to_dict("records")}
    found = tables["gain"].to_dict("records")
    if lacking := _lacking(rows, found):
        return f"Whether the sine's advantage is gain alone is not answered here: {lacking}."
    whole, rest, gain = found
    if config.baseline == PLAIN:  # the leaderboard's verdicts are corrected for all arms
        whole, gain = (one | {"verdict": rows[one["arm"]]["verdict"]} for one in (whole, gain))
    decided = has_verdict(config)
    said = (
        f"{SINE} less {PLAIN}: {_said_of(whole, decided)}. {SINE} less {SCALED}, what is left "
        f"where gains are the same: {_said_of(rest, decided)}. {SCALED} less {PLAIN}, gain alone: "
        f"{_said_of(gain, decided)}."
    )
    if not decided:
        return f"No verdict on whether the sine's advantage is gain alone. {said}"
    if config.baseline == PLAIN:
        said += f" Verdicts against {PLAIN} are those of the leaderboard; that against {SCALED} "
        said += "is one planned comparison, so it is not corrected."
    left = called(rest["verdict"])
    if left == UNDECIDED:
        said += " Not separated is not equal: the interval says what is still possible."
    return f"**{HEADLINES[called(whole['verdict']), left]}.** {said}"


def _lacking(rows: Mapping[str, Mapping[Any, Any]], found: Sequence[Mapping[Any, Any]]) -> str:
    """What the comparison lacks; nothing if all three arms can be compared."""
    said = []
    for name in (SINE, SCALED, PLAIN):
        if name not in rows:
            said.append(f"{name} was not compared; `base` must name it")
        elif rows[name]["refused"]:
            said.append(f"{name} is refused a place, {rows[name]['refused']}")
        elif not rows[name]["n_seeds"]:
            said.append(f"no compared training of {name} came to its end")
    if not said and any(not one["n"] for one in found):
        said.append("no seed was finished by both arms")
    return "; ".join(said)


def _said_of(found: Mapping[Any, Any], decided: bool) -> str:
    """A difference of two arms with its interval over seeds, signed, and its verdict if any."""
    said = f"{interval(found['mean'], found['low'], found['high'], '+.4f')} nats"
    return f"{said}, {called(found['verdict'])}" if decided else said


def _from_scales(scales: pd.DataFrame, config: ShootoutConfig) -> str:
    """What the initial scale alone changes in each arm, and the arms at their best scales."""
    said, best = [], []
    for name in (SINE, SCALED, PLAIN):
        rows = scales[(scales["base"] == name) & scales["val_loss"].notna()]
        losses = dict(zip(rows["scale"], rows["val_loss"].astype(float), strict=True))
        if losses:
            scale = min(losses, key=losses.__getitem__)
            best.append(f"{name} {losses[scale]:.4f}")
            said.append(_of_scale(name, scale, losses))
    if not said:
        return ""
    n = config.side_seeds
    return (
        f"By the initial scale alone (at most {n} "
        f"seed{'' if n == 1 else 's'}, no verdict): {'; '.join(said)}. Losses at the best scale "
        f"of each: {', '.join(best)}."
    )


def _of_scale(name: str, best: float, losses: Mapping[float, float]) -> str:
    """An arm at its best scale against scale 1."""
    at = _scale(name, best)
    if best == 1.0:
        return f"{name} is best at {at} itself"
    gained = losses.get(1.0, math.nan) - losses[best]
    if math.isnan(gained):
        return f"{name} is best at {at}"
    return f"{name} is {gained:.4f} nats better at {at} than at {_scale(name, 1.0)}"


def _scale(name: str, scale: float) -> str:
    """A scale as f where the nonlinearity has one, else as a factor of the initial weights."""
    return f"{scale:g} × init_std" if name == PLAIN else f"f = {scale:g}"
