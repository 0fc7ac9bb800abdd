"""What a notebook's cells call, without a notebook."""

import pytest

from psannlm.report.notebook import assigned, command_line, default_parameters, given_parameters


def test_assignments_are_read_with_and_without_annotation():
    source = 'a: int = 1  # one\nb = ["x", 2]\nc: float = -0.5\nprint(a)\n'

    assert assigned(source) == {"a": 1, "b": ["x", 2], "c": -0.5}


def test_a_value_that_is_no_literal_is_kept_as_text():
    assert assigned("a = float('nan')") == {"a": "float('nan')"}


def test_injected_names_that_the_notebook_lacks_are_seen():
    namespace = {
        **default_parameters("throughput"),
        "setps": 3,
        "base": "respsann",
        "In": ["", "preset = 'smoke'", "# Parameters\nbase = 'respsann'\nsetps = 3\n"],
    }

    given = given_parameters("throughput", namespace)

    assert given["setps"] == 3
    assert given["base"] == "respsann"
    assert "In" not in given


def test_a_name_that_was_not_injected_is_no_parameter():
    namespace = {**default_parameters("throughput"), "scratch": 1, "In": ["", "scratch = 1"]}

    assert "scratch" not in given_parameters("throughput", namespace)


def test_the_command_of_a_process_that_is_gone_is_unknown():
    assert command_line(2**22 + 1) == "unknown"


@pytest.mark.parametrize("name", ["throughput"])
def test_a_notebook_declares_its_parameters(name):
    assert {"preset", "seed", "device"} <= set(default_parameters(name))
