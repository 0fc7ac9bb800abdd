"""What a report needs is checked before it begins: all problems at once, and nothing is written.

An error stops a report before its first notebook; a note says what it will do without.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import nbformat
import torch
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel
from jupyter_core.paths import jupyter_runtime_dir

from psannlm import CACHE, CHECKPOINTS, ROOT
from psannlm.bench.environment import available_memory_bytes
from psannlm.bench.provenance import describe_git
from psannlm.config import packages
from psannlm.config.schema import ConfigError, Strict
from psannlm.config.training import TrainingConfig
from psannlm.corpora import corpus, sources
from psannlm.device import missing_compiler, select_device
from psannlm.evidence.runs import VARIABLES, home
from psannlm.evidence.session import NOTEBOOKS
from psannlm.model.activations import training_memory
from psannlm.model.bases import cost_of
from psannlm.model.cost import Shape, training_bytes
from psannlm.model.saved_activations import Step
from psannlm.pages.registry import pages
from psannlm.run.preset import find_browser
from psannlm.train.tokenizer import gpt2_tokenizer

GIB, MIB = 2**30, 2**20
RUN_BYTES = 20 * MIB  # of a run with its notebook, many times that of any committed one
BOOK_BYTES = 100 * MIB  # of the built book with the files that it is made from
SHARED_BYTES = 64 * MIB  # of memory that the ranks of several GPUs share

Configs = Mapping[str, Strict]  # by notebook
Check = tuple[str, Callable[[], object]]  # whose it is, and what raises a ConfigError


class Problem(NamedTuple):
    """What stops a report, or what it will do without."""

    subject: str  # such as a notebook; empty for the whole report
    rule: str
    way_out: str
    severity: Literal["error", "note"] = "error"

    def __str__(self) -> str:
        said = "; ".join(filter(None, (self.rule, self.way_out)))
        return f"{self.severity}: {self.subject}{': ' if self.subject else ''}{said}"


def problems(configs: Configs, *, book: bool = True) -> list[Problem]:
    """All that is in the way of a report with these configurations, errors first."""
    found = [
        *_packages(),
        *refused([("", lambda: _refuse_other_kernel(configs)), *_checks(configs)]),
        *_memory(configs),
        *_room(_written(configs, book)),
        *_notes(configs),
    ]
    return sorted(found, key=lambda problem: problem.severity)


def refused(checks: Iterable[Check]) -> Iterator[Problem]:
    """What the checks refuse; the same refusal of several stands once, with all their names."""
    found: dict[str, list[str]] = {}
    for subject, check in checks:
        try:
            check()
        except ConfigError as error:
            found.setdefault(str(error), []).append(subject)
    for text, subjects in found.items():
        # A list of problems has a way out in each line.
        rule, _, way_out = (text, "", "") if "\n" in text else text.partition("; ")
        yield Problem(", ".join(dict.fromkeys(filter(None, subjects))), rule, way_out)


def _packages() -> Iterator[Problem]:
    for requirement, version in packages.unfit():
        way_out = f"run: {packages.installing()}"
        if version:
            rule = f"{requirement} is meant to work, {version} is installed"
            yield Problem("", rule, way_out, "note")
        else:
            yield Problem("", f"{requirement} is not installed", way_out)


def _refuse_other_kernel(configs: Configs) -> None:
    """Raise ConfigError unless the kernel of the notebooks is the Python that runs this."""
    heads = (nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4) for name in configs)
    for name in {head.metadata.kernelspec.name for head in heads}:
        way_out = f"run: {sys.executable} -m ipykernel install --sys-prefix"
        try:
            spec = KernelSpecManager().get_kernel_spec(name)
        except NoSuchKernel:
            raise ConfigError(f"there is no Jupyter kernel {name}; {way_out}") from None
        program = Path(spec.argv[0])  # a bare name means this Python; of a wrapper nothing is known
        known = program.is_absolute() and program.name.startswith("python")
        if known and program.parent.resolve() != Path(sys.executable).parent.resolve():
            raise ConfigError(
                f"the Jupyter kernel {name} must be {sys.executable}, got {program}; {way_out}, or "
                f"remove {spec.resource_dir}"
            )


def _checks(configs: Configs) -> Iterator[Check]:
    """What notebooks refuse themselves, once they run."""
    for name, config in configs.items():
        settings = dict(config)
        yield name, partial(select_device, settings.get("device", "auto"))
        if settings.get("corpus"):
            path = ROOT / settings["corpus"]
            recipe = sources.recipe_to_build(path)
            for source in recipe.sources if recipe else ():
                yield name, partial(sources.refuse_out_of_reach, source)
            if not recipe:
                yield name, partial(corpus.load, path)
        if settings.get("tokenizer_file"):
            yield name, partial(gpt2_tokenizer, ROOT / settings["tokenizer_file"])
        yield from ((name, check) for check in pages()[name].checks(config))


def _memory(configs: Configs) -> Iterator[Problem]:
    """Trainings that the device cannot hold, by construction."""
    for name, config in configs.items():
        if (device := _device(config)) is None:
            continue
        if device.type == "cuda":  # a GPU each; what is free only a context tells, which would stay
            at_once, free = 1, torch.cuda.get_device_properties(device).total_memory
        else:
            at_once = getattr(config, "cells_at_once", 1) or 1
            free = available_memory_bytes(device)
        for training in pages()[name].trainings(config):
            held, peak = (at_once * size / GIB for size in _training_bytes(training, device))
            if peak > (here := free / GIB):
                network = f"{f'{at_once} trainings' if at_once > 1 else 'a training'} of "
                rule = f"{network}{training.base[0]} need {peak:.1f} GiB, {here:.1f} GiB are there"
                way_out = "lower pass_tokens, the size of the network, or how many run at once"
                yield Problem(name, rule, way_out, "error" if held > here else "note")
                break


def _training_bytes(training: TrainingConfig, device: torch.device) -> tuple[int, int]:
    """What a training holds between its steps, and at its peak where nothing is compiled."""
    shape = Shape(training.pass_tokens // training.context_length, training.context_length)
    half = "bf16" if training.precision == "auto" else training.precision
    step = Step(shape, half, device.type)
    parts = training_memory(training.network, step, training.loss_chunk_tokens)
    return parts["parameters"] + parts["optimizer"], parts["peak"]


def _device(config: Strict) -> torch.device | None:
    try:
        return select_device(getattr(config, "device", "auto"))
    except ConfigError:  # told as a problem of its own
        return None


def _written(configs: Configs, book: bool) -> Iterator[tuple[Path, int, str]]:
    """Folders that a report writes to, about how many bytes, and what names another folder."""
    texts = dict[Path, int]()
    for name, config in configs.items():
        page = pages()[name]
        yield home(page.folder), RUN_BYTES, VARIABLES[page.folder]
        sizes = [
            (getattr(config, "keep_checkpoints", 1) + 2, _checkpoint_bytes(training))
            for training in page.trainings(config)
        ]
        if sizes:
            yield CHECKPOINTS, max(n * size for n, size in sizes), "PSANNLM_CHECKPOINTS"
            path = ROOT / getattr(config, "corpus", "")
            recipe = sources.recipe_to_build(path)
            texts[path] = round(recipe.megabytes * 10**6) if recipe else _size(path)
            if recipe:  # the text, and what it is cleaned from
                yield corpus.CORPORA, 2 * texts[path], ""
    if texts:  # two bytes a token, a token a byte at most, and archives
        yield CACHE, 3 * sum(texts.values()), "PSANNLM_CACHE"
    if torch.cuda.device_count() > 1:
        yield Path("/dev/shm"), SHARED_BYTES, "--shm-size of the container"
    yield ROOT / "_build", RUN_BYTES * len(configs) + BOOK_BYTES * book, ""
    yield Path(tempfile.gettempdir()), RUN_BYTES, "TMPDIR"
    yield Path(jupyter_runtime_dir()), MIB, "JUPYTER_RUNTIME_DIR"


def _checkpoint_bytes(training: TrainingConfig) -> int:
    parts = training_bytes(cost_of(training.network, Shape(1, 1)).n_parameters)
    return parts["parameters"] + parts["optimizer"]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _room(written: Iterable[tuple[Path, int, str]]) -> Iterator[Problem]:
    """Folders that cannot be written, and file systems without room for all that they get."""
    disks = dict[int, tuple[Path, int]]()
    for folder, n_bytes, variable in dict.fromkeys(written):
        whole = folder.absolute()
        place = next(path for path in (whole, *whole.parents) if os.path.lexists(path))
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            reason = "belongs to another or is read-only" if place.is_dir() else "is no folder"
            way_out = f"name another folder by {variable}" if variable else "copy the project"
            way_out += ", or make it writable"
            yield Problem("", f"{folder} cannot be written: {place} {reason}", way_out)
        else:
            disk = place.stat().st_dev
            place, before = disks.get(disk, (place, 0))
            disks[disk] = place, before + n_bytes
    for place, n_bytes in disks.values():
        if n_bytes > (free := shutil.disk_usage(place).free):
            here = f"{free / GIB:.2f} GiB are free on the file system of {place}"
            yield Problem("", f"{here}, {n_bytes / GIB:.2f} are written to it", "make room there")


def _notes(configs: Configs) -> Iterator[Problem]:
    """What a report does without."""
    for name, config in configs.items():
        path = ROOT / getattr(config, "corpus", "")
        if recipe := sources.recipe_to_build(path):
            size = f"about {recipe.megabytes:g} MB" if recipe.megabytes else "of unknown size"
            yield Problem(name, f"the corpus {recipe.name}, {size}, is built first", "", "note")
        device = _device(config)
        if getattr(config, "compile", False) and device and (lacking := missing_compiler(device)):
            way_out = "install it to compile what the pages call compiled"
            yield Problem(name, f"all runs eagerly: {lacking}", way_out, "note")
    if unknown := describe_git().get("unknown"):
        yield Problem("", f"runs will not name the code that ran: {unknown}", "", "note")
    try:
        find_browser()
    except ConfigError as error:
        yield Problem("", f"there will be no PDF: {error}", "", "note")
