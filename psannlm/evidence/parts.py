"""What the records of a run were made with, and the parts of a run that went on with another.

A run that goes on with other code, software or settings is mixed: its manifest lists its `parts`,
each with what it was `made_with` and, but for the last, with the keys of its `records`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from psannlm.bench.environment import HARMLESS, decides_speed

PACKAGES = ("scipy", "pandas", "tokenizers", "lm-eval")  # can change a number, but compute none

Facts = Mapping[str, Any]


def made_with(manifest: Facts) -> dict[str, Any]:
    """What numbers rest on besides parameters and machine, as far as a manifest states it."""
    environment = manifest["environment"]
    software, settings = (environment.get(name, {}) for name in ("software", "settings"))
    facts = {"code": manifest.get("sources_sha256"), "commit": manifest["git"]["commit"]}
    facts |= {name: software[name] for name in ("python", "cuda", "compiler") if name in software}
    packages = software.get("distributions", {}) | software.get("packages", {})
    facts |= {n: v for n, v in packages.items() if n in PACKAGES or decides_speed(n)}
    if gpu := environment.get("gpu"):
        facts["driver"] = gpu.get("driver")
    start = manifest.get("conditions", {}).get("start", {})
    facts |= {name: start[name] for name in ("governor", "turbo") if name in start}
    variables = settings.get("variables", {})
    facts["variables"] = {n: v for n, v in variables.items() if not HARMLESS.search(n)}
    names = ("threads", "float32_matmul_precision")
    return facts | {n: settings[n] for n in names if n in settings}


def changes(then: Facts, now: Facts) -> list[str]:
    """The names of what differs; code by its hash, or by its commit where one has no hash."""
    code = "code" if then.get("code") and now.get("code") else "commit"
    names = (name for name in now if name in then and name not in {"code", "commit"})
    return [name for name in (code, *names) if then.get(name) != now.get(name)]


def value(name: str, facts: Facts) -> str:
    """One thing that something was made with, for a sentence."""
    fact = facts.get(name)
    if isinstance(fact, Mapping):
        return " ".join(f"{k}={v}" for k, v in fact.items()) or "none"
    short = 12 if name in {"code", "commit"} else None  # of a hash
    return "unknown" if fact is None else str(fact)[:short]


def so_far(manifest: Facts) -> list[dict[str, Any]]:
    """The parts of a run; one of a run that is not mixed."""
    return manifest.get("parts") or [{"made_with": made_with(manifest)}]


def continued(manifest: Facts, now: Facts, keys: Iterable[Any]) -> list[dict[str, Any]]:
    """The parts of a run that goes on with what `now` was made with; `keys` are of its records."""
    *before, last = so_far(manifest)
    known = [key for part in before for key in part["records"]]
    added = [key for key in json.loads(json.dumps([*keys])) if key not in known]
    return [*before, last | {"records": added}, {"made_with": made_with(now)}]


def sentence(manifest: Facts) -> str:
    """What a reader must know of a mixed run; empty of any other."""
    parts, makers = manifest.get("parts", ()), []
    facts = [part["made_with"] for part in parts]
    names = dict.fromkeys(n for one in facts for other in facts for n in changes(one, other))
    for part in parts:
        n = len(part["records"]) if "records" in part else "all others"
        differing = (f"{name} {value(name, part['made_with'])}" for name in names)
        makers.append(f"{n} with {', '.join(differing)}")
    mixed = f"This run is mixed. Of its records it made {'; '.join(makers)}; run.json names them."
    return mixed if parts else ""


def problems(manifest: Facts, keys: Iterable[Any]) -> Iterator[str]:
    """What the parts of a run say of records that it does not have, or that two parts claim."""
    free = {json.dumps(key) for key in keys}
    for part in manifest.get("parts", ()):
        for key in map(json.dumps, part.get("records", ())):
            if key not in free:
                yield f"run.json: {key} of its parts is no record, or in two of them"
            free.discard(key)
