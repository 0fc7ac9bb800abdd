"""A built book keeps the icons that it shows, and no others."""

import shutil
from pathlib import Path

import pydata_sphinx_theme
import pytest
from fontTools.ttLib import TTFont

from psannlm.publish import theme as icons

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
BARS, BELL, SUN = 0xF0C9, 0xF0F3, 0xF185


@pytest.fixture
def site(tmp_path):
    for name in (icons.SCRIPT, icons.SHEET, icons.FONT):
        target = tmp_path / "_static" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(THEME / name, target)
    (tmp_path / "page.html").write_text('<i class="fa-solid fa-bars"></i>')
    return tmp_path


def test_shown_icons_stay_and_others_go(site):
    icons.lighten(site)
    icons.lighten(site)  # of a build with nothing new

    sheet = (site / "_static" / icons.SHEET).read_text()
    with TTFont(site / "_static" / icons.FONT) as font:
        signs = set(font.getBestCmap())
    assert ".fa-bars:before" in sheet
    assert ".fa-sun:before" not in sheet
    assert "fa-solid-900.woff2" not in sheet
    assert BARS in signs
    assert SUN not in signs
    assert (site / "_static" / icons.SCRIPT).stat().st_size < 100


def test_a_sign_that_a_style_sheet_writes_by_number_or_as_it_is_stays(site):
    own = site / "_static" / "own.css"
    own.write_text(f'.a {{ content: "{chr(BELL)}"; }} .b {{ content: "\\f185"; }}', "utf-8")

    icons.lighten(site)

    with TTFont(site / "_static" / icons.FONT) as font:
        assert {BELL, SUN} <= set(font.getBestCmap())


def test_a_book_of_another_theme_is_left_as_it_is(tmp_path):
    (tmp_path / "page.html").write_text("<p>one</p>")

    icons.lighten(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
