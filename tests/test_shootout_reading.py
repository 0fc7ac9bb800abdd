"""What is said below the tables names the grids, the gates and whatever was left out."""

from dataclasses import replace

from psannlm.pages.shootout import reading as shootout_reading
from tests.shown_shootouts import ASKED, shown, with_summary


def test_reading_tells_grids_of_equal_size():
    said = shootout_reading.reading(shown(), ASKED)

    assert "2 settings for every arm, with seed 100" in said
    assert "learning rates 0.001, 0.003; for arms whose" in said
    assert "learning rates 0.003 with f 1, 2.25." in said


def test_reading_names_arms_at_the_edge_of_their_grids():
    edge = with_summary("respsann", grid_edge=True, learning_rate=0.003, sine_frequency=5.0)

    said = shootout_reading.reading(edge, ASKED)

    assert "**At the edge** of their grids: respsann (learning rate 0.003, f 5). A better" in said
    assert "At the edge" not in shootout_reading.reading(shown(), ASKED)


def test_reading_tells_what_arms_have_in_common():
    by_width = shootout_reading.reading(shown(), ASKED)
    matched = with_summary("respsann", d_mlp=30)
    by_parameters = shootout_reading.reading(matched, ASKED | {"match": "parameters"})

    row = shown().summary.set_index("base").loc["respsann"]
    assert f"respsann {row['n_parameters']:,}" in by_width
    assert "**Width** is equal, d_mlp 32; parameters are not" in by_width
    assert "as many as those of gelu, as near as d_mlp can come" in by_parameters
    assert "respsann 30" in by_parameters


def test_reading_tells_whom_equal_budgets_disfavour():
    said = shootout_reading.reading(shown(), ASKED)

    assert "The dearer arm is cut before the end of its own schedule" in said


def test_reading_tells_refusals_and_failures():
    odd = with_summary("respsann", refused="it sees the future", n_failed=2)

    said = shootout_reading.reading(odd, ASKED)

    assert "**respsann** has no place: it sees the future." in said
    assert "**Failed** of the compared trainings: respsann 2." in said
    assert "no place" not in shootout_reading.reading(shown(), ASKED)


def test_scores_that_were_not_asked_for_say_how_to_ask():
    not_asked = shootout_reading.lm_eval(shown(), ASKED)
    not_there = shootout_reading.lm_eval(shown(), ASKED | {"with_lm_eval": True})

    assert "`with_lm_eval: true` asks for lambada_openai, hellaswag" in not_asked
    assert "no compared training came to its end" in not_there


def test_reading_tells_what_the_gates_have_found():
    gates = shown().gates

    said = shootout_reading.reading(shown(), ASKED)
    unexamined = shootout_reading.reading(replace(shown(), gates=[]), ASKED)

    assert f"by more than {max(gate.leak for gate in gates):.1e} of the largest" in said
    near = min((gate for gate in gates if gate.nearest), key=lambda gate: gate.distance)
    assert f"{near.arm} and {near.nearest}, differ by {near.distance:.2g}" in said
    assert "**Gates**" not in unexamined


def test_reading_tells_who_shared_the_machine():
    shared = shootout_reading.reading(shown(), ASKED | {"cells_at_once": 2})
    cluster = shootout_reading.reading(shown(), ASKED | {"scheduler": "tcp://there:8786"})

    assert "trainings that ran 2 at a time" in shared
    assert "that of the workers that trained" in cluster
    assert "**Speed**" not in shootout_reading.reading(shown(), ASKED)
