"""Runs are compared only if made alike, and a number became worse only beyond a known bound."""

import pytest

from psannlm.evidence.rows import Number
from psannlm.evidence.runs import Evidence, load
from psannlm.evidence.table import Column
from psannlm.pages.registry import pages
from psannlm.publish.regressions import are_disjoint, judge, pairs, regressions, shown, summary
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

    table = regressions([before, now])
    table = table[table["number"] == "speed"].set_index("base")

    assert table.loc["respsann", "verdict"] == "regressed"
    assert set(table.loc["transformer", "verdict"]) == {"within the noise"}
    assert table.loc["respsann", "change"] == pytest.approx(-0.3, abs=0.01)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"torch": "2.1"}, "torch: 2.1, before 2.0"),
        ({"threads": 4}, "threads: 4, before 2"),
        ({"machine": "another"}, "machine: another, before a machine"),
        ({"d_model": 65, "seed": 3}, "parameters differ (d_model, seed)"),
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
    usual = pages()["throughput"].config.model_fields["wave_kernel"].default
    newer = history_run(tmp_path, "throughput", 2, wave_kernel=usual)
    other = history_run(tmp_path, "throughput", 3, wave_kernel=usual + 2)

    assert verdicts(regressions([older, newer])) == ["within the noise"]
    assert verdicts(regressions([older, other])) == ["not comparable"]


RUN = Evidence(None, {})  # type: ignore[arg-type]


def of(compare, better="higher", unit="tokens/s"):
    """A column of that comparison."""
    return Column("x", "", unit, better=better, compare=compare)


SPEED, TRAINING_SPEED, CHECK = of("noise"), of("single"), of("check")
KEPT, STEP, BITS, LOSS = (
    of(compare, "lower") for compare in ("counted", "noise", "counted", "interval")
)


def a(column, value, reach=0.0, *, floor=None, n=8, status="ok") -> Number:
    low, high = (None, None) if value is None else (value - reach, value + reach)
    return Number(
        run=RUN, name="x", column=column, quantity="x", unit=column.unit, base="respsann",
        setting="", value=value, status=status, verdict="", row=None, low=low, high=high,
        floor=floor, n=n,
    )  # fmt: skip


def test_a_planted_loss_of_speed_is_found_and_noise_is_not():
    before = a(SPEED, 1000.0, 20, floor=0.05)

    slow, noisy = a(SPEED, 700.0, 20, floor=0.05), a(SPEED, 970.0, 20, floor=0.05)

    assert judge(slow, before, None).verdict == "regressed"
    assert judge(slow, before, None).change == pytest.approx(-0.3)
    assert judge(noisy, before, None).verdict == "within the noise"
    assert judge(before, slow, None).verdict == "improved"


def test_disjoint_intervals_within_the_noise_floor_are_noise():
    found = judge(a(SPEED, 950.0, 1, floor=0.02), a(SPEED, 1000.0, 1, floor=0.06), None)

    assert found.verdict == "within the noise"
    assert found.bound.startswith("6.0% (noise floor)")


def test_a_change_beyond_the_noise_floor_within_wide_intervals_is_noise():
    found = judge(a(SPEED, 800.0, 150, floor=0.01), a(SPEED, 1000.0, 150, floor=0.01), None)

    assert found.verdict == "within the noise"


def test_the_smallest_effect_bounds_what_has_almost_no_noise():
    found = judge(a(SPEED, 995.0, 0, floor=0.0001), a(SPEED, 1000.0, 0, floor=0.0001), None)

    assert (found.verdict, found.bound[:4]) == ("within the noise", "1.0%")


@pytest.mark.parametrize("n", [1, 5])
def test_too_few_processes_on_either_side_compare_nothing(n):
    found = judge(a(SPEED, 500.0, floor=0.01), a(SPEED, 1000.0, floor=0.01, n=n), None)

    assert found.verdict == "not comparable"
    assert f"needs 6 processes, these are {n}" in found.reason


def test_a_longer_step_is_worse_by_the_noise_floor_of_the_machine():
    before, longer = a(STEP, 0.5, 0.001), a(STEP, 0.6, 0.001)

    assert judge(longer, before, 0.1).verdict == "regressed"
    assert judge(before, longer, 0.1).verdict == "improved"
    assert judge(longer, before, 0.25).verdict == "within the noise"
    assert judge(longer, before, None).reason == "no noise floor is known of this machine"


def test_counted_bytes_have_changed_beyond_one_percent():
    before = a(KEPT, 100.0, n=3)

    assert judge(a(KEPT, 101.5, n=3), before, None).verdict == "regressed"
    assert judge(a(KEPT, 98.5, n=3), before, None).verdict == "improved"
    assert judge(a(KEPT, 100.9, n=3), before, None).verdict == "unchanged"
    assert judge(a(KEPT, 1.0), a(KEPT, 0.0), None).verdict == "regressed"
    assert judge(a(KEPT, 0.0), a(KEPT, 0.0), None).verdict == "unchanged"


def test_a_single_training_is_bounded_without_an_interval_and_says_so():
    speed = judge(a(TRAINING_SPEED, 800.0, n=1), a(TRAINING_SPEED, 1000.0, n=1), 0.15)
    bits = judge(a(BITS, 2.05, n=1), a(BITS, 2.0, n=1), None)

    assert (speed.verdict, bits.verdict) == ("regressed", "regressed")
    assert "no interval" in speed.bound
    assert "no interval" in bits.bound
    assert judge(a(TRAINING_SPEED, 800.0), a(TRAINING_SPEED, 1000.0), None).verdict == (
        "not comparable"
    )


def test_losses_over_seeds_have_changed_when_their_intervals_do_not_meet():
    before = a(LOSS, 3.0, 0.1, n=5)

    assert judge(a(LOSS, 3.3, 0.1, n=5), before, None).verdict == "regressed"
    assert judge(a(LOSS, 2.7, 0.1, n=5), before, None).verdict == "improved"
    assert judge(a(LOSS, 3.15, 0.1, n=5), before, None).verdict == "within the noise"


@pytest.mark.parametrize(
    ("now", "then", "verdict"),
    [
        ("passed", "passed", "unchanged"),
        ("failed", "passed", "regressed"),
        ("skipped", "passed", "regressed"),
        ("passed", "failed", "improved"),
        ("failed", "failed", "unchanged"),
        ("failed", "skipped", "not comparable"),
    ],
)
def test_a_check_passes_or_does_not(now, then, verdict):
    values = {"passed": 1.0, "failed": 0.0, "skipped": None}

    found = judge(a(CHECK, values[now], status=now), a(CHECK, values[then], status=then), None)

    assert found.verdict == verdict


def test_what_could_be_measured_and_no_longer_can_has_regressed():
    works, fails = a(SPEED, 1000.0, floor=0.05), a(SPEED, None, status="failed")

    assert judge(fails, works, None).verdict == "regressed"
    assert judge(works, fails, None).verdict == "improved"


def test_a_row_that_the_run_before_has_not_is_not_compared():
    found = judge(a(SPEED, 1000.0), None, None)

    assert (found.verdict, found.reason) == ("not comparable", "the run before has no such row")


def test_intervals_that_touch_are_not_disjoint():
    assert not are_disjoint(a(LOSS, 3.0, 0.5), a(LOSS, 4.0, 0.5))
    assert are_disjoint(a(LOSS, 3.0, 0.5), a(LOSS, 4.001, 0.5))
    assert not are_disjoint(a(LOSS, 3.0), a(LOSS, None))
