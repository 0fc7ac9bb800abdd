"""The progress bar of a training: step, loss, speed, share of the machine, time left."""

import sys
from typing import IO

from tqdm import tqdm

from psannlm.train.recorder import Progress

LOG_SECONDS = 2.0
"""Between two lines where they are not overwritten, as in a log."""


class ProgressBar:
    """Shows what it is told of each step; closes itself after the last.

    Args:
        file: Where it is drawn.
    """

    def __init__(self, file: IO[str] | None = None) -> None:
        self.file = file or sys.stderr
        self.bar: tqdm[None] | None = None

    def __call__(self, progress: Progress) -> None:
        """Show `progress`."""
        if self.bar is None:
            self.bar = tqdm(
                total=progress.n_steps,
                initial=progress.step - 1,
                unit="step",
                file=self.file,
                dynamic_ncols=False,
                ncols=100,
                mininterval=0.5 if self.file.isatty() else LOG_SECONDS,
            )
        shown = f"loss {progress.loss:.3f}, {progress.tokens_per_s:,.0f} tokens/s"
        if progress.mfu is not None:
            shown += f", MFU {progress.mfu:.0%}"
        self.bar.set_postfix_str(shown, refresh=False)
        self.bar.update(progress.step - self.bar.n)
        if progress.step == progress.n_steps:
            self.bar.close()
            self.bar = None
