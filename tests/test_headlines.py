"""Headlines repeat what the raw files say, and have a name, a row and a verdict of their own."""

import csv
import io
import json
from collections import Counter

import pytest

from psannlm.publication.headline import PLAN
from psannlm.publication.headlines import headlines
from psannlm.report.shootout_files import read
from tests.published import best, best_headlines, made_up_run


@pytest.fixture(scope="module")
def found():
    return {headline.name: headline for headline in best_headlines()}


def lines(page, name):
    return list(csv.DictReader(io.StringIO(best()[page].text(name))))


def test_names_are_unique_and_every_item_of_the_plan_has_a_number(found):
    names = Counter(headline.name for headline in best_headlines())

    assert max(names.values()) == 1
    assert {headline.claim for headline in found.values()} >= set(PLAN)


def test_no_evidence_gives_no_headline():
    assert headlines({}) == []


def test_a_training_is_told_by_perplexity_against_the_target_of_its_own_row(found):
    metrics = json.loads(best()["tiny_corpus"].text("metrics.json"))

    perplexity = found["tiny_corpus.respsann.perplexity"]

    assert perplexity.value == metrics["perplexity"]
    assert perplexity.target == f"at most {metrics['target_perplexity']:g}"
    reached = metrics["perplexity"] <= metrics["target_perplexity"]
    assert perplexity.verdict == ("reached" if reached else "not reached")
    assert found["tiny_corpus.respsann.bits_per_byte"].value == metrics["bits_per_byte"]


def test_each_line_of_the_speed_table_is_a_speed_and_but_for_the_baseline_a_ratio(found):
    for number, line in enumerate(lines("throughput", "throughput.csv"), 1):
        stem = f"throughput.{line['base']}.{line['batch_tokens']}.{line['mode']}"
        speed = found[f"{stem}.{line['precision']}.tokens_per_s"]
        ratio = found.get(f"{stem}.{line['precision']}.ratio")
        if line["verdict"] == "noise floor":
            assert speed.row.number != number
        elif line["verdict"] == "baseline":
            assert ratio is None
        else:
            assert (speed.row.number, ratio.row.number) == (number, number)
            assert speed.value == pytest.approx(float(line["tokens_per_s"]), rel=1e-12)
            assert ratio.low == pytest.approx(float(line["ratio_low"]), rel=1e-12)
            assert ratio.verdict == line["verdict"]


def test_memory_has_both_rows_of_each_base_at_the_first_batch_and_what_is_saved(found):
    run = best()["memory"]
    table = json.loads(run.text("memory.json"))
    asked = run.manifest["parameters"]

    shown = {h.row.number for h in found.values() if h.row.file == "memory.json"}

    assert shown == {
        number
        for number, row in enumerate(table, 1)
        if row["variant"] == "default"
        and row["batch_tokens"] == asked["batch_tokens"][0]
        and row["context_length"] == asked["context_length"]
    }
    for base in asked["base"]:
        off, on = (
            found[f"memory.{base}.fp32.512.checkpointing_{side}.saved_mib"].value
            for side in ("off", "on")
        )
        share = found[f"memory.{base}.fp32.512.checkpointing.saved_less_share"]
        assert share.value == pytest.approx((off - on) / off)
        assert share.verdict == "less"


def test_a_check_is_told_by_the_measure_nearest_to_its_bound_over_all_bases(found):
    findings = json.loads(best()["validation"].text("summary.json"))["findings"]

    for check in {finding["check"] for finding in findings}:
        ours = [finding for finding in findings if finding["check"] == check]
        worst = found[f"validation.{check}.worst"]
        counts = [found[f"validation.{check}.{s}"].value for s in ("passed", "failed", "skipped")]
        assert counts == [len(ours), 0, 0]
        assert worst.value in [finding["value"] for finding in ours]
        most = max(f["value"] / f["bound"] for f in ours if f["bound"]) if check == "GPU-01" else 0
        if most:
            assert worst.value / worst.row.values["bound"] == most


def test_an_arm_is_told_by_its_difference_and_the_gain_by_one_paired_by_seed(found):
    shootout = read(best()["shootout"])
    losses = {
        (r.arm, r.seed): r.val_loss
        for r in shootout.records
        if r.final and r.key in set(shootout.runs["key"])
    }

    for line in lines("shootout", "summary.csv"):
        if line["difference"]:
            difference = found[f"shootout.{line['base']}.difference"]
            assert difference.value == pytest.approx(float(line["difference"]), rel=1e-12)
            assert difference.verdict == line["verdict"]
    gain = found["shootout.respsann.difference_to_gelu_scaled"]
    pairs = [losses["respsann", seed] - losses["gelu_scaled", seed] for seed in range(5)]
    assert gain.value == pytest.approx(sum(pairs) / 5)
    assert gain.low < gain.value < gain.high


def test_against_the_published_package_rows_with_a_ratio_make_headlines(monkeypatch):
    run = made_up_run("peer", peer="package==1.0")
    text = (
        "side,base,setting,work,precision,ratio,ratio_low,ratio_high,verdict,status\n"
        "ours,respsann,best,saved,fp32,0.5,,,,ok\n"
        "theirs,respsann,best,saved,fp32,,,,,ok\n"
        "ours,respsann,best,forward,fp32,1.5,1.4,1.6,faster,ok\n"
    )
    monkeypatch.setattr(type(run), "text", lambda self, name: text)

    saved, forward = headlines({"peer": run})

    assert (saved.name, saved.value, saved.low) == (
        "peer.ours.respsann.best.saved.fp32.ratio", 0.5, None,
    )  # fmt: skip
    assert (forward.row.number, forward.low, forward.verdict) == (3, 1.4, "faster")
    assert forward.unit == "× package==1.0"
