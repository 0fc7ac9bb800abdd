"""Rows of a dataset come in order, and a dataset that cannot be had is named."""

import json
import sys

import pytest

from psannlm.config.schema import ConfigError
from psannlm.corpora.hub import rows
from psannlm.corpora.recipe import HubSource

TEXTS = {"train": [" = A = ", "", "alpha"], "test": [" = B = ", "beta"]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A dataset of this machine in two splits."""
    pytest.importorskip("datasets.load", reason="the client of the hub is an extra")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = tmp_path / "dataset"
    found.mkdir()
    for split, texts in TEXTS.items():
        lines = [json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts)]
        (found / f"{split}.jsonl").write_text("".join(lines))
    return found


def source(folder, **changes) -> HubSource:
    common = {"kind": "hub", "name": "s", "licence": "l", "rows": "train", "revision": "abc"}
    return HubSource(**(common | {"dataset": str(folder)} | changes))


@pytest.mark.parametrize("split", TEXTS)
def test_rows_of_a_split_come_in_order(folder, split):
    assert list(rows(source(folder, rows=split))) == TEXTS[split]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": "validation"}, r"dataset \(validation\) cannot be read: ValueError: Bad split"),
        ({"column": "txt"}, "column must be one of text among text, n, got 'txt'"),
        ({"column": "n"}, "column must be one of text among text, n, got 'n'"),
        ({"config": "other"}, "cannot be read: ValueError: BuilderConfig 'other' not found"),
    ],
)
def test_what_a_dataset_does_not_have_is_refused(folder, change, message):
    with pytest.raises(ConfigError, match=message):
        list(rows(source(folder, **change)))


def test_a_missing_client_is_named_with_the_way_to_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets.load", None)

    with pytest.raises(ConfigError, match=r"run: pip install 'psannlm-report\[hub\]'"):
        list(rows(source(tmp_path)))
