"""Tasks of lm-evaluation-harness asked of a trained network, or refused before it is trained.

Imported only where tasks are asked for: lm-eval is an extra, and takes seconds to load.

Every text follows an end of text, as each document does in training. A context and its continuation
are encoded as one text, so that a word begins with its space as in training; white space at the end
of a context counts to the continuation. Where a token would reach over the border, both are encoded
by themselves. What is longer than the network was trained on loses its beginning.

Shape letters: B batch, T tokens, N targets, D d_model.
"""

import contextlib
import io
import logging
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from psannlm import CACHE, ROOT
from psannlm.config import packages
from psannlm.config.parse import nearest
from psannlm.config.schema import ConfigError
from psannlm.device import autocast
from psannlm.model.loss import IGNORED, token_losses
from psannlm.model.transformer import Transformer
from psannlm.pages.shootout.records import Score
from psannlm.places import located
from psannlm.train.tokenizer import Tokenizer

try:
    import datasets.config
    import lm_eval.evaluator
    from lm_eval.api.instance import Instance
    from lm_eval.api.metrics import mean
    from lm_eval.api.model import TemplateLM
    from lm_eval.tasks import TaskManager
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ModuleNotFoundError:
    raise ConfigError(
        "with_lm_eval needs lm-evaluation-harness, which is missing; "
        f"run: {packages.installing('lm-eval')}, or turn with_lm_eval off"
    ) from None

FILE_FORMATS = ("json", "csv", "parquet", "text", "arrow")  # `dataset_path` of local files
GUESSABLE = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info")  # a blind guess has a share too

Window = tuple[list[int], list[int]]
"""At least one token, and those to predict after it; together at most one more than the context."""


class HarnessModel(TemplateLM):  # type: ignore[misc]
    """A network in evaluation mode as lm-eval calls it, asked about `batch` texts at a time."""

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, precision: str, batch: int
    ) -> None:
        super().__init__()
        self.network, self.spelling = model, tokenizer
        self.precision, self.batch = precision, batch
        self.longest = model.config.context_length
        self._device = model.lm_head.weight.device

    @property
    def eot_token_id(self) -> int:
        """What stands before every text."""
        return self.spelling.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool = True, **_: Any) -> list[int]:
        """Ids of a text, after an end of text unless `add_special_tokens` is False."""
        start = [self.eot_token_id] if add_special_tokens else []
        return [*start, *self.spelling.encode(string)]

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair: tuple[list[int], list[int]] = super()._encode_pair(context, continuation)
        if self.spelling.decode(pair[0] + pair[1]) == context + continuation:
            return pair
        return self.tok_encode(context), self.spelling.encode(continuation)

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether each token of it was the likeliest."""
        return self._scores([list(self._windows(*ids)) for _, *ids in requests])

    def loglikelihood_rolling(self, requests: Sequence[Instance], **_: Any) -> list[float]:
        """Log-likelihood of each whole text, every token of it predicted once."""
        texts = [self.spelling.encode(request.args[0]) for request in requests]
        scores = self._scores([list(self._rolling(self.eot_token_id, ids)) for ids in texts])
        return [likelihood for likelihood, _ in scores]

    def generate_until(self, requests: Sequence[Instance], **_: Any) -> list[str]:
        """Never asked: `load_tasks` refuses tasks that want text."""
        raise NotImplementedError

    def _windows(self, context: list[int], continuation: list[int]) -> Iterator[Window]:
        """One window, or several if the continuation alone is longer than the network's context."""
        room = self.longest + 1 - len(continuation)
        if room >= 1:
            yield context[-room:], continuation
        else:
            yield from self._rolling(context[-1], continuation)

    def _rolling(self, start: int, ids: list[int]) -> Iterator[Window]:
        """Windows of lm-eval that predict each of `ids` once, the last with all context it fits."""
        for window in get_rolling_token_windows(ids, start, self.longest, context_len=1):
            yield make_disjoint_window(window)

    def _scores(self, texts: Sequence[Sequence[Window]]) -> list[tuple[float, bool]]:
        """Log-likelihood of each text over its windows, and whether greedy decoding gives it."""
        places = [(row, window) for row, windows in enumerate(texts) for window in windows]
        places.sort(key=lambda place: -sum(map(len, place[1])))
        nats, greedy = [0.0] * len(texts), [True] * len(texts)
        for start in range(0, len(places), self.batch):
            part = places[start : start + self.batch]
            losses, hits = self._predict([window for _, window in part])
            for (row, _), loss, hit in zip(part, losses.tolist(), hits.tolist(), strict=True):
                nats[row] += loss
                greedy[row] &= hit
        return [(-loss, hit) for loss, hit in zip(nats, greedy, strict=True)]

    @torch.no_grad()
    def _predict(self, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
        """Nats of each window's targets, (B,) float64, and whether all were likeliest, (B,).

        Rows are filled up on the right, where a causal network does not look.
        """
        given = [torch.tensor((before + targets)[:-1]) for before, targets in windows]
        asked = [torch.tensor([IGNORED] * (len(old) - 1) + targets) for old, targets in windows]
        tokens = pad_sequence(given, batch_first=True).to(self.device)  # (B, T)
        wanted = pad_sequence(asked, batch_first=True, padding_value=IGNORED).to(self.device)
        counts = wanted != IGNORED
        with autocast(tokens.device, self.precision):
            hidden = self.network.hidden(tokens)[counts]  # (N, D)
            losses, hits = token_losses(hidden, self.network.lm_head.weight, wanted[counts])
        rows, n = counts.nonzero()[:, 0], len(windows)  # (N,)
        nats, misses = (torch.bincount(rows, x.double(), minlength=n) for x in (losses, ~hits))
        return nats, misses == 0


def evaluate_tasks(
    model: HarnessModel, *, tasks: Sequence[str], limit: int, folder: str
) -> tuple[Score, ...]:
    """Every metric of every task, each on its first `limit` items at most; see `load_tasks`."""
    found = load_tasks(tasks, folder)
    with _silence():  # a metric that is no mean has its standard error from a bootstrap
        results = lm_eval.evaluator.evaluate(
            lm=model, task_dict={"tasks": found}, limit=limit, bootstrap_iters=1000
        )
    return tuple(score for name, task in found.items() for score in _metrics(name, task, results))


def _metrics(name: str, task: Any, results: Mapping[str, Any]) -> Iterator[Score]:
    """The metrics of one task, out of all that lm-eval returns."""
    samples, metrics = results["samples"][name], results["results"][name]
    for key, value in metrics.items():
        metric, comma, way = key.partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stderr, called = metrics[f"{metric}_stderr,{way}"], metric if way == "none" else key
        error = float(stderr) if isinstance(stderr, int | float) and math.isfinite(stderr) else None
        chance = _chance(task, samples) if metric in GUESSABLE else None
        items = tuple(float(sample[metric]) for sample in samples if sample["filter"] == way)
        known = items if task.aggregation().get(metric, mean) is mean else ()
        yield Score(name, called, float(value), error, len(items), chance, known)


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


def load_tasks(tasks: Sequence[str], folder: str) -> dict[str, Any]:
    """Tasks by name, with their items; those of the hub are on this machine from then on.

    `folder` holds task definitions of one's own, relative to the project's; if it is empty, names
    are those of lm-eval's tasks and groups. ConfigError if there is no such folder, a name is
    unknown, items cannot be read, or a task asks for text.
    """
    manager = _index(folder)
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
    for name, task in found.items():
        task.set_fewshot_seed(seed=0)  # of examples that a task may put before its items
        if task.OUTPUT_TYPE == "generate_until":
            raise ConfigError(
                f"lm_eval_tasks: {name!r} asks for text, only likelihoods are scored; leave it out"
            )
    return found


def _index(folder: str) -> Any:
    """The index of a folder's task definitions, or of lm-eval's own, which takes seconds."""
    place = located(folder)
    if not place.is_dir():
        raise ConfigError(
            f"lm_eval_folder must be a folder of task definitions, got {folder}, which does not "
            "exist; name one such as params/evals, or leave it empty for lm-eval's own tasks"
        )
    own = {"include_path": str(place), "include_defaults": False} if folder else {}
    with _silence():
        return TaskManager(**own)


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
        with _silence(offline=is_local):
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
    found: dict[str, list[str]] = {}
    for split, paths in files.items():
        places = [ROOT / path for path in ([paths] if isinstance(paths, str) else paths)]
        for place in places:
            if "*" not in place.name and not place.exists():
                raise ConfigError(
                    f"lm_eval_tasks: the items of {name!r} must be in {place}, which does not "
                    "exist; put them there, in the form that the head of the task's definition "
                    "describes"
                )
        found[split] = [str(place) for place in places]
    return {**arguments, "data_files": found, "cache_dir": str(CACHE / "evals")}


@contextlib.contextmanager
def _silence(*, offline: bool = False) -> Iterator[None]:
    """No progress bars, no log but of errors, and no processes of its own for a bootstrap.

    If `offline`, not a word to the hub, which counts readers of local files otherwise.
    """
    os.environ["DISABLE_MULTIPROC"] = "1"
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or offline
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
        logging.disable(logging.NOTSET)
