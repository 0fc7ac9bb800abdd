"""A process of a shootout that trains nothing; what it does instead is the name of its folder.

It loads nothing of ours, so that it starts at once.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TOLD = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "TORCHINDUCTOR_CACHE_DIR")


def main(arguments: Sequence[str]) -> None:
    """Do as the folder is called; beside it stands which process did."""
    task, result = map(Path, arguments)
    folder = Path(json.loads(task.read_text())["folder"])
    who = {"pid": os.getpid(), "parent": os.getppid()}
    written = folder.with_name(folder.name + ".part")
    written.write_text(json.dumps(who))
    written.replace(folder.with_name(folder.name + ".json"))
    if folder.name == "raises":
        raise RuntimeError("no such luck")
    if folder.name == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    while folder.name == "hangs":
        time.sleep(0.1)
    told = {"environment": {name: os.environ.get(name) for name in TOLD}}
    result.write_text(json.dumps({"mode": "training", "status": "ok", **told}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
