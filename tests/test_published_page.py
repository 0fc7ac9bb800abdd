"""The page of published figures: each beside our rows, with what arithmetic says of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from psannlm.evidence.runs import Evidence, Run
from psannlm.evidence.runs import load as load_run
from psannlm.pages.peer.tables import PROTOCOL
from psannlm.publish import published_page
from psannlm.publish.published import Conditions, Figure, load
from psannlm.publish.published_page import NO_GPU, UNMEASURED, fair, page, same_protocol
from tests.forging import forge
from tests.synthetic import start_manifest, throughput_config, throughput_run
from tests.synthetic_memory import memory_run
from tests.validations import made_up_checks, validation_run

FIGURES = {figure.id: figure for figure in load().figures}
LARGE, SMALL, AMP = "throughput-respsann-131072", "sanity-low", "amp-parity"


@pytest.fixture(scope="module")
def speeds(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A run of the page `throughput`."""
    return load_run(throughput_run(tmp_path_factory.mktemp("reports"), preset="gpu"))


def protocol_row(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "timestamp": "20270101_000000", "check": "GPU-03", "side": "ours", "base": "respsann",
        "batch_tokens": 1024, "context_length": 256, "measure": "tokens_per_s", "value": 4321.0,
        "unit": "tokens/s", "status": "ok", "reason": "", "device": "abacus",
    }  # fmt: skip
    return values | changes


def peer_run(reports: Path, *rows: dict[str, Any]) -> Evidence:
    """A sealed run of the page `peer` with these rows of its protocol."""
    manifest = start_manifest("peer", throughput_config())
    run = Run.start("benchmarks", manifest, reports=reports)
    frame = pd.DataFrame(rows, columns=PROTOCOL.names)
    run.write("protocol.csv", frame.to_csv(index=False))
    run.seal("complete")
    return load_run(run.folder)


def on_gpu(run: Evidence, name: str = "NVIDIA H200") -> Evidence:
    environment = run.manifest["environment"] | {"device": name, "gpu": {"name": name}}
    return replace(run, manifest={**run.manifest, "environment": environment})


def with_pages(figure: Figure, page: str, **changes: Any) -> Figure:
    beside = tuple(one.model_copy(update=changes) for one in figure.beside if one.page == page)
    return figure.model_copy(update={"beside": beside})


WAVE = {"check": "GPU-04", "base": "waveresnet", "measure": "max_allocated_mib", "value": None}


@pytest.mark.parametrize(
    ("name", "row", "said"),
    [
        ("ddp-parity", {}, published_page.NO_MEASURE),
        (LARGE, {"measure": "loss"}, UNMEASURED),
        ("checkpoint-allocated", WAVE, NO_GPU),
        ("checkpoint-allocated", WAVE | {"status": "failed", "reason": "full"}, "full"),
    ],
)
def test_without_a_number_there_is_a_word(tmp_path, name, row, said):
    [one] = same_protocol(FIGURES[name], {"peer": peer_run(tmp_path, protocol_row(**row))})

    assert one.short == said
    assert not one.on_gpu
    assert same_protocol(FIGURES[LARGE], {})[0].short == UNMEASURED


def test_a_row_of_the_same_protocol_names_its_batch_its_device_and_its_line(tmp_path):
    run = peer_run(tmp_path, protocol_row(base="waveresnet"), protocol_row())

    [one] = same_protocol(FIGURES[LARGE], {"peer": run})
    [other] = same_protocol(FIGURES[SMALL], {"peer": on_gpu(run)})

    device = run.manifest["environment"]["device"]
    assert one.short == (f"4,321 tokens/s, 1,024 batch tokens, context 256, on {device}; {NO_GPU}")
    assert one.link == f"[peer](peer.ipynb), run {run.folder.name}, row 2 of protocol.csv"
    assert other.on_gpu
    assert other.short.endswith("on NVIDIA H200")


def test_a_row_of_the_figure_s_own_batch_goes_before_a_larger_one(tmp_path):
    large = protocol_row(batch_tokens=131072, value=1e6, context_length=4096)
    run = peer_run(tmp_path, large, protocol_row(value=5000.0))

    assert same_protocol(FIGURES[LARGE], {"peer": run})[0].text == "1,000,000 tokens/s"
    assert same_protocol(FIGURES[SMALL], {"peer": run})[0].text == "5,000 tokens/s"


def test_the_published_package_measured_again_stands_after_ours(tmp_path):
    run = peer_run(tmp_path, protocol_row(side="published", value=2000.0), protocol_row())

    found = same_protocol(FIGURES[SMALL], {"peer": run})

    assert [(one.about, one.text) for one in found] == [
        ("ours", "4,321 tokens/s"),
        ("the published package, measured here", "2,000 tokens/s"),
    ]


def test_a_fair_row_has_its_interval_its_conditions_and_its_row(speeds):
    training, forward = fair(FIGURES[LARGE], {"throughput": speeds})

    table = pd.read_csv(speeds.folder / "throughput.csv")
    [row] = table[(table["label"] == "respsann")].index
    values = table.loc[row]
    assert training.text == UNMEASURED, "this run times no training step"
    assert forward.text == (
        f"{values['tokens_per_s']:.4g} ({values['tokens_per_s_low']:.4g} – "
        f"{values['tokens_per_s_high']:.4g}) tokens/s"
    )
    name = speeds.folder.name
    assert forward.link == f"[throughput](throughput.ipynb), run {name}, row {row + 1}"
    assert "fp32, 32 batch tokens, context 16" in forward.where
    assert fair(FIGURES[LARGE], {"throughput": on_gpu(speeds)})[1].on_gpu


def test_memory_stands_with_and_without_checkpointing(tmp_path):
    both = ("fp32", "bf16")
    run = load_run(memory_run(tmp_path, base=("waveresnet",), precision=both, n_repeats=1))

    on, off = fair(FIGURES["checkpoint-allocated"], {"memory": run})

    assert "checkpointing on" in on.line
    assert "checkpointing off" in off.line
    assert on.text != off.text
    assert "bf16" in on.where
    assert {one.short for one in fair(FIGURES["checkpoint-reserved"], {"memory": run})} == {NO_GPU}


def test_of_a_measure_the_worst_of_all_bases_stands_with_its_bound(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    folder = validation_run(tmp_path)
    forge(folder, "summary.json", lambda text: text.replace('"value": 0.25', '"value": 0.125', 1))
    forge(folder, "summary.json", lambda text: text.replace("299512.25", "299600.25", 1))
    run = load_run(folder)
    figure = with_pages(FIGURES["ddp-parity"], "validation", where="check == 'GPU-01'")
    error, speed = (
        fair(with_pages(figure, "validation", measure=name), {"validation": run})[0]
        for name in ("relative error", "tokens/s")
    )

    assert error.text == "0.25 in the worst of 2 bases, bound at most 0.5"
    assert speed.text == "299,512 in the worst of 2 bases, bound at least 250,000"
    assert error.link == f"[validation](validation.ipynb), run {run.folder.name}, row 2"


def test_a_measure_that_no_finding_has_was_not_measured(tmp_path, monkeypatch):
    made_up_checks(monkeypatch)
    run = load_run(validation_run(tmp_path))

    assert {one.short for one in fair(FIGURES[AMP], {"validation": run})} == {UNMEASURED}
    assert {one.short for one in fair(FIGURES[AMP], {})} == {UNMEASURED}


# The page


@pytest.fixture(scope="module")
def empty() -> str:
    return page([])


def test_without_a_run_every_figure_still_has_its_section_and_the_answer_counts_them(empty):
    verdicts = re.findall(r"\*\*Arithmetic says\*\*: \*(.*?)\*\.", empty)
    counted = r"Of (\d+) published figures (\d+) stand .* (\d+) are impossible .* (\d+) say"

    assert empty.startswith("# Published figures\n")
    assert re.findall(r"^\(published-(.*)\)=$", empty, re.M)[1:] == list(FIGURES)
    kinds = ("possible", "impossible as stated", "says nothing")
    assert [*map(int, re.search(counted, empty).groups())] == [
        len(verdicts), *map(verdicts.count, kinds),
    ]  # fmt: skip
    assert len(verdicts) == len(FIGURES)
    assert "None has GPU evidence of ours beside it." in empty
    assert UNMEASURED in empty


def test_every_link_within_the_page_has_its_target_and_every_name_in_braces_a_value(empty):
    targets = set(re.findall(r"^\((.*)\)=$", empty, re.M))
    links = re.findall(r"\]\(#(.*?)\)", empty)

    assert links
    assert set(links) <= targets
    assert not re.findall(r"\{\w+\}", empty)
    assert "from 0.000157 to 0.00204" in empty


def test_a_comparison_and_a_run_on_a_gpu_are_counted_and_named(tmp_path, speeds):
    peer = peer_run(tmp_path, protocol_row(side="ours", value=4321.0))

    said = page([peer, on_gpu(speeds)])

    assert "4,321 tokens/s, 1,024 batch tokens" in said
    assert "on NVIDIA H200" in said
    assert re.search(r"\. 3 of them have GPU evidence of ours beside it", said)


def test_a_run_elsewhere_than_on_a_gpu_is_said_to_be_that_and_one_that_failed_is_not_there(
    speeds, empty
):
    said = page([speeds])

    assert page([replace(speeds, manifest={**speeds.manifest, "status": "failed"})]) == empty
    first = "<tr><td>Throughput of respsann at 131,072 batch tokens</td>"
    [_, row] = re.findall(f"{first}.*?</tr>", said)
    assert row.endswith(f"<td>{NO_GPU}</td></tr>")


def test_conditions_are_words_and_numbers_with_separators():
    known = Conditions(base="respsann", batch_tokens=131072, d_model=512, grad_checkpoint=True)

    assert published_page.conditions(known) == (
        "respsann, batch tokens 131,072, d_model 512, gradient checkpointing on"
    )
    assert published_page.conditions(Conditions()) == ""
    assert load().figures[0].title == "Throughput of respsann at 131,072 batch tokens"
