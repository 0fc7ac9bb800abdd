"""The lines of the landing page say what the verdicts say, whatever they are."""

import pytest

from psannlm.publish.evidence_pages import LandingData
from psannlm.publish.landing import MOST_OTHERS, answers
from tests.published import best, best_headlines, committed, headline, made_up_row


def speed(base, verdict, *, tokens=32, mode="train_step", device="a device", value=0.5):
    values = {"base": base, "batch_tokens": tokens, "mode": mode, "precision": "fp32"}
    row = made_up_row("throughput", values, device=device)
    name = f"throughput.{base}.{tokens}.{mode}.fp32.ratio"
    return headline(row, name=name, verdict=verdict, value=value)


def arm(base, verdict, **changes):
    row = made_up_row("shootout", {"base": base}, baseline="gelu")
    name = f"shootout.{base}.difference"
    return headline(
        row, name=name, verdict=verdict, quantity="validation loss less that of gelu",
        unit="nats per token", **changes,
    )  # fmt: skip


def check(name, status, value):
    row = made_up_row("validation", {})
    return headline(row, name=f"validation.{name}.{status}", claim=name, value=value)


def line(text, question):
    [found] = [one for one in text.splitlines() if question in one]
    return found


def test_the_committed_evidence_is_answered_in_a_line_a_page_with_its_machine_once():
    text = answers(best_headlines())

    lines = [one for one in text.splitlines() if one.startswith("1. ")]
    assert len(lines) == len(best())
    assert text.count("AMD EPYC, 2 cores") == 1
    assert "No complete run" not in text


def test_without_evidence_each_line_says_so():
    text = answers([])

    assert text.count("No complete run yet") == 5
    assert "Measured on" not in text


def test_bases_are_gathered_under_the_verdicts_they_have():
    found = [speed("one", "slower"), speed("two", "faster"), speed("three", "slower", value=0.25)]

    said = line(answers(found), "Is it as fast?")

    assert (
        "**faster** two 0.500 (0.250 – 0.750); "
        "**slower** one 0.500 (0.250 – 0.750), three 0.250 (0.250 – 0.750)."
    ) in said


def test_the_largest_batch_that_has_ratios_is_told_of_a_training_step_first():
    found = [
        speed("one", "slower", tokens=64, mode="forward"),
        speed("one", "faster", tokens=16),
        speed("one", "not separated", tokens=32),
        speed("one", "failed", tokens=64, value=None),
    ]

    said = line(answers(found), "Is it as fast?")

    assert "(training step, fp32, 32 tokens)" in said
    assert "**not separated** one" in said
    assert "3 more settings on the page" in said


def test_each_line_names_its_machine_where_they_differ():
    found = [speed("one", "slower"), arm("two", "better", value=-0.1)]
    found[1].row.run.manifest["environment"]["device"] = "another"

    text = answers(found)

    assert "On a device. (" in line(text, "Is it as fast?")
    assert "On another. (" in line(text, "learn more")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"passed": 4}, "**All 4 checks passed**"),
        ({"passed": 3, "failed": 1}, "**1 of 4 checks failed** (GPU-02 on 1 of its bases)"),
        (
            {"passed": 2, "skipped": 2},
            "2 checks passed**, a check counted once a base; 2 could not",
        ),
        ({"skipped": 2}, "**No check could be made**; 2 could not be made here (GPU-02)"),
    ],
)
def test_checks_are_counted_by_what_became_of_them(counts, said):
    found = [check("GPU-02", s, float(counts.get(s, 0))) for s in ("passed", "failed", "skipped")]

    assert said in line(answers(found), "what it says")


@pytest.mark.parametrize(
    ("sine", "rest", "said"),
    [
        ("better", "better", "The sine's advantage over gelu is not gain alone"),
        ("better", "A/A", "Gain alone may be all of the sine's advantage over gelu"),
        ("not separated", "worse", "Gain alone does more than the sine, which is not separated"),
        ("not separated", "", "no verdict"),
    ],
)
def test_the_gain_control_is_told_by_both_verdicts(sine, rest, said):
    whole = arm("respsann", sine)
    gain = headline(
        whole.row, name="shootout.respsann.difference_to_gelu_scaled", verdict=rest,
        quantity="validation loss less that of gelu_scaled", unit="nats per token",
    )  # fmt: skip

    text = line(answers([whole, gain]), "learn more")

    assert said in text
    assert "respsann less gelu_scaled: +0.500 (+0.250 to +0.750)" in text


def test_memory_is_told_in_half_precision_under_its_verdict():
    found = []
    for precision, verdict in (("fp32", "not less"), ("bf16", "less")):
        values = {
            "base": "one", "precision": precision, "saved_without_mib": 10.0, "saved_with_mib": 4.0,
        }  # fmt: skip
        row = made_up_row("memory", values, 1 if verdict == "less" else 2, "savings.csv")
        stem = f"memory.one.{precision}.32.checkpointing"
        found.append(headline(row, name=f"{stem}.saved_less_share", verdict=verdict))
        found.append(headline(row, name=f"{stem}.time_ratio", verdict=""))

    said = line(answers(found), "checkpointing save")

    assert "bf16: **less** one 10.0 to 4.0 MiB at 0.500 (0.250 – 0.750) × the time" in said
    assert "fp32" not in said


def test_other_runs_are_told_with_their_results_and_how_they_were_asked():
    found, other = arm("two", "better", value=-0.2), arm("two", "worse", value=0.2)
    other.row.run.manifest["parameters"]["steps"] = 9

    [said] = [one for one in answers([found], [[other]]).splitlines() if "Another" in one]

    assert "asked with other steps: " in said
    assert "**worse** two +0.200" in said


def test_more_runs_than_a_few_are_counted():
    found = arm("two", "better", value=-0.2)

    text = answers([found], [[found]] * (MOST_OTHERS + 2))

    assert text.count("Another complete run") == MOST_OTHERS
    assert "Older complete runs: 2" in text


def test_no_complete_run_of_the_committed_evidence_is_left_out():
    text = LandingData.of(committed(), None).pieces()["answers.md"]

    for run in committed():
        if run not in best().values():
            assert run.name in text


def test_the_published_package_has_a_line_only_where_it_was_measured():
    def ratio(setting, work, **changes):
        values = {"base": "one", "setting": setting, "work": work}
        return headline(made_up_row("peer", values, peer="package==1"), **changes)

    found = [
        ratio("defaults", "forward", value=9.0, verdict="slower"),
        ratio("best", "forward", verdict="faster"),
        ratio("best", "saved", value=0.3, low=None, high=None, verdict="fewer"),
    ]

    said = line(answers(found), "published package")

    assert "Ours as a ratio to package==1: *each with its fastest choices*: **faster** one" in said
    assert "**fewer** one saved for backward 0.300" in said
    assert "*each by its defaults*: **slower** one forward 9.000" in said
    assert "fastest" not in line(answers(found[:1]), "published package")
    assert "published package" not in answers([])
