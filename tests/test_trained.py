"""The page's training leaves files that agree, and goes on in its own folder."""

import json

import pandas as pd
import pytest
import torch

from psannlm.bench import ceiling
from psannlm.evidence.runs import Run, load
from psannlm.evidence.session import Page
from psannlm.model.bases import build
from psannlm.pages.tiny_corpus import (
    bounds as training_identities,
)
from psannlm.pages.tiny_corpus import (
    measure as trained,
)
from psannlm.pages.tiny_corpus import (
    tables as training_tables,
)
from psannlm.train import data
from tests.synthetic import executed_notebook, start_manifest
from tests.trainings import training_config


@pytest.fixture(scope="module", autouse=True)
def elsewhere(tmp_path_factory):
    """Checkpoints and cache in a folder of these tests; a ceiling that takes no time."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trained, "CHECKPOINTS", folder / "checkpoints")
        patch.setattr(trained, "CEILING_SECONDS", 0.001)
        patch.setattr(trained, "CEILING_STEPS", 1)
        patch.setattr(ceiling, "SIZES", {"cpu": (256,)})
        patch.setattr(data, "CACHE", folder / "cache")
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A page whose network was trained for a few steps, and what came of it."""
    page = opened(tmp_path_factory.mktemp("run"))
    return page, trained.train(page)


def opened(tmp_path, **changes) -> Page:
    few = {"vocab_size": 257, "tokenizer": "bytes", "train_megabytes": 0.002, "ngram_order": 3}
    few |= {"validation_megabytes": 0.0005, "batch_tokens": 256, "sample_tokens": 9}
    config = training_config(**few | changes)
    manifest = start_manifest("tiny_corpus", config)
    run = Run.start("benchmarks", manifest, reports=tmp_path / "reports")
    return Page("tiny_corpus", config, run, torch.device("cpu"))


def problems(page: Page) -> list[str]:
    page.run.write("tiny_corpus.ipynb", json.dumps(executed_notebook()))
    page.run.seal("complete")
    return list(training_identities.problems(load(page.run.folder)))


def test_what_a_training_leaves_agrees_with_itself(finished):
    page, found = finished

    assert problems(page) == []
    assert found.metrics["n_steps"] == len(found.rows("step"))
    assert 0 < found.metrics["mfu"] < 1


def test_the_run_says_which_text_and_which_tokenizer(finished):
    page, found = finished

    assert page.run.manifest["corpus"]["sha256"] == found.metrics["corpus_sha256"]
    assert page.run.manifest["corpus"]["path"] == "datasets/lm/sample.txt"
    density = page.run.manifest["tokenizer"]["bytes_per_token"]
    assert density == found.metrics["bytes_per_token"]


def test_yardsticks_are_measured_beside_the_text_of_the_network(finished):
    _, found = finished

    read = dict(zip(found.yardsticks["name"], found.yardsticks["training_bytes"], strict=True))
    assert read["3-gram model"] == found.metrics["train_split_bytes"]
    assert read["zlib"] == 0


def test_sines_are_told_before_and_after(finished):
    page, found = finished

    start = build(page.config.network, seed=page.config.seed).blocks[0].mlp.nonlinearity
    first = found.sine.iloc[0]
    assert list(found.sine["layer"].unique()) == ["0 mlp", "1 mlp"]
    assert len(found.sine) == page.config.n_layers * page.config.d_mlp
    assert first["frequency_before"] == pytest.approx(start.frequency[0].item())
    assert (found.sine["frequency_after"] != found.sine["frequency_before"]).any()


def test_a_sine_without_decay_has_none_to_tell(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "CHECKPOINTS", tmp_path / "checkpoints")
    page = opened(tmp_path, decay_mode="none", base="waveresnet", n_layers=1)

    found = trained.train(page)

    assert list(found.sine["layer"].unique()) == ["0 mlp", "0 wave"]
    assert found.sine["decay_after"].isna().all()
    assert problems(page) == []


def test_a_transformer_has_no_sines(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "CHECKPOINTS", tmp_path / "checkpoints")

    assert trained.train(opened(tmp_path, base="transformer")).sine.empty


def test_every_prompt_is_continued(finished):
    _, found = finished

    assert [sample["prompt"] for sample in found.samples] == ["The ", "It was "]
    assert all(sample["text"] for sample in found.samples)


def test_a_run_goes_on_in_the_folder_of_its_training(finished):
    page, found = finished
    before = sorted((trained.CHECKPOINTS / page.run.folder.name).rglob("*.safetensors"))
    written = [path.stat().st_mtime_ns for path in before]

    again = trained.train(page)

    pd.testing.assert_frame_equal(again.losses, found.losses)
    assert again.metrics["val_loss"] == pytest.approx(found.metrics["val_loss"], rel=1e-12)
    assert [path.stat().st_mtime_ns for path in before] == written


def test_what_is_read_is_what_was_written(finished):
    page, found = finished

    read = training_tables.read(page.run.folder)
    pd.testing.assert_frame_equal(read.losses, found.losses)
    assert read.metrics.keys() == found.metrics.keys()
