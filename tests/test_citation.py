"""The citation file agrees with the package and the book, and BibTeX follows from it."""

import tomllib

import pytest
import yaml

from psannlm import ROOT, __version__
from psannlm.config.schema import ConfigError
from psannlm.publish.citation import SOURCE, Citation, citation


def test_the_citation_names_the_version_title_authors_and_license_of_the_project():
    book = yaml.safe_load((ROOT / "_config.yml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    cited = citation()

    assert cited.version == __version__
    assert cited.title == book["title"]
    assert cited.authors == (book["author"],)
    assert cited.license == project["license"]
    assert cited.date.startswith(book["copyright"])


def test_the_file_has_what_the_format_requires():
    content = yaml.safe_load(SOURCE.read_text())

    assert content["cff-version"] == "1.2.0"
    assert set(content) >= {"message", "title", "authors", "abstract", "keywords", "type"}


def test_bibtex_says_what_the_file_says():
    cited = Citation("100% of R&D", ("A B", "C, D"), "1.2", "2031-04-09", "MIT")

    assert cited.bibtex == (
        "@software{psannlm_report_2031,\n"
        "  author = {{A B} and {C, D}},\n"
        "  title = {{100\\% of R\\&D}},\n"
        "  year = {2031},\n"
        "  month = {4},\n"
        "  version = {1.2},\n"
        "  note = {Software and data, MIT license}\n"
        "}\n"
    )


def test_persons_are_cited_by_family_and_given_names(tmp_path):
    path = tmp_path / SOURCE.name
    person = "  - {family-names: Noether, given-names: Emmy}"
    text = SOURCE.read_text().replace("  - name: The PSANN-LM benchmark authors", person)
    path.write_text(text)

    assert citation(path).authors == ("Noether, Emmy",)


@pytest.mark.parametrize("gone", ["title:", "version:", "license:", "date-released:"])
def test_a_file_that_lacks_something_is_refused_by_its_name(tmp_path, gone):
    path = tmp_path / SOURCE.name
    lines = SOURCE.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if not line.startswith(gone)))

    with pytest.raises(ConfigError, match=f"CITATION.cff must have .*{gone[:-1]}"):
        citation(path)
