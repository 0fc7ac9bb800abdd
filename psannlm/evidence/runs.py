"""Run folders: made once, written atomically, sealed by a manifest of hashes, refused if altered.

A folder is evidence only with a manifest that says `complete`, and that is written last.
"""

import contextlib
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock

from psannlm import REPORTS
from psannlm.bench.environment import utc_now
from psannlm.bench.machine import differing_facts, identity, labels
from psannlm.config.schema import ConfigError
from psannlm.evidence import parts
from psannlm.files import lock, sha256_of, unlock, what_altered, write_atomically, writing
from psannlm.places import public

SCHEMA, MANIFEST = 1, "run.json"
VARIABLES = {"gpu": "OUT_DIR", "benchmarks": "BENCH_OUT"}  # name another folder for each kind
PRESETS = ("smoke", "cpu", "gpu")  # in rising order of what their evidence is worth


class EvidenceError(ConfigError):
    """A run folder that cannot be trusted or used; names the folder and the rule it breaks."""


@dataclass(frozen=True)
class Evidence:
    """A run folder that holds what its manifest says."""

    folder: Path
    manifest: Mapping[str, Any]
    label: str = field(default="", compare=False)  # of its machine, among those of other runs

    @property
    def machine(self) -> str:
        """The measured device, by a name that no other machine has among the runs it came with."""
        return self.label or str(self.manifest["environment"]["device"])

    @property
    def name(self) -> str:
        """Path below reports/, which names the run everywhere."""
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def is_complete(self) -> bool:
        """Whether the run came to its end."""
        return bool(self.manifest["status"] == "complete")

    def text(self, artifact: str) -> str:
        """Content of one of its files."""
        return (self.folder / artifact).read_text(encoding="utf-8")


def emulated_in(manifest: Mapping[str, Any]) -> list[str]:
    """Precisions that a run has used and its device emulates; none of a run that does not say."""
    used = manifest.get("parameters", {}).get("precision") or ()
    told = manifest.get("precision", {}).get("emulated", ())
    return [name for name in ((used,) if isinstance(used, str) else used) if name in told]


@dataclass(frozen=True)
class Refused:
    """A run folder left out of the report, and why."""

    folder: Path
    reason: str


@dataclass
class Run:
    """A run folder being written, and locked until the run is complete or its process ends."""

    folder: Path
    manifest: dict[str, Any]
    lock: FileLock
    artifacts: set[str] = field(default_factory=set)

    @classmethod
    def start(
        cls, kind: str, manifest: Mapping[str, Any], *, reports: Path = REPORTS, suffix: str = ""
    ) -> "Run":
        """Make a folder `reports/<kind>/<YYYYMMDD_HHMMSS><suffix>`, in UTC, or `..._2` and so on.

        The manifest is known before the first measurement; it has preset and notebook at least.
        """
        try:
            folder = _new_folder(reports / kind, suffix)
            own = lock(folder)
            if manifest["preset"] == "smoke":
                write_atomically(folder / ".gitignore", "*\n")
            begun = {"status": "running", "started_at": utc_now().isoformat()}
            run = cls(folder, {"schema": SCHEMA, "run": folder.name, **manifest, **begun}, own)
            run._write_manifest()
        except OSError as error:
            raise EvidenceError(
                f"{reports / kind} cannot be written: {error.strerror}; "
                "make it writable, or name another folder in PSANNLM_REPORTS (of validations in "
                "OUT_DIR, of all others in BENCH_OUT)"
            ) from None
        return run

    @classmethod
    def resume(
        cls,
        folder: Path,
        now: Mapping[str, Any],
        *,
        mixed: bool = False,
        keys: Callable[["Run"], Iterable[Any]] = lambda run: (),
    ) -> "Run":
        """Go on in a folder whose run was interrupted or failed, and which no process writes.

        Not with other parameters, nor on another machine than that of `now`; with other code,
        software or settings only if it may be `mixed`: then the manifest tells what the records so
        far, of these `keys`, were made with.
        """
        _unfinished(folder)  # no lock is put into another folder
        with contextlib.ExitStack() as stack:
            with writing(folder):
                own = lock(folder)
            stack.callback(unlock, own)
            manifest = _unfinished(folder)
            changed = _refuse_other(folder, manifest, now, mixed=mixed)
            resumed_at = [*manifest.get("resumed_at", []), utc_now().isoformat()]
            manifest |= {"status": "running", "reason": "", "resumed_at": resumed_at}
            run = cls(folder, manifest, own, set(_artifacts(folder)))
            if changed:
                manifest["parts"] = parts.continued(manifest, now, keys(run))
            run._write_manifest()
            stack.pop_all()
        return run

    def write(self, name: str, content: str | bytes) -> None:
        """Write the artifact `name`, a path below the folder, atomically; never after the end."""
        if self.manifest["status"] != "running":
            ended = f"{_name(self.folder)} has ended, as {self.manifest['status']}"
            raise EvidenceError(f"{ended}: {name} cannot be written; start a new run")
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, public(content) if isinstance(content, str) else content)
        self.artifacts.add(name)

    def state(self, **facts: Any) -> None:
        """Put facts into the manifest that are known only once the run has begun; never others."""
        for name, value in facts.items():
            if self.manifest.get(name) not in (None, value):
                raise EvidenceError(
                    f"{_name(self.folder)} was begun with another {name}; start a new run"
                )
        self.manifest |= facts
        self._write_manifest()

    def seal(self, status: str, reason: str = "", **facts: Any) -> None:
        """End the run: hash every artifact, then replace the manifest."""
        self.manifest |= facts | {
            "status": status,
            "reason": reason,
            "ended_at": utc_now().isoformat(),
            "artifacts": {name: sha256_of(self.folder / name) for name in sorted(self.artifacts)},
        }
        self._write_manifest()
        for path in (self.folder / name for name in (*self.artifacts, MANIFEST)):
            with contextlib.suppress(OSError):  # not every file system has permissions
                path.chmod(path.stat().st_mode & ~0o222)  # an editor does not save it by itself
        if status == "complete":
            unlock(self.lock)

    def _write_manifest(self) -> None:
        names = {n: v for n, v in self.manifest.items() if n == "artifacts"}  # as the files have
        self.manifest = json.loads(public(json.dumps(self.manifest | names))) | names
        self.manifest["sha256"] = _fingerprint(self.manifest)
        write_atomically(self.folder / MANIFEST, json.dumps(self.manifest, indent=2) + "\n")


def home(kind: str, environment: Mapping[str, str] = os.environ) -> Path:
    """The folder in which runs of a kind are made: as the environment says, or below reports/."""
    named = environment.get(VARIABLES[kind])
    return Path(named) if named else REPORTS / kind


def pinned(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The folders that the environment names, as absolute paths, for another working folder."""
    named = [name for name in VARIABLES.values() if environment.get(name)]
    return {name: str(Path(environment[name]).absolute()) for name in named}


def load(folder: Path) -> Evidence:
    """The run in `folder`, every hash checked if it is sealed, complete or not.

    An EvidenceError names the file that is missing, altered, or not in a complete run's manifest.
    """
    manifest = _read_manifest(folder)
    if manifest["status"] == "running":
        return Evidence(folder, manifest)  # resumed, it writes anew what was sealed before
    sealed = manifest["artifacts"]
    for name, expected in sealed.items():
        place = PurePosixPath(name)
        if place.is_absolute() or ".." in place.parts or "\\" in name:
            raise EvidenceError(f"{_name(folder)}: {name} is no path below the run's folder")
        path = folder / name
        if not path.is_file():
            raise EvidenceError(f"{_name(folder)}: {name} is missing")
        if sha256_of(path) != expected:
            raise _altered(folder, name)
    if manifest["status"] == "complete":
        for name in sorted(set(_artifacts(folder)) - set(sealed)):
            raise EvidenceError(
                f"{_name(folder)}: {name} is not named in {MANIFEST}; move it out of the run"
            )
    return Evidence(folder, manifest)


def all_runs(reports: Path = REPORTS) -> Iterator[Evidence | Refused]:
    """Every run folder, oldest first; one that cannot be trusted comes with its reason."""
    folders = [p for kind in VARIABLES for p in (reports / kind).glob("*") if p.is_dir()]
    for folder in sorted(folders, key=_age):
        try:
            yield load(folder)
        except EvidenceError as error:
            yield Refused(folder, public(str(error)))


def with_machines(runs: Iterable[Evidence | Refused]) -> list[Evidence | Refused]:
    """The same runs, in their order, each with the name of its machine among all of them.

    The plain name of several machines is that of the one whose complete run is oldest, so that a
    newer run changes the name of no older one.
    """
    known = list(runs)
    sound = [run for run in known if isinstance(run, Evidence)]
    if all(run.label for run in sound):
        return known
    sound.sort(key=lambda run: (not run.is_complete, str(run.manifest.get("started_at", ""))))
    names = labels([identity(run.manifest["environment"]) for run in sound])
    named = {id(run): replace(run, label=name) for run, name in zip(sound, names, strict=True)}
    return [named.get(id(run), run) for run in known]


def best_run(notebook: str, runs: list[Evidence]) -> Evidence | None:
    """The newest complete run of the highest preset.

    One restricted by `only`, or whose processes have measured emulated precisions alone, if there
    is no other.
    """

    def worth(run: Evidence) -> tuple[int, bool, str, Any]:
        manifest, age = run.manifest, _age(run.folder)
        asked = manifest["parameters"]
        nothing_else = "n_repeats" in asked and emulated_in(manifest) == asked["precision"]
        whole = not asked.get("only") and not nothing_else
        return PRESETS.index(manifest["preset"]), whole, manifest["started_at"], age

    ours = [run for run in runs if run.is_complete and run.manifest["notebook"] == notebook]
    return max(ours, key=worth, default=None)


def _age(folder: Path) -> tuple[str, int, str]:
    """Sorts run folders, oldest first: by the second in their names, then by their number in it."""
    return folder.name[:15], len(folder.name), folder.name


def _new_folder(parent: Path, suffix: str) -> Path:
    """A folder that was not there before, made by this process alone."""
    parent.mkdir(parents=True, exist_ok=True)
    name = f"{utc_now():%Y%m%d_%H%M%S}{suffix}"
    for number in itertools.count(1):
        folder = parent / (name if number == 1 else f"{name}_{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            break
    return folder


def _unfinished(folder: Path) -> dict[str, Any]:
    """Manifest of a run that can go on."""
    manifest = dict(_read_manifest(folder))
    if manifest["status"] == "complete":
        raise EvidenceError(f"{_name(folder)} is complete; there is nothing to resume")
    if edited := manifest.get("edited"):
        raise EvidenceError(
            f"{_name(folder)} was made by an edited notebook: {'; '.join(edited)}; start a new run"
        )
    return manifest


def _refuse_other(folder: Path, manifest: Mapping[str, Any], now: Any, *, mixed: bool) -> bool:
    """Whether a run that may go on does so with other code, software or settings."""
    name = _name(folder)
    if manifest["parameters"] != now["parameters"]:
        raise EvidenceError(f"{name} was begun with other parameters; start a new run")
    there, here = (identity(one["environment"]) for one in (manifest, now))
    if other := differing_facts(there, here):
        shown = ", ".join(f"{n} {there[n]} and not {here[n]}" for n in other)
        raise EvidenceError(f"{name} was begun on another machine, {shown}; start a new run")
    then, now = parts.so_far(manifest)[-1]["made_with"], parts.made_with(now)
    changed = parts.changes(then, now)
    if changed and not mixed:
        value, is_commit = parts.value, then["commit"] and manifest["git"]["dirty"] is False
        shown = ", ".join(f"{n} {value(n, then)} and not {value(n, now)}" for n in changed)
        back = f" (`git checkout {value('commit', then)}`)" if is_commit else ""
        raise EvidenceError(
            f"{name} was made with {shown}; put that back{back}, start a new run, or go on with "
            "--mixed, which its page will say"
        )
    return bool(changed)


def _read_manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST
    try:
        manifest: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EvidenceError(f"{_name(folder)}: {MANIFEST} is missing") from None
    except (OSError, ValueError) as error:
        raise _altered(folder, MANIFEST, f"cannot be read: {error}") from None
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != SCHEMA:
        raise EvidenceError(f"{_name(folder)}: {MANIFEST}: schema must be {SCHEMA}, got {found!r}")
    if manifest.get("sha256") != _fingerprint(manifest):
        raise _altered(folder, MANIFEST)
    return manifest


def _altered(
    folder: Path, name: str, rule: str = "was altered, its sha256 differs"
) -> EvidenceError:
    return EvidenceError(f"{_name(folder)}: {name} {rule}: {what_altered(folder / name, folder)}")


def _fingerprint(manifest: Mapping[str, Any]) -> str:
    """Hash of all that a manifest states besides it."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _artifacts(folder: Path) -> Iterator[str]:
    """Paths, below a run folder, of its files but for the manifest and all that a dot hides."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in name.parts)
        if path.is_file() and name != Path(MANIFEST) and not hidden:
            yield name.as_posix()


def _name(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"
