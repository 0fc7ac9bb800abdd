"""What a run was: its page, machine, software, parameters and shape, and whether two are alike."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from psannlm.evidence.runs import Evidence, Refused
from psannlm.pages.registry import CONFIGS


def page(run: Evidence) -> str:
    """The notebook that made it."""
    return str(run.manifest["notebook"])


def machine(run: Evidence) -> str:
    """The measured device, by name."""
    return str(run.manifest["environment"]["device"])


def torch_version(run: Evidence) -> str:
    """Of the torch that it ran with."""
    return str(run.manifest["environment"]["software"]["packages"]["torch"])


def code(run: Evidence) -> str:
    """The commit that it ran, and whether files had been changed since."""
    git = run.manifest["git"]
    return (git["commit"] or "unknown")[:12] + (" (dirty)" if git["dirty"] else "")


def started(run: Evidence) -> str:
    """When, to the minute, in UTC."""
    return str(run.manifest["started_at"])[:16].replace("T", " ")


def complete_runs(runs: Sequence[Evidence | Refused], notebook: str = "") -> list[Evidence]:
    """The complete runs of a notebook, or of all, in the order given."""
    return [
        run
        for run in runs
        if isinstance(run, Evidence) and run.is_complete and notebook in ("", page(run))
    ]


def shape(run: Evidence) -> str:
    """What size of network, and of training, its numbers hold for."""
    asked = run.manifest["parameters"]
    said = [
        f"d_model {asked['d_model']:,}",
        f"{asked['n_layers']} layers",
        f"vocabulary {asked['vocab_size']:,}",
        f"context {asked['context_length']:,}",
    ]
    if "epochs" in asked:
        said += [
            PurePosixPath(asked["corpus"]).name,
            f"{asked['train_megabytes']:g} MB" if asked["train_megabytes"] else "all of it",
            f"{asked['epochs']:g} × read",
        ]
    return ", ".join(said)


def text_of(run: Evidence) -> str | None:
    """Hash of the text that it read; None if it read none."""
    return (run.manifest.get("corpus") or {}).get("sha256")


def differences(newer: Evidence, older: Evidence) -> Iterator[str]:
    """What keeps two runs of a page from being compared, in words."""
    for what, of in (("machine", machine), ("torch", torch_version), ("threads", _threads)):
        if of(newer) != of(older):
            yield f"{what}: {of(newer)}, before {of(older)}"
    if names := list(unequal_parameters(newer, older)):
        yield f"parameters differ ({', '.join(names)})"
    if text_of(newer) != text_of(older):
        yield "the text differs"


def unequal_parameters(newer: Evidence, older: Evidence) -> Iterator[str]:
    """Names of the parameters that two runs of a page do not share.

    One that the older run did not know counts as its default.
    """
    ours, theirs = newer.manifest["parameters"], older.manifest["parameters"]
    defaults = _defaults(page(newer))
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name, defaults.get(name)) != theirs.get(name, defaults.get(name)):
            yield name


def _defaults(notebook: str) -> Mapping[str, Any]:
    config = CONFIGS.get(notebook)
    if config is None:
        return {}
    found = {name: field.default for name, field in config.model_fields.items()}
    return {name: list(v) if isinstance(v, tuple) else v for name, v in found.items()}


def _threads(run: Evidence) -> Any:
    return run.manifest["environment"]["settings"]["threads"]
