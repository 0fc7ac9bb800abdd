"""What a report needs is checked before it begins: all problems at once, and nothing is written.

An error stops a report before its first notebook; a note says what it will do without.
"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
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
from psannlm.config.parse import parse, read_parameters
from psannlm.config.schema import ConfigError, Strict
from psannlm.config.training import TrainingConfig
from psannlm.corpora import corpus, sources
from psannlm.device import missing_compiler, select_device
from psannlm.evidence.notebook import NOTEBOOKS, uncommitted
from psannlm.evidence.runs import VARIABLES, home
from psannlm.evidence.session import configuration
from psannlm.model.activations import training_memory
from psannlm.model.cost import Shape
from psannlm.model.saved_activations import Step
from psannlm.pages.registry import pages
from psannlm.places import located, recall
from psannlm.rerun.outcome import refuse_other_text
from psannlm.run import estimate
from psannlm.run.preset import find_browser, interrupted
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


def of_preset(preset: str, only: Sequence[str], book: bool) -> list[Problem]:
    """What is in the way of a preset's notebooks, or of some; see `problems`."""
    names, configs = list[str](), dict[str, Strict]()

    def choose(*one: str) -> None:
        names.extend(estimate.chosen(preset, one))

    def read(name: str) -> None:
        [path] = estimate.jobs(preset, [name]).values()
        configs[name] = configuration(pages()[name], read_parameters(path), estimate.shown(path))

    wrong = [*refused(("", partial(choose, *one)) for one in ([[name] for name in only] or [[]]))]
    wrong += refused(("", partial(read, name)) for name in dict.fromkeys(names))
    return [*wrong, *problems(configs, book=book)]


def of_run(folder: Path, book: bool) -> list[Problem]:
    """What is in the way of going on with an interrupted run; see `problems`."""
    configs = dict[str, Strict]()

    def read() -> None:
        run = interrupted(folder)
        recall(run.folder.name)
        refuse_other_text(run)
        asked, page = run.manifest["parameters"], pages()[run.manifest["notebook"]]
        configs[page.name] = parse(page.config, asked, source=f"parameters of {run.name}")

    return [*refused([("", read)]), *problems(configs, book=book)]


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
        rule = f"{requirement} is required, {version or 'none'} is installed"
        yield Problem("", rule, f"run: {packages.installing()}", "note" if version else "error")


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
            path = located(settings["corpus"])
            recipe = sources.recipe_to_build(path)
            for source in recipe.sources if recipe else ():
                yield name, partial(sources.refuse_out_of_reach, source)
            if not recipe:
                yield name, partial(_refuse_short, path, [*pages()[name].trainings(config)])
        if settings.get("tokenizer_file"):
            yield name, partial(gpt2_tokenizer, located(settings["tokenizer_file"]))
        yield from ((name, check) for check in pages()[name].checks(config))


def _refuse_short(path: Path, trainings: Iterable[TrainingConfig]) -> None:
    """Raise ConfigError if a text cannot be read, or holds no sequence of a training."""
    n_bytes = corpus.load(path).n_bytes("train")
    for length in (training.context_length for training in trainings):
        if n_bytes < length:  # a token is a byte or more
            rule = f"{path} must have {length} tokens to train on, got {n_bytes} bytes"
            raise ConfigError(f"{rule}; shorten context_length, or give more text")


def _memory(configs: Configs) -> Iterator[Problem]:
    """Trainings that the device cannot hold, by construction; a note if only their peak is over."""
    for name, config in configs.items():
        device, trainings = _device(config), [*pages()[name].trainings(config)]
        if device is None or not trainings:
            continue
        if device.type == "cuda":  # a GPU each; what is free only a context tells, which would stay
            at_once, free = 1, torch.cuda.get_device_properties(device).total_memory
        else:
            at_once = getattr(config, "cells_at_once", 1) or 1
            free = available_memory_bytes(device)
        needed = (_training_bytes(training, device.type) for training in trainings)
        held, peak = (at_once * size for size in max(needed, key=itemgetter(1)))
        if peak > free:
            rule = f"trainings need {peak / GIB:.1f} GiB at a time, {free / GIB:.1f} GiB are there"
            way_out = "lower pass_tokens, the size of the network, or cells_at_once"
            yield Problem(name, rule, way_out, "error" if held > free else "note")


def _training_bytes(training: TrainingConfig, device_type: str) -> tuple[int, int]:
    """What a training keeps between its steps, and its peak where nothing is compiled."""
    shape = Shape(training.pass_tokens // training.context_length, training.context_length)
    precision = "bf16" if training.precision == "auto" else training.precision
    step = Step(shape, precision, device_type)
    parts = training_memory(training.network, step, training.loss_chunk_tokens)
    return parts["parameters"] + parts["optimizer"], parts["peak"]


def _device(config: Strict) -> torch.device | None:
    try:
        return select_device(getattr(config, "device", "auto"))
    except ConfigError:  # told as a problem of its own
        return None


def _written(configs: Configs, book: bool) -> Iterator[tuple[Path, int, str]]:
    """Folders that a report writes to, about how many bytes, and what names another folder."""
    for name, config in configs.items():
        page, path, size = pages()[name], located(getattr(config, "corpus", "")), 0
        yield home(page.folder), RUN_BYTES, VARIABLES[page.folder]
        kept = getattr(config, "keep_checkpoints", 1) + 2  # the best, and one being written
        if weights := [_training_bytes(one, "cpu")[0] for one in page.trainings(config)]:
            yield CHECKPOINTS, kept * max(weights), "PSANNLM_CHECKPOINTS"
            if recipe := sources.recipe_to_build(path):  # the text, and what it is cleaned from
                size = round(recipe.megabytes * 10**6)
                yield path.parent, 2 * size, ""
            elif path.is_file():
                size = path.stat().st_size
        if weights or page.installs:  # tokens of two bytes each, archives, packages
            yield CACHE, 3 * size, "PSANNLM_CACHE"
    if torch.cuda.device_count() > 1:
        yield Path("/dev/shm"), SHARED_BYTES, "--shm-size of the container"
    yield ROOT / "_build", RUN_BYTES * len(configs) + BOOK_BYTES * book, ""
    yield Path(os.environ.get("TMPDIR", "/tmp")), RUN_BYTES, "TMPDIR"
    yield Path(jupyter_runtime_dir()), MIB, "JUPYTER_RUNTIME_DIR"


def _room(written: Iterable[tuple[Path, int, str]]) -> Iterator[Problem]:
    """Folders that cannot be written, and file systems without room for all that they get."""
    needed, disks = Counter[tuple[Path, str]](), dict[int, tuple[Path, int]]()
    for folder, n_bytes, variable in written:
        needed[folder.absolute(), variable] += n_bytes
    for (folder, variable), n_bytes in needed.items():
        place = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
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
    """What a report does first, or without."""
    for name, config in configs.items():
        if recipe := sources.recipe_to_build(located(getattr(config, "corpus", ""))):
            size = f"about {recipe.megabytes:g} MB" if recipe.megabytes else "of unknown size"
            yield Problem(name, f"the corpus {recipe.name}, {size}, is built first", "", "note")
        if edited := uncommitted(name):
            rule = f"its run will not be published, {edited[0]}"
            yield Problem(name, rule, "commit the notebook, or restore it", "note")
    compiled = {n: _device(config) for n, config in configs.items() if dict(config).get("compile")}
    for lacking in {missing_compiler(device) for device in compiled.values() if device} - {None}:
        yield Problem(", ".join(compiled), f"all runs eagerly: {lacking}", "", "note")
    if unknown := describe_git().get("unknown"):
        yield Problem("", f"runs will not name the code that ran: {unknown}", "", "note")
    for problem in refused([("there will be no PDF", find_browser)]):
        yield problem._replace(severity="note")
