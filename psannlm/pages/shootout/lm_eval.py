"""Tasks of lm-evaluation-harness asked of a trained network, or refused before it is trained."""

import contextlib
import functools
import importlib
import io
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from psannlm import CACHE, ROOT
from psannlm.config.parse import nearest
from psannlm.config.schema import ConfigError
from psannlm.model.transformer import Transformer
from psannlm.pages.shootout.records import Score
from psannlm.train.tokenizer import Tokenizer

FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow")
"""What a task of local files gives as its `dataset_path`."""

GUESSABLE = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")
"""Shares of right answers, of which a blind guess has one too."""

RESAMPLES = 1000
"""Bootstrap samples behind the standard error of a metric that is no mean."""

LOGS = ("lm_eval", "datasets", "huggingface_hub")
"""Loggers that say only errors while tasks are read and asked."""

SEED = 0
"""Of the examples that a task may put before its items."""


def refuse_missing(tasks: Sequence[str], folder: str) -> None:
    """Refuse tasks that cannot be asked, before anything is trained.

    Their items are read once, so that those of the hub are on this machine when they are needed.

    Args:
        tasks: Names.
        folder: Of task definitions of one's own, from the project's folder if relative; empty for
            those that lm-eval knows.

    Raises:
        ConfigError: lm-eval is not installed, there is no such folder, a name is unknown, or the
            items of a task cannot be read.
    """
    _load(tasks, folder)


def evaluate_tasks(
    model: Transformer,
    tokenizer: Tokenizer,
    *,
    tasks: Sequence[str],
    limit: int,
    folder: str,
    device: torch.device,
    precision: str,
    batch: int,
) -> tuple[Score, ...]:
    """Every metric of every task, each on the task's first items.

    Args:
        model: On `device`; its mode is what it was before, afterwards.
        tokenizer: The one it was trained with.
        tasks: Names; lm-eval's own may name groups of tasks.
        limit: Most items of each task.
        folder: As of `refuse_missing`.
        device: Where the network is.
        precision: Of matrix products.
        batch: The most texts at a time.

    Raises:
        ConfigError: As of `refuse_missing`.
    """
    found = _load(tasks, folder)
    harness: Any = _imported("lm_eval.evaluator")
    asked = _adapter().HarnessModel(
        model, tokenizer, device=device, precision=precision, batch=batch
    )
    was_training = model.training
    model.eval()
    try:
        with _silence():
            results = harness.evaluate(
                lm=asked, task_dict={"tasks": found}, limit=limit, bootstrap_iters=RESAMPLES
            )
    finally:
        model.train(was_training)
    return tuple(score for name, task in found.items() for score in _scores(name, task, results))


def _scores(name: str, task: Any, results: Mapping[str, Any]) -> Iterator[Score]:
    """The metrics of one task, out of all that lm-eval returns."""
    mean = _imported("lm_eval.api.metrics").mean
    samples = results["samples"][name]
    for key, value in results["results"][name].items():
        metric, comma, way = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr = results["results"][name][f"{metric}_stderr,{way}"]
        of_items = [sample[metric] for sample in samples if sample["filter"] == way]
        is_mean = task.aggregation().get(metric, mean) is mean
        yield Score(
            task=name,
            metric=metric if way == "none" else key,
            value=float(value),
            stderr=float(stderr) if _is_number(stderr) else None,
            n_items=len(of_items),
            chance=_chance(task, samples) if metric in GUESSABLE else None,
            items=tuple(float(item) for item in of_items) if is_mean else (),
        )


def _chance(task: Any, samples: Sequence[Mapping[str, Any]]) -> float | None:
    """Share of items that a blind guess gets right; None if there is nothing to choose from."""
    if task.OUTPUT_TYPE != "multiple_choice":
        return None
    shares = []
    for sample in samples:
        right = sample["target"]
        n_right = len(set(right)) if isinstance(right, list) else 1
        shares.append(n_right / len(task.doc_to_choice(sample["doc"])))
    return math.fsum(shares) / len(shares)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _load(tasks: Sequence[str], folder: str) -> dict[str, Any]:
    """Tasks by name, with their items."""
    manager = _tasks_of(folder) if folder else _all_tasks()
    # A folder's groups and tags would lead past what `_read` does about its files.
    known = manager.all_subtasks if folder else manager.all_tasks
    found: dict[str, Any] = {}
    for name in tasks:
        if name not in known:
            listed = f" There are: {', '.join(known) or 'none'}" if folder else ""
            raise ConfigError(
                f"lm_eval_tasks: unknown task {name!r}{nearest(name, known) or '.'}{listed}"
            )
        found |= _read(manager, name, own=bool(folder))
    for task in found.values():
        task.set_fewshot_seed(seed=SEED)
        if task.OUTPUT_TYPE == "generate_until":
            _adapter().refuse_unknown(task.config.generation_kwargs or {})
    return found


def _tasks_of(folder: str) -> Any:
    """The index of a folder's task definitions."""
    place = ROOT / folder
    if not place.is_dir():
        raise ConfigError(
            f"lm_eval_folder must be a folder of task definitions, got {folder}, which does not "
            "exist; name one such as params/evals, or leave it empty for lm-eval's own tasks"
        )
    tasks = _imported("lm_eval.tasks")
    with _silence():
        return tasks.TaskManager(include_path=str(place), include_defaults=False)


@functools.cache
def _all_tasks() -> Any:
    """The index of lm-eval's own task definitions, which takes seconds to make."""
    tasks = _imported("lm_eval.tasks")
    with _silence():
        return tasks.TaskManager()


def _read(manager: Any, name: str, *, own: bool) -> dict[str, Any]:
    """The tasks that a name stands for, each with its items."""
    config = manager.task_index[name].cfg or {}
    arguments = config.get("dataset_kwargs") or {}
    is_local = own and config.get("dataset_path") in FILE_FORMATS and "://" not in str(arguments)
    spec: Any = name
    if is_local:
        # An inline group is lm-eval's way to load a task with a changed definition.
        changed = {"task": name, "dataset_kwargs": _local(name, arguments)}
        spec = {"group": f"{name} of local files", "task": [changed]}
    try:
        with _silence(), _offline() if is_local else contextlib.nullcontext():
            tasks: dict[str, Any] = manager.load([spec])["tasks"]
    except Exception as error:  # the client of the hub raises errors of many libraries
        first = (str(error).splitlines() or [""])[0]
        way_out = (
            "compare them with the task's definition"
            if is_local
            else "check the network connection, or name an lm_eval_folder with tasks of local files"
        )
        raise ConfigError(
            f"lm_eval_tasks: the items of {name!r} cannot be read: "
            f"{type(error).__name__}: {first}; {way_out}"
        ) from None
    return tasks


def _local(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `load_dataset` whose files are found from any working folder.

    What the client makes of the files goes to the project's cache, not to the home folder.
    """
    files = arguments.get("data_files") or {}
    if not isinstance(files, Mapping):
        files = {"train": files}  # as the client itself understands it
    found = {split: _absolute(name, paths) for split, paths in files.items()}
    return {**arguments, "data_files": found, "cache_dir": str(CACHE / "evals")}


def _absolute(name: str, paths: str | Sequence[str]) -> list[str]:
    places = [ROOT / path for path in ([paths] if isinstance(paths, str) else paths)]
    for place in places:
        if "*" not in place.name and not place.exists():
            raise ConfigError(
                f"lm_eval_tasks: the items of {name!r} must be in {place}, which does not exist; "
                "put them there, in the form that the head of the task's definition describes"
            )
    return [str(place) for place in places]


def _adapter() -> Any:
    """The module that imports lm-eval."""
    return importlib.import_module("psannlm.pages.shootout.lm_eval_model")


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError:
        raise ConfigError(
            "with_lm_eval needs lm-evaluation-harness, which is missing; "
            "run: pip install 'psannlm-report[lm-eval]', or turn with_lm_eval off"
        ) from None


@contextlib.contextmanager
def _offline() -> Iterator[None]:
    """Local files are read without a word to the hub, which counts readers otherwise."""
    config: Any = _imported("datasets.config")
    before = config.HF_HUB_OFFLINE
    config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        config.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """No progress bars, no log but of errors, and no processes of its own for a bootstrap."""
    levels = {log: log.level for log in map(logging.getLogger, LOGS)}
    alone = os.environ.get("DISABLE_MULTIPROC")
    for log in levels:
        log.setLevel(logging.ERROR)
    os.environ["DISABLE_MULTIPROC"] = "1"
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        for log, level in levels.items():
            log.setLevel(level)
        if alone is None:
            del os.environ["DISABLE_MULTIPROC"]
        else:
            os.environ["DISABLE_MULTIPROC"] = alone
