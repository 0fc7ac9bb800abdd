"""A process that has loaded all that cells need, and forks a fresh process for each.

Loading torch takes ten times as long as measuring a small network. What is forked has never built,
timed or freed anything. Not for CUDA, whose driver does not outlive a fork.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from psannlm.bench.environment import worker_environment

POLL_SECONDS = 0.02
ASK_SECONDS = 0.2
"""How often it is asked whether a process is to be stopped; more often would disturb it."""


def never() -> bool:
    """Says of nothing that it is to be stopped."""
    return False


class ForkServer(contextlib.AbstractContextManager["ForkServer"]):
    """Cells of one module, each in a process of its own; used as a context.

    Args:
        module: Its `main` is given the paths of a task and of a result, as text.
        cache: Where compiled code is kept.
        loads: Further modules that cells would load each for itself.
        variables: Further variables of the environment.
    """

    def __init__(
        self,
        module: str,
        cache: Path,
        *,
        loads: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.command = [sys.executable, "-m", "psannlm.bench.fork_server", module, *loads]
        self.environment = worker_environment(cache, variables)
        self.process: subprocess.Popen[str] | None = None

    def __exit__(self, *_: object) -> None:
        self._close()

    def run(
        self,
        task: Path,
        result: Path,
        log: Path,
        timeout_seconds: float,
        stopped: Callable[[], bool] = never,
    ) -> int | None:
        """Exit code of a fresh process, negative for a signal.

        None if it ran out of time, or if `stopped`, asked again and again, said so.
        """
        if self.process is None:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=self.environment,
            )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = [str(task), str(result), str(log), timeout_seconds]
        with contextlib.suppress(BrokenPipeError):  # it has died, and there will be no answer
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        while not select.select([self.process.stdout], [], [], ASK_SECONDS)[0]:
            if stopped():
                self._close()
                return None
        answer = self.process.stdout.readline()
        code: int | None = json.loads(answer) if answer else self._close()
        return code

    def _close(self) -> int:
        """End the process, if there is one, by ending its input; returns its exit code."""
        process, self.process = self.process, None
        if process is None:
            return 0
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.read()  # until it has ended the cell that may still run
        process.stdout.close()
        return process.wait()


def serve(work: Callable[[Sequence[str]], None]) -> None:
    """Answer every request on standard input with the end of a fresh process."""
    for line in sys.stdin:
        task, result, log, timeout_seconds = json.loads(line)
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            _run_forked(work, task, result, log)
        sys.stdout.write(json.dumps(_wait(pid, timeout_seconds)) + "\n")
        sys.stdout.flush()


def _run_forked(work: Callable[[Sequence[str]], None], task: str, result: str, log: str) -> None:
    """The forked process: never returns."""
    code = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for descriptor in (1, 2):
            os.dup2(said, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        work([task, result])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, timeout_seconds: float) -> int | None:
    """Wait for the end, until time is up or nobody asks any more."""
    last = time.monotonic() + timeout_seconds
    while time.monotonic() < last:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        # Nothing is asked while a cell runs: input that can be read has ended.
        if select.select([sys.stdin], [], [], POLL_SECONDS)[0]:
            break
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


if __name__ == "__main__":
    module, *_ = [importlib.import_module(name) for name in sys.argv[1:]]
    gc.freeze()  # what is loaded stays: no cell need look through it
    serve(module.main)
