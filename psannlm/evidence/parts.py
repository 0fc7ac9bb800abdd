"""What the records of a run were made with, and the parts of a run that went on with another.

A run that goes on with other code, software or settings is mixed: its manifest lists its `parts`,
each with what it was `made_with` and, but for the last, with the keys of its `records`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from psannlm.bench.environment import HARMLESS, decides_speed

FLOAT32 = "float32_matmul_precision"

PACKAGES = ("scipy", "pandas", "tokenizers", "lm-eval")
"""Packages whose version can change a number, beside those that compute."""

Facts = Mapping[str, Any]


def made_with(manifest: Facts) -> dict[str, Any]:
    """What numbers rest on besides parameters and machine, as far as a manifest states it."""
    environment = manifest["environment"]
    software, settings = (environment.get(name, {}) for name in ("software", "settings"))
    found = {"code": manifest.get("sources_sha256"), "commit": manifest["git"]["commit"]}
    found |= {name: software[name] for name in ("python", "cuda", "compiler") if name in software}
    packages = software.get("distributions", {}) | software.get("packages", {})
    found |= {n: v for n, v in packages.items() if n in PACKAGES or decides_speed(n)}
    if gpu := environment.get("gpu"):
        found["driver"] = gpu.get("driver")
    begun = manifest.get("conditions", {}).get("start", {})
    found |= {name: begun[name] for name in ("governor", "turbo") if name in begun}
    variables = settings.get("variables", {})
    found["variables"] = {n: v for n, v in variables.items() if not HARMLESS.search(n)}
    return found | {n: settings[n] for n in ("threads", FLOAT32) if n in settings}


def changes(then: Facts, now: Facts) -> list[str]:
    """The names of what differs; code by its hash, or by its commit where one has no hash."""
    code = "code" if then.get("code") and now.get("code") else "commit"
    names = (name for name in now if name in then and name not in {"code", "commit"})
    return [name for name in (code, *names) if then.get(name) != now.get(name)]


def value(name: str, facts: Facts) -> str:
    """One thing that something was made with, for a sentence."""
    found = facts.get(name)
    if isinstance(found, Mapping):
        return " ".join(f"{k}={v}" for k, v in found.items()) or "none"
    short = 12 if name in {"code", "commit"} else None  # of a hash
    return "unknown" if found is None else str(found)[:short]


def latest(manifest: Facts) -> Facts:
    """What the last part of a run was made with."""
    parts = manifest.get("parts")
    return dict(parts[-1]["made_with"]) if parts else made_with(manifest)


def gone_on(manifest: Facts, now: Facts, keys: Iterable[Any]) -> list[dict[str, Any]]:
    """The parts of a run that goes on with what `now` was made with; `keys` are of its records."""
    *before, last = manifest.get("parts") or [{"made_with": made_with(manifest)}]
    known = {json.dumps(key) for part in before for key in part["records"]}
    made = [key for key in json.loads(json.dumps([*keys])) if json.dumps(key) not in known]
    return [*before, last | {"records": made}, {"made_with": made_with(now)}]


def sentence(manifest: Facts) -> str:
    """What a reader must know of a mixed run; empty of any other."""
    parts = manifest.get("parts")
    if not parts:
        return ""
    named = [part["made_with"] for part in parts]
    names = dict.fromkeys(n for one in named for other in named for n in changes(one, other))
    told = []
    for part, facts in zip(parts, named, strict=True):
        n = f"{len(part['records'])}" if "records" in part else "all others"
        told.append(f"{n} with {', '.join(f'{name} {value(name, facts)}' for name in names)}")
    return f"This run is mixed. Of its records it made {'; '.join(told)}; run.json names them."


def problems(manifest: Facts, keys: Iterable[Any]) -> Iterator[str]:
    """What the parts of a run say of records that it does not have, or that two parts claim."""
    free = {json.dumps(key) for key in keys}
    for part in manifest.get("parts", ()):
        for key in map(json.dumps, part.get("records", ())):
            if key not in free:
                yield f"run.json: {key} of its parts is no record, or in two of them"
            free.discard(key)
