"""Run folders of any page made of records, with what every test of a page asks of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from psannlm.config.schema import Strict
from psannlm.evidence import verify
from psannlm.evidence.page import Page, RunInfo
from psannlm.evidence.runs import Evidence, Run, load
from psannlm.evidence.session import Session
from tests.synthetic import start_manifest


def open_session(page: Page[Any, Any], config: Strict, reports: Path, **facts: Any) -> Session:
    """A run that has just begun."""
    manifest = start_manifest(page.name, config) | facts
    run = Run.start(page.folder, manifest, reports=reports, suffix=page.suffix)
    return Session(page, config, run, torch.device("cpu"))


def pretend(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, answer: Callable[[Any], dict[str, Any]]
) -> list[Any]:
    """Tasks whose processes the module would have run; each is answered instead."""
    tasks: list[Any] = []

    def run_task(task: Any, **options: Any) -> list[dict[str, Any]]:
        tasks.append(task)
        return [{"mode": mode, "status": "ok", "reason": ""} | answer(task) for mode in task.modes]

    monkeypatch.setattr(module, "run_task", run_task)
    return tasks


def problems(page: Page[Any, Any], folder: Path) -> list[str]:
    """What a check of the evidence says of a run folder."""
    return list(verify.problems(page, load(folder)))


def info_of(page: Page[Any, Any], config: Strict, records: Sequence[Any]) -> RunInfo[Any]:
    """A run in memory."""
    return RunInfo(config, start_manifest(page.name, config) | {"run": "20260101_000000"}, records)


def numbers_of(page: Page[Any, Any], folder: Path) -> dict[str, Any]:
    """The numbers of a run folder, by name."""
    run: Evidence = load(folder)
    return {number.name: number for number in page.numbers(run)}
