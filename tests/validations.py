"""Checks and validations made up for tests, with known truths in them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from psannlm.checks import findings, suite
from psannlm.checks.findings import Case, Finding, Measure, Result, ValidationConfig
from psannlm.pages.validation.page import PAGE
from tests import checked
from tests.synthetic import sealed_run


def validation_config(**changes: Any) -> ValidationConfig:
    values: dict[str, Any] = {"preset": "cpu", "base": ("respsann", "transformer")}
    return checked.validation_config(**values | changes)


def measure(**changes: Any) -> Measure:
    values = {"name": "relative error", "value": 0.25, "bound": 0.5, "why": "half of a broken one"}
    return Measure(**values | changes)


def fine(case: Case) -> Result:
    """Passes; its least lies nearer to the bound than its most."""
    speed = measure(name="tokens/s", value=299_512.25, bound=250_000.0, upper=False)
    return Result(measures=(measure(), speed), facts={"sample": "It was | so", "world": 2})


def broken(case: Case) -> Result:
    """Fails for one base, on a device of its own."""
    loss = float("inf") if case.base == "respsann" else 0.125
    return Result(measures=(measure(name="loss", value=loss),), device="two processes, gloo")


def impossible(case: Case) -> Result:
    raise findings.UncheckableError("there is one GPU, two are needed")


def crashing(case: Case) -> Result:
    raise ValueError("no such tensor\nsecond line")


ENTRIES = {
    "GPU-01": suite.Entry("Learning", "Does it learn?", fine),
    "GPU-02": suite.Entry("Precision", "Is bf16 near fp32?", broken),
    "GPU-06": suite.Entry("FSDP", "Are two ranks as one?", impossible),
    "GPU-08": suite.Entry("Saving", "Does it come back?", crashing),
}
SOUND = {name: ENTRIES[name] for name in ("GPU-01", "GPU-06")}


def made_up_checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, suite.Entry]:
    """Lets the suite consist of made-up checks; a test may change which."""
    entries = dict(ENTRIES)
    monkeypatch.setattr(suite, "CHECKS", entries)
    return entries


def made(config: ValidationConfig) -> list[Finding]:
    """Findings of the suite."""
    return list(suite.validate(config, torch.device("cpu")))


def validation_run(reports: Path, *, status: str = "complete", **changes: Any) -> Path:
    """A sealed run folder of the suite as it stands; returns it."""
    config = validation_config(**changes)
    return sealed_run(PAGE, config, made(config), reports, status=status)
