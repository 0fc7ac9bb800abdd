"""The page of published figures is built from the file, our runs and arithmetic alone."""

import re
from dataclasses import replace

import pytest
from psannlm.publish.beside import NO_GPU, UNMEASURED

from psannlm.config.schema import ConfigError
from psannlm.evidence.runs import Evidence
from psannlm.evidence.runs import load as load_run
from psannlm.publish import published_page
from psannlm.publish.published import Conditions, load
from psannlm.publish.published_page import conditions, page, title
from tests.synthetic import throughput_run
from tests.test_beside import on_gpu, peer_run, protocol_row


@pytest.fixture(scope="module")
def empty() -> str:
    return page([])


@pytest.fixture(scope="module")
def speeds(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A run of the page `throughput`."""
    return load_run(throughput_run(tmp_path_factory.mktemp("reports"), preset="gpu"))


def test_without_a_run_every_figure_still_has_its_section(empty):
    figures = load().figures

    assert empty.startswith("# Published figures\n")
    assert re.findall(r"^\(published-(.*)\)=$", empty, re.M)[1:] == [f.id for f in figures]
    assert empty.count("- **Arithmetic says**: ") == len(figures)
    assert "None has GPU evidence of ours beside it." in empty
    assert UNMEASURED in empty


def test_the_answer_counts_the_verdicts_of_the_sections(empty):
    sections = re.findall(r"\*\*Arithmetic says\*\*: \*(.*?)\*\.", empty)

    n, possible, impossible, nothing = map(
        int,
        re.search(
            r"Of (\d+) published figures (\d+) stand .* (\d+) are impossible .* (\d+) say", empty
        ).groups(),
    )

    assert n == len(sections)
    assert possible == sections.count("possible")
    assert impossible == sections.count("impossible as stated")
    assert nothing == sections.count("says nothing")


def test_every_link_within_the_page_has_its_target(empty):
    targets = set(re.findall(r"^\((.*)\)=$", empty, re.M))

    links = re.findall(r"\]\(#(.*?)\)", empty)

    assert links
    assert set(links) <= targets


def test_no_name_in_braces_is_left_unfilled(empty):
    assert not re.findall(r"\{\w+\}", empty)
    assert "from 0.000157 to 0.00204" in empty


def test_a_comparison_and_a_run_on_a_gpu_are_counted_and_named(tmp_path, speeds):
    peer = peer_run(tmp_path, protocol_row(side="ours", value=4321.0))

    said = page([peer, on_gpu(speeds)])

    assert "4,321 tokens/s, 1,024 batch tokens" in said
    assert "on NVIDIA H200" in said
    assert re.search(r"\. 3 of them have GPU evidence of ours beside it", said)


def test_a_run_that_is_not_complete_stands_beside_nothing(speeds, empty):
    failed = replace(speeds, manifest={**speeds.manifest, "status": "failed"})

    assert page([failed]) == empty
    assert page([speeds]) != empty


def test_a_number_of_another_device_is_said_to_be_no_gpu_evidence(speeds):
    said = page([speeds])

    first = "<tr><td>Throughput of respsann at 131,072 batch tokens</td>"
    [_, row] = re.findall(f"{first}.*?</tr>", said)
    assert row.endswith(f"<td>{NO_GPU}</td></tr>")


def test_an_altered_figure_stops_the_page(monkeypatch):
    def altered() -> None:
        raise ConfigError("book/published.yaml: figure x was altered")

    monkeypatch.setattr(published_page, "load", altered)

    with pytest.raises(ConfigError, match="figure x was altered"):
        page([])


def test_conditions_are_words_and_numbers_with_separators():
    known = Conditions(base="respsann", batch_tokens=131072, d_model=512, grad_checkpoint=True)

    assert conditions(known) == (
        "respsann, batch tokens 131,072, d_model 512, gradient checkpointing on"
    )
    assert conditions(Conditions()) == ""
    assert title(load().figures[0]) == "Throughput of respsann at 131,072 batch tokens"
