"""Calls in new processes: started together, watched, stopped, their results read.

A server that has loaded what checks need forks them, so that they start at once.
"""

import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TypeVar

import torch

from psannlm.bench.processes import last_words

ResultT = TypeVar("ResultT")


class ProcessError(Exception):
    """A process that left no result; its text says what became of it."""


def in_processes(calls: Sequence[Callable[[], ResultT]], timeout_seconds: float) -> list[ResultT]:
    """What each call returns in a new process of its own.

    Calls are found by their names there; tensors that they return must be on the CPU. ProcessError
    if a process failed, or they took too long: then all of them are stopped.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "psannlm.checks.suite"])
    n_threads = max(1, torch.get_num_threads() // len(calls))
    processes: list[BaseProcess] = []
    with tempfile.TemporaryDirectory(prefix="psannlm-check-") as name:
        files = [Path(name, f"{i}.pt") for i in range(len(calls))]
        try:
            for call, file in zip(calls, files, strict=True):
                process = context.Process(target=_begin, args=(call, file, n_threads))
                process.start()
                processes.append(process)
            if ending := _watch(processes, timeout_seconds):
                logs = (file.with_suffix(".txt") for file in files)
                words = "; ".join(filter(None, map(last_words, logs)))
                said = f"last words: {words}" if words else "it said nothing"
                raise ProcessError(f"{ending}; {said}")
        finally:
            for started in processes:
                started.kill()
                started.join()
        return [torch.load(file, weights_only=False) for file in files]


def _begin(call: Callable[[], object], file: Path, n_threads: int) -> None:
    """Make the call, in a new process, which ends when the one that started it does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with file.with_suffix(".txt").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    torch.set_num_threads(n_threads)
    torch.backends.cudnn.allow_tf32 = False  # as in the process that started this one
    torch.save(call(), file)


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _watch(processes: Sequence[BaseProcess], seconds: float) -> str:
    """Until all have ended, one has failed, or time is over: the others would wait for it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        codes = [process.exitcode for process in processes]
        for i, code in enumerate(codes):
            if code:
                how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
                return f"process {i} of {len(processes)} {how}"
        if all(code == 0 for code in codes):
            return ""
        time.sleep(0.02)
    return f"timed out after {seconds:g} s"
