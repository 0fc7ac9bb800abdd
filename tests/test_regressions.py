"""Runs are compared only if they were made alike, and a planted regression is found."""

import pytest

from psannlm.evidence.runs import load
from psannlm.publish.regressions import pairs, regressions, shown, summary
from tests.histories import history_run
from tests.synthetic import throughput_run

SLOW = {"tokens_per_s": 700.0, "tokens_per_s_low": 690.0, "tokens_per_s_high": 710.0}
NOISY = {"tokens_per_s": 970.0, "tokens_per_s_low": 950.0, "tokens_per_s_high": 995.0}


def verdicts(table) -> list[str]:
    return list(table["verdict"])


def test_a_planted_regression_is_found_in_its_row_and_noise_beside_it_is_not(tmp_path):
    bases = {"base": "respsann"}, {"base": "transformer", "label": "transformer"}
    older = history_run(tmp_path, "throughput", 1, *bases)
    newer = history_run(tmp_path, "throughput", 2, bases[0] | NOISY, bases[1] | SLOW)

    table = regressions([older, newer])

    assert verdicts(table) == ["within the noise", "regressed"]
    row = table.iloc[1]
    assert (row["base"], row["row"], row["before_row"]) == ("transformer", 2, 2)
    assert (row["run"], row["before_run"]) == (newer.folder.name, older.folder.name)
    assert (row["value"], row["before"]) == (700.0, 1000.0)
    assert "**1 regressed** and 0 improved" in summary(table)
    assert list(shown(table)["base"]) == ["transformer", "respsann"], "what changed comes first"


@pytest.mark.slow
def test_a_regression_planted_into_samples_is_found_and_their_noise_is_not(tmp_path):
    before = load(throughput_run(tmp_path, speeds={"respsann": 1000.0, "transformer": 1000.0}))
    now = load(throughput_run(tmp_path, speeds={"respsann": 700.0, "transformer": 1002.0}))

    table = regressions([before, now]).set_index("base")

    assert table.loc["respsann", "verdict"] == "regressed"
    assert set(table.loc["transformer", "verdict"]) == {"within the noise"}
    assert table.loc["respsann", "change"] == pytest.approx(-0.3, abs=0.01)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"torch": "2.1"}, "torch: 2.1, before 2.0"),
        ({"threads": 4}, "threads: 4, before 2"),
        ({"machine": "another"}, "machine: another, before a machine"),
        ({"d_model": 64, "seed": 3}, "parameters differ (d_model, seed)"),
        ({"corpus": "other"}, "the text differs"),
    ],
)
def test_runs_that_were_not_made_alike_are_never_compared(tmp_path, facts, said):
    older = history_run(tmp_path, "throughput", 1)
    newer = history_run(tmp_path, "throughput", 2, SLOW, **facts)

    table = regressions([older, newer])

    [row] = table.to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not comparable", said)
    assert row["base"] == ("respsann",)
    assert "No row could be compared" in summary(table)
    assert said in shown(table).iloc[0]["bound, or why not"]


def test_a_machine_is_held_against_itself_past_runs_of_another(tmp_path):
    mine = history_run(tmp_path, "throughput", 1)
    other = history_run(tmp_path, "throughput", 2, machine="another")
    again = history_run(tmp_path, "throughput", 3, SLOW)

    held = [(new.folder, old.folder) for new, old in pairs([mine, other, again])]

    assert held == [(again.folder, mine.folder), (other.folder, mine.folder)]
    assert verdicts(regressions([mine, other, again])) == ["regressed", "not comparable"]


def test_presets_and_unfinished_runs_are_not_mixed(tmp_path):
    older = history_run(tmp_path, "throughput", 1)
    smoke = history_run(tmp_path, "throughput", 2, SLOW, preset="smoke")
    broken = history_run(tmp_path, "throughput", 3, SLOW, status="failed")

    assert regressions([older, smoke, broken]).empty
    assert "nothing to compare" in summary(regressions([older]))


def test_a_parameter_that_the_older_run_did_not_know_counts_as_its_default(tmp_path):
    older = history_run(tmp_path, "throughput", 1)
    del older.manifest["parameters"]["wave_kernel"]
    newer = history_run(tmp_path, "throughput", 2)
    other = history_run(tmp_path, "throughput", 3, wave_kernel=5)

    assert verdicts(regressions([older, newer])) == ["within the noise"]
    assert verdicts(regressions([older, other])) == ["not comparable"]


@pytest.mark.parametrize(
    ("page", "worse", "expected"),
    [
        ("memory", {"saved_mib": 110.0}, ["regressed", "within the noise"]),
        ("memory", {"elapsed_s": 0.7, "elapsed_s_low": 0.69}, ["unchanged", "regressed"]),
        ("tiny_corpus", {"bits_per_byte": 2.1}, ["regressed", "within the noise"]),
        ("tiny_corpus", {"tokens_per_s": 800.0}, ["unchanged", "regressed"]),
        ("validation", {"status": "failed"}, ["regressed"]),
        ("shootout", {"val_loss": 3.5, "val_loss_low": 3.4}, ["regressed"]),
        ("peer", {"ratio": 1.2, "ratio_high": 1.25, "ratio_low": 1.1}, ["regressed"]),
        ("peer", {"work": "saved", "ratio": 1.6}, ["not comparable"]),
    ],
)
def test_every_page_has_its_regressions(tmp_path, page, worse, expected):
    floor = history_run(tmp_path, "throughput", 1)
    worse = worse | ({"elapsed_s_high": 0.71} if "elapsed_s" in worse else {})
    older, newer = history_run(tmp_path, page, 2), history_run(tmp_path, page, 3, worse)

    table = regressions([floor, older, newer])

    assert verdicts(table) == expected


def test_fewer_saved_bytes_beside_the_published_package_are_better(tmp_path):
    saved = {"work": "saved"}
    older = history_run(tmp_path, "peer", 1, saved)
    newer = history_run(tmp_path, "peer", 2, saved | {"ratio": 0.5})

    assert verdicts(regressions([older, newer])) == ["improved"]
