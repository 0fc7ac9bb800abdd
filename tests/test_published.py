"""The published figures are read as printed, and one that was altered is refused by name."""

import re

import pytest

from psannlm.config.schema import ConfigError
from psannlm.publish.published import PATH, Figure, fingerprint, load, problems

TEXT = PATH.read_text(encoding="utf-8")


def figure_with(printed: str) -> Figure:
    return load().figures[0].model_copy(update={"published": printed})


def test_the_committed_file_says_what_was_published():
    assert problems() == []
    assert [figure.published for figure in load().of("speed")] == [
        "614,749.60", "613,210.62", "612,637.03", "612,338.01", "~299k", "302k",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("printed", "value", "rounding"),
    [
        ("614,749.60", 614749.6, 0.005),
        ("~299k", 299_000, 500),
        ("1.57e-4", 0.000157, 0.0000005),
        ("0.0", 0, 0.05),
        ("20,480", 20480, 0.5),
    ],
)
def test_a_printed_number_has_a_value_and_the_rounding_of_its_last_digit(printed, value, rounding):
    figure = figure_with(printed)

    assert figure.value == pytest.approx(value)
    assert figure.rounding == pytest.approx(rounding)


def test_every_digit_of_every_figure_is_held_by_its_hash():
    for figure in load().figures:
        for place in re.finditer(r"\d", figure.published):
            for step in (1, 5):
                digit = str((int(place[0]) + step) % 10)
                text = figure.published[: place.start()] + digit + figure.published[place.end() :]

                changed = figure.model_copy(update={"published": text})

                assert fingerprint(changed) != figure.sha256, f"{figure.id}: {text}"


FIGURE = "book/published.yaml: figure checkpoint-allocated was altered, its sha256 differs"
FILE = "book/published.yaml: the file was altered, its sha256 differs"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"71.76"', '"71.77"', FIGURE),
        ("alone_mib: 24.01", "alone_mib: 24.02", FIGURE),
        ('lines: "413 to 418"', 'lines: "413 to 419"', FIGURE),
        ("n_layers: 8, precision", "n_layers: 9, precision", FIGURE),
        ('"2025-11-07"', '"2025-11-08"', FILE),
        (TEXT[TEXT.index("\n  - id: torch") :], "\n", FILE),
        ("batch: 4,", "batch: four,", r"figures\.4\.used\.batch: Input should be"),
        ("    unit: tokens\n", "    unit: tokens\n    note: x\n", r"figures\.4\.note: Extra"),
        ("figures:", "figures: [", "is not valid YAML"),
    ],
)
def test_an_altered_or_malformed_file_is_refused_with_the_place(tmp_path, old, new, said):
    path = tmp_path / "book" / "published.yaml"
    path.parent.mkdir()
    assert old in TEXT
    path.write_text(TEXT.replace(old, new, 1), encoding="utf-8")

    found = problems(path)

    assert any(re.search(said, problem) for problem in found), found
    with pytest.raises(ConfigError, match=said):
        load(path)
