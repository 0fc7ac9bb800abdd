"""README.md says what the committed evidence gives, and shows the figure that follows from it."""

import io

import matplotlib.image
import numpy as np
import pytest

from psannlm.config.schema import ConfigError
from psannlm.publish import landing as readme
from tests.published import committed


def test_the_findings_are_those_of_the_committed_runs():
    said = readme.BLOCK.search(readme.README.read_text())

    assert said is not None
    assert said[0] == f"{readme.BEGIN}{readme.findings(committed())}{readme.END}"


def test_the_figure_is_the_one_that_follows_from_its_run():
    now, stored = (
        matplotlib.image.imread(io.BytesIO(png), format="png")
        for png in (readme.readme_figure(committed()), readme.FIGURE.read_bytes())
    )

    assert now.shape == stored.shape
    assert np.mean(np.abs(now - stored)) < 1e-3  # antialiasing may differ between builds


def test_a_readme_without_a_place_for_them_is_refused_and_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(readme, "README", tmp_path / "README.md")
    readme.README.write_text("# Title\n")

    with pytest.raises(ConfigError, match=r"README\.md must have the lines"):
        readme.refresh_readme()
    assert readme.README.read_text() == "# Title\n"
