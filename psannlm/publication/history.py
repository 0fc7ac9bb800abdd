"""All runs over time: a row a run; every finding, speed, memory, training and arm published."""

import io
import json
from collections.abc import Iterator, Sequence

import pandas as pd

from psannlm.report import memory_tables
from psannlm.report.runs import Evidence, Refused
from psannlm.report.shootout_tables import SUMMARY

TRAINING = (
    "run", "device", "preset", "commit", "base", "n_parameters", "corpus_path", "corpus_sha256",
    "tokenizer", "vocab_size", "bytes_per_token", "epochs", "train_tokens", "batch_tokens",
    "train_loss", "val_loss", "perplexity", "bits_per_byte", "top1", "test_loss",
    "test_perplexity", "test_bits_per_byte", "target_perplexity", "target_reached",
    "train_seconds", "tokens_per_s", "mfu", "peak_allocated_mib", "peak_rss_mib",
)  # fmt: skip
VALIDATION = (
    "run", "device", "preset", "commit", "check", "base", "status", "measure", "value", "bound",
    "seconds", "reason",
)  # fmt: skip
SHOOTOUT = ("run", "device", "preset", "commit", *SUMMARY)
COLUMNS = ["run", "notebook", "preset", "device", "torch", "code", "status"]


def runs_table(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """Newest first: run, notebook, preset, device, code, status; a refused run with its reason."""
    rows = []
    for run in reversed(runs):
        if isinstance(run, Refused):
            unknown = dict.fromkeys(COLUMNS, "—")
            known = {"run": run.folder.name, "status": f"refused: {run.reason}"}
            rows.append(unknown | known)
            continue
        manifest = run.manifest
        git = manifest["git"]
        status = manifest["status"]
        if status == "running":
            status = "interrupted (or still running)"
        rows.append(
            {
                "run": manifest["run"],
                "notebook": manifest["notebook"],
                "preset": manifest["preset"],
                "device": manifest["environment"]["device"],
                "torch": manifest["environment"]["software"]["packages"]["torch"],
                "code": (git["commit"] or "unknown")[:12] + (" (dirty)" if git["dirty"] else ""),
                "status": status,
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def throughput_history(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """Rows of throughput.csv of all complete runs, oldest first, with preset and code."""
    frames = []
    for run in _complete(runs, "throughput"):
        frame = pd.read_csv(io.StringIO(run.text("throughput.csv")))
        frame["preset"] = run.manifest["preset"]
        frame["commit"] = run.manifest["git"]["commit"]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def memory_history(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """Rows of memory.json of all complete runs, oldest first, with preset and code."""
    frames = []
    for run in _complete(runs, "memory"):
        frame = memory_tables.read_rows(run.text("memory.json"))
        frame["preset"] = run.manifest["preset"]
        frame["commit"] = run.manifest["git"]["commit"]
        frames.append(frame.drop(columns="predicted_kinds_mib").astype(object))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def training_history(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a complete training, oldest first: its run, device and code, and what came out."""
    rows = []
    for run in _complete(runs, "tiny_corpus"):
        manifest = run.manifest
        known = {
            "run": manifest["run"],
            "device": manifest["environment"]["device"],
            "commit": manifest["git"]["commit"],
        }
        rows.append(json.loads(run.text("metrics.json")) | known)
    return pd.DataFrame(rows, columns=list(TRAINING))


def validation_history(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row a finding of every complete validation, oldest first, with its run and code."""
    rows = []
    for run in _complete(runs, "validation"):
        manifest = run.manifest
        known = {name: manifest[name] for name in ("run", "preset")}
        known["commit"] = manifest["git"]["commit"]
        findings = json.loads(run.text("summary.json"))["findings"]
        rows += [finding | known for finding in findings]
    return pd.DataFrame(rows, columns=list(VALIDATION))


def shootout_history(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """One row an arm of every complete shootout, oldest first, with its run, device and code."""
    frames = []
    for run in _complete(runs, "shootout"):
        manifest = run.manifest
        frame = pd.read_csv(io.StringIO(run.text("summary.csv")))
        frame["run"] = manifest["run"]
        frame["device"] = manifest["environment"]["device"]
        frame["preset"] = manifest["preset"]
        frame["commit"] = manifest["git"]["commit"]
        frames.append(frame[list(SHOOTOUT)].astype(object))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(SHOOTOUT))


def peer_history(runs: Sequence[Evidence | Refused]) -> pd.DataFrame:
    """Rows of peer.csv of all complete runs, oldest first, with preset and code."""
    frames = []
    for run in _complete(runs, "peer"):
        frame = pd.read_csv(io.StringIO(run.text("peer.csv")))
        frame["preset"] = run.manifest["preset"]
        frame["commit"] = run.manifest["git"]["commit"]
        frames.append(frame.astype(object))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def _complete(runs: Sequence[Evidence | Refused], notebook: str) -> Iterator[Evidence]:
    """The complete runs of a notebook."""
    for run in runs:
        if isinstance(run, Evidence) and run.is_complete and run.manifest["notebook"] == notebook:
            yield run
