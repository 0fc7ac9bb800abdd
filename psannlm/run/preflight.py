"""What a report needs is checked before it begins: all problems at once, and nothing is written.

An error stops a report before its first notebook; a note says what it will do without.
"""

import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import itemgetter
from os.path import lexists
from pathlib import Path
from typing import NamedTuple

import torch

from psannlm import CACHE, CHECKPOINTS, ROOT
from psannlm.bench.environment import available_memory_bytes
from psannlm.bench.provenance import describe_git
from psannlm.config import packages
from psannlm.config.parse import parse
from psannlm.config.schema import ConfigError, Strict
from psannlm.config.training import TrainingConfig
from psannlm.corpora import corpus, fetch
from psannlm.device import missing_compiler, select_device
from psannlm.evidence.notebook import uncommitted
from psannlm.evidence.runs import VARIABLES, home
from psannlm.model.activations import training_memory
from psannlm.model.cost import Shape
from psannlm.model.saved_activations import Step
from psannlm.pages.registry import pages
from psannlm.places import located
from psannlm.rerun.outcome import refuse_other_text
from psannlm.run import estimate
from psannlm.run.preset import find_browser, interrupted
from psannlm.train.tokenizer import gpt2_tokenizer

GIB, MIB = 2**30, 2**20
RUN_BYTES = 20 * MIB  # of a run with its notebook, many times that of any committed one
BOOK_BYTES = 100 * MIB  # of the built book with the files that it is made from

Configs = Mapping[str, Strict]  # by notebook
Check = tuple[str, Callable[[], object]]  # whose it is, and what raises a ConfigError


class Problem(NamedTuple):
    """What stops a report, or, if it is no error, what it will do without."""

    notebooks: str  # empty for the whole report
    text: str  # the rule, the value, and the way out
    is_error: bool = True

    def __str__(self) -> str:
        parts = ("error" if self.is_error else "note", self.notebooks, self.text)
        return ": ".join(filter(None, parts))


def of_preset(preset: str, only: Sequence[str], book: bool) -> list[Problem]:
    """What is in the way of a preset's notebooks, or of some; see `problems`."""
    configs = dict[str, Strict]()

    def read(name: str) -> None:
        [(_, configs[name])] = estimate.jobs(preset, [name]).values()

    names = only or estimate.chosen(preset)
    return merged([*refused(("", partial(read, n)) for n in names), *problems(configs, book=book)])


def of_run(folder: Path, book: bool) -> list[Problem]:
    """What is in the way of going on with an interrupted run; see `problems`."""
    configs = dict[str, Strict]()

    def read() -> None:
        run = interrupted(folder)
        refuse_other_text(run)
        asked, page = run.manifest["parameters"], pages()[run.manifest["notebook"]]
        configs[page.name] = parse(page.config, asked, source=f"parameters of {run.name}")

    return [*refused([("", read)]), *problems(configs, book=book)]


def problems(configs: Configs, *, book: bool = True) -> list[Problem]:
    """All that is in the way of a report with these configurations, errors first."""
    stopping = [*_packages(), *refused(_checks(configs)), *_memory(configs)]
    return merged([*stopping, *_room(_written(configs, book)), *_notes(configs)])


def merged(problems: Iterable[Problem]) -> list[Problem]:
    """Errors first; what several notebooks have in their way stands once, with all their names."""
    names = defaultdict[tuple[str, bool], dict[str, None]](dict)
    for notebook, text, is_error in problems:
        names[text, is_error][notebook] = None
    found = [Problem(", ".join(notebooks), *problem) for problem, notebooks in names.items()]
    return sorted(found, key=lambda problem: not problem.is_error)


def refused(checks: Iterable[Check]) -> Iterator[Problem]:
    """What the checks refuse."""
    for name, check in checks:
        try:
            check()
        except ConfigError as error:
            yield Problem(name, str(error))


def _packages() -> Iterator[Problem]:
    for requirement, version in packages.unfit():
        needed = f"{requirement} is required, {version or 'none'} is installed"
        yield Problem("", f"{needed}; run: {packages.installing()}", is_error=not version)


def _checks(configs: Configs) -> Iterator[Check]:
    """What notebooks refuse themselves, once they run."""
    for name, config in configs.items():
        page, settings = pages()[name], dict(config)
        yield name, partial(select_device, settings.get("device", "auto"))
        if settings.get("corpus"):
            path = located(settings["corpus"])
            if recipe := corpus.recipe_to_build(path):
                yield from ((name, partial(fetch.refuse_out_of_reach, s)) for s in recipe.sources)
            else:
                yield name, partial(_refuse_short, path, page.trainings(config))
        if settings.get("tokenizer_file"):
            yield name, partial(gpt2_tokenizer, located(settings["tokenizer_file"]))
        yield from ((name, check) for check in page.checks(config))


def _refuse_short(path: Path, trainings: Iterable[TrainingConfig]) -> None:
    """Raise ConfigError if a text cannot be read, or holds no sequence of a training."""
    n_bytes = corpus.load(path).n_bytes("train")
    longest = max((training.context_length for training in trainings), default=0)
    if n_bytes < longest:  # a token is a byte or more
        rule = f"{path} must have {longest} tokens to train on, got {n_bytes} bytes"
        raise ConfigError(f"{rule}; shorten context_length, or give more text")


def _memory(configs: Configs) -> Iterator[Problem]:
    """Trainings that the device cannot hold, by construction; a note if only their peak is over."""
    for name, config in configs.items():
        trainings = [*pages()[name].trainings(config)]
        if not trainings or not (device := estimate.device_of(config)):
            continue
        if device.type == "cuda":  # a GPU each; what is free only a context tells, which would stay
            at_once, free = 1, torch.cuda.get_device_properties(device).total_memory
        else:
            at_once = getattr(config, "cells_at_once", 1) or 1
            free = available_memory_bytes(device)
        sizes = (_training_bytes(training, device.type) for training in trainings)
        kept, peak = (at_once * n_bytes for n_bytes in max(sizes, key=itemgetter(1)))
        if peak > free:
            needed = f"trainings need {peak / GIB:.1f} GiB at a time, {free / GIB:.1f} GiB are free"
            way_out = "lower pass_tokens, the size of the network, or cells_at_once"
            yield Problem(name, f"{needed}; {way_out}", is_error=kept > free)


def _training_bytes(training: TrainingConfig, device_type: str) -> tuple[int, int]:
    """What a training keeps between its steps, and its peak where nothing is compiled."""
    shape = Shape(training.pass_tokens // training.context_length, training.context_length)
    precision = "bf16" if training.precision == "auto" else training.precision
    step = Step(shape, precision, device_type)
    parts = training_memory(training.network, step, training.loss_chunk_tokens)
    return parts["parameters"] + parts["optimizer"], parts["peak"]


def _written(configs: Configs, book: bool) -> Iterator[tuple[Path, int, str]]:
    """Folders that a report writes to, about how many bytes, and what names another folder."""
    for name, config in configs.items():
        page, path = pages()[name], located(getattr(config, "corpus", ""))
        yield home(page.folder), RUN_BYTES, VARIABLES[page.folder]
        if weights := [_training_bytes(one, "cpu")[0] for one in page.trainings(config)]:
            kept = getattr(config, "keep_checkpoints", 1) + 2  # the best, and one being written
            yield CHECKPOINTS, kept * max(weights), "PSANNLM_CHECKPOINTS"
            text_bytes = path.stat().st_size if path.is_file() else 0
            if recipe := corpus.recipe_to_build(path):  # the text, and what it is cleaned from
                text_bytes = round(recipe.megabytes * 10**6)
                yield path.parent, 2 * text_bytes, ""
            yield CACHE, 3 * text_bytes, "PSANNLM_CACHE"  # tokens of two bytes each, archives
    yield ROOT / "_build", RUN_BYTES * len(configs) + BOOK_BYTES * book, ""


def _room(written: Iterable[tuple[Path, int, str]]) -> Iterator[Problem]:
    """Folders that cannot be written, and file systems without room for all that they get."""
    needed, places = Counter[int](), dict[int, Path]()  # by file system
    for folder, n_bytes, variable in written:
        folder = folder.absolute()
        place = next(path for path in (folder, *folder.parents) if lexists(path))
        if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
            disk = place.stat().st_dev
            needed[disk] += n_bytes
            places.setdefault(disk, place)
        else:
            reason = "belongs to another or is read-only" if place.is_dir() else "is no folder"
            way_out = f"name another folder by {variable}" if variable else "copy the project"
            text = f"{folder} cannot be written: {place} {reason}; {way_out}, or make it writable"
            yield Problem("", text)
    for disk, place in places.items():
        if needed[disk] > (free := shutil.disk_usage(place).free):
            here = f"{free / GIB:.2f} GiB are free on the file system of {place}"
            text = f"{here}, {needed[disk] / GIB:.2f} are written to it; make room there"
            yield Problem("", text)


def _notes(configs: Configs) -> Iterator[Problem]:
    """What a report does first, or without."""
    for name, config in configs.items():
        if recipe := corpus.recipe_to_build(located(getattr(config, "corpus", ""))):
            size = f"about {recipe.megabytes:g} MB" if recipe.megabytes else "of unknown size"
            yield Problem(name, f"the corpus {recipe.name}, {size}, is built first", False)
        if edited := uncommitted(name):
            way_out = "commit the notebook, or restore it"
            yield Problem(name, f"its run will not be published, {edited[0]}; {way_out}", False)
        device = estimate.device_of(config) if getattr(config, "compile", False) else None
        if device and (lacking := missing_compiler(device)):
            yield Problem(name, f"all runs eagerly: {lacking}", False)
    if unknown := describe_git().get("unknown"):
        yield Problem("", f"runs will not name the code that ran: {unknown}", False)
    for problem in refused([("there will be no PDF", find_browser)]):
        yield problem._replace(is_error=False)
