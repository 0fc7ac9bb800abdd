"""Runs are compared only if made alike, and a number became worse only beyond a known bound."""

import pytest

from psannlm.evidence.runs import Evidence, load
from psannlm.evidence.table import Column, Number
from psannlm.publish.regressions import are_disjoint, judge, pairs, regressions, shown, summary
from tests.histories import history_run
from tests.synthetic import throughput_run

SLOW = {"tokens_per_s": 700.0, "tokens_per_s_low": 690.0, "tokens_per_s_high": 710.0}
NOISY = {"tokens_per_s": 970.0, "tokens_per_s_low": 950.0, "tokens_per_s_high": 995.0}


def verdicts(table) -> list[str]:
    return list(table["verdict"])


def test_a_planted_regression_is_found_in_its_row_and_noise_beside_it_is_not(tmp_path):
    bases = {"base": "respsann"}, {"base": "transformer", "label": "transformer"}
    older = history_run(tmp_path, "throughput", *bases)
    newer = history_run(tmp_path, "throughput", bases[0] | NOISY, bases[1] | SLOW)

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
    older = history_run(tmp_path, "throughput")
    newer = history_run(tmp_path, "throughput", SLOW, **facts)

    table = regressions([older, newer])

    [row] = table.to_dict("records")
    assert (row["verdict"], row["reason"]) == ("not comparable", said)
    assert row["base"] == ("respsann",)
    assert "No row could be compared" in summary(table)
    assert said in shown(table).iloc[0]["bound, or why not"]


def test_a_machine_is_held_against_itself_past_runs_of_another(tmp_path):
    mine = history_run(tmp_path, "throughput")
    other = history_run(tmp_path, "throughput", machine="another")
    again = history_run(tmp_path, "throughput", SLOW)

    held = [(new.folder, old.folder) for new, old in pairs([mine, other, again])]

    assert held == [(again.folder, mine.folder), (other.folder, mine.folder)]
    assert verdicts(regressions([mine, other, again])) == ["regressed", "not comparable"]


def test_presets_and_unfinished_runs_are_not_mixed(tmp_path):
    older = history_run(tmp_path, "throughput")
    smoke = history_run(tmp_path, "throughput", SLOW, preset="smoke")
    broken = history_run(tmp_path, "throughput", SLOW, status="failed")

    assert regressions([older, smoke, broken]).empty
    assert "nothing to compare" in summary(regressions([older]))


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


FLOOR, QUIET, SILENT = {"floor": 0.05}, {"floor": 0.01}, {"floor": 0.0001}
BEFORE = a(SPEED, 1000.0, 20, **FLOOR)


@pytest.mark.parametrize(
    ("now", "then", "machine_floor", "verdict"),
    [
        (a(SPEED, 700.0, 20, **FLOOR), BEFORE, None, "regressed"),
        (BEFORE, a(SPEED, 700.0, 20, **FLOOR), None, "improved"),
        (a(SPEED, 970.0, 20, **FLOOR), BEFORE, None, "within the noise"),
        # Wide intervals, and a change below the smallest effect.
        (a(SPEED, 800.0, 150, **QUIET), a(SPEED, 1000.0, 150, **QUIET), None, "within the noise"),
        (a(SPEED, 995.0, **SILENT), a(SPEED, 1000.0, **SILENT), None, "within the noise"),
        # A time is bounded by the noise floor of the machine.
        (a(STEP, 0.6, 0.001), a(STEP, 0.5, 0.001), 0.1, "regressed"),
        (a(STEP, 0.5, 0.001), a(STEP, 0.6, 0.001), 0.1, "improved"),
        (a(STEP, 0.6, 0.001), a(STEP, 0.5, 0.001), 0.25, "within the noise"),
        (a(STEP, 0.6, 0.001), a(STEP, 0.5, 0.001), None, "not comparable"),
        # What is counted has changed beyond one percent.
        (a(KEPT, 101.5, n=3), a(KEPT, 100.0, n=3), None, "regressed"),
        (a(KEPT, 98.5, n=3), a(KEPT, 100.0, n=3), None, "improved"),
        (a(KEPT, 100.9, n=3), a(KEPT, 100.0, n=3), None, "unchanged"),
        (a(KEPT, 1.0), a(KEPT, 0.0), None, "regressed"),
        (a(KEPT, 0.0), a(KEPT, 0.0), None, "unchanged"),
        # Single trainings have no interval.
        (a(TRAINING_SPEED, 800.0, n=1), a(TRAINING_SPEED, 1000.0, n=1), 0.15, "regressed"),
        (a(TRAINING_SPEED, 800.0, n=1), a(TRAINING_SPEED, 1000.0, n=1), None, "not comparable"),
        (a(BITS, 2.05, n=1), a(BITS, 2.0, n=1), None, "regressed"),
        # Losses over seeds have changed when their intervals do not meet.
        (a(LOSS, 3.3, 0.1, n=5), a(LOSS, 3.0, 0.1, n=5), None, "regressed"),
        (a(LOSS, 2.7, 0.1, n=5), a(LOSS, 3.0, 0.1, n=5), None, "improved"),
        (a(LOSS, 3.15, 0.1, n=5), a(LOSS, 3.0, 0.1, n=5), None, "within the noise"),
        # What could be measured and no longer can, and the way back.
        (a(SPEED, None, status="failed"), BEFORE, None, "regressed"),
        (BEFORE, a(SPEED, None, status="failed"), None, "improved"),
    ],
)
def test_a_number_has_changed_only_beyond_the_bound_of_its_kind(now, then, machine_floor, verdict):
    assert judge(now, then, machine_floor).verdict == verdict


def test_the_change_and_its_bound_are_told():
    found = judge(a(SPEED, 950.0, 1, floor=0.02), a(SPEED, 1000.0, 1, floor=0.06), None)
    small = judge(a(SPEED, 995.0, **SILENT), a(SPEED, 1000.0, **SILENT), None)
    single = judge(a(TRAINING_SPEED, 800.0, n=1), a(TRAINING_SPEED, 1000.0, n=1), 0.15)

    assert (found.verdict, found.change) == ("within the noise", pytest.approx(-0.05))
    assert found.bound.startswith("6.0% (noise floor)")
    assert small.bound.startswith("1.0%")
    assert "no interval" in single.bound


def test_too_few_processes_on_either_side_or_no_row_to_compare_with_compare_nothing():
    few = judge(a(SPEED, 500.0, **QUIET), a(SPEED, 1000.0, n=5, **QUIET), None)
    new = judge(a(SPEED, 1000.0), None, None)

    assert few.verdict == new.verdict == "not comparable"
    assert "needs 6 processes, these are 5" in few.reason
    assert new.reason == "the run before has no such row"


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


def test_intervals_that_touch_are_not_disjoint():
    assert not are_disjoint(a(LOSS, 3.0, 0.5), a(LOSS, 4.0, 0.5))
    assert are_disjoint(a(LOSS, 3.0, 0.5), a(LOSS, 4.001, 0.5))
    assert not are_disjoint(a(LOSS, 3.0), a(LOSS, None))
