"""A trend needs two runs that were asked the same on one machine."""

import pytest

from psannlm.publish.trends import FEWEST, sentences, trends
from tests.histories import history_run


def test_runs_that_were_asked_the_same_make_a_trend_in_their_order(tmp_path):
    runs = [
        history_run(tmp_path, "throughput", 1 + i, {"tokens_per_s": 100.0 * i}) for i in range(3)
    ]

    [trend] = trends(runs)

    [(key, lines)] = trend.series().items()
    assert key == ("speed", "training step, 1,024 tokens a step, fp32")
    assert [number.value for number in lines["respsann"]] == [0.0, 100.0, 200.0]
    assert trend.moments == [f"2026-01-0{day} 10:20" for day in (1, 2, 3)]
    assert not list(sentences([trend]))


@pytest.mark.parametrize("facts", [{"machine": "b"}, {"seed": 5}, {"corpus": "x"}, {"d_mlp": 8}])
def test_runs_that_were_asked_something_else_are_no_trend(tmp_path, facts):
    runs = [
        history_run(tmp_path, "tiny_corpus", 1), history_run(tmp_path, "tiny_corpus", 2, **facts)
    ]  # fmt: skip

    found = trends(runs)

    assert [len(trend.runs) for trend in found] == [1, 1]
    said = list(sentences(found))
    if "machine" in facts:
        assert said == [
            "Tiny corpus on a machine: one complete run.",
            "Tiny corpus on b: one complete run.",
        ]
    else:
        assert said == ["Tiny corpus on a machine: 2 complete runs, no two of equal parameters."]


def test_a_base_that_one_run_lacks_leaves_a_gap_in_its_line(tmp_path):
    both = {}, {"base": "transformer", "label": "transformer"}
    runs = [history_run(tmp_path, "throughput", 1), history_run(tmp_path, "throughput", 2, *both)]

    [trend] = trends(runs)

    [lines] = trend.series().values()
    assert lines["transformer"][0] is None
    assert lines["transformer"][1].value == 1000.0
    assert list(trend.series("respsann").values()) == [{"respsann": lines["respsann"]}]
    assert not trend.series("sgrpsann")


def test_another_torch_goes_on_with_the_trend_and_runs_that_failed_do_not(tmp_path):
    runs = [
        history_run(tmp_path, "memory", 1),
        history_run(tmp_path, "memory", 2, torch="9.9"),
        history_run(tmp_path, "memory", 3, status="failed"),
    ]

    [trend] = trends(runs)

    assert len(trend.runs) == FEWEST
