"""The sentences of memory say what was found, and nothing that was not."""

import pytest

from psannlm.files import MIB
from psannlm.pages.memory import prose as memory_words
from psannlm.pages.memory.tables import memory_tables
from tests.synthetic_memory import (
    failed_record,
    memory_config,
    memory_record,
    memory_records,
    peer_record,
)

CONFIG = memory_config(base=("respsann",), precision=("fp32",))
ASKED = CONFIG.model_dump(mode="json")


def tables(records, peers=()):
    return memory_tables(records, peers, CONFIG, timestamp="t", device="a CPU")


MEMORY = tables(memory_records(CONFIG, noise=0.0))
OFF, ON = memory_record(), memory_record(grad_checkpoint=True)


def test_the_answer_states_what_checkpointing_saves_and_what_it_costs():
    said = memory_words.answer(MEMORY, ASKED)

    assert "fp32, 32 tokens a step in sequences of 16" in said
    assert "**respsann** keeps 10.0 MiB for backward against 4.0, 6.0 MiB less (60%)" in said
    assert "at 1.30 (1.30 – 1.30) × the time of a step" in said


def test_what_saves_nothing_is_not_called_a_saving():
    more = memory_record(grad_checkpoint=True, saved_bytes=12 * MIB)

    said = memory_words.answer(tables([OFF, more]), ASKED)

    assert "against 12.0, 2.0 MiB more (20%)" in said
    assert "12.0 (2.0 MiB less" not in said


def test_curves_are_not_mixed_into_the_comparison():
    assert memory_words.answer(MEMORY, ASKED).count("keeps 10.0 MiB") == 1
    assert "20.0 MiB for backward" not in memory_words.answer(MEMORY, ASKED)


def test_fast_paths_are_told_with_what_they_save():
    said = memory_words.answer(MEMORY, ASKED)

    assert "The fast sine against the plain one, fp32: **respsann** 10.0 MiB less (50%)." in said
    assert "The chunked loss against the plain one, fp32: **respsann** 5.0 MiB less (33%)." in said


def test_predictions_are_counted_with_their_largest_error():
    off = memory_record(saved_bytes=8 * MIB)

    said = memory_words.answer(tables([off, ON]), ASKED)

    assert "for backward within 2% in 1 of 2 rows (largest error 25.0%)" in said
    assert "allocator within 10% in 2 of 2 rows" in said


def test_failed_rows_are_counted():
    assert "1 of 2 rows failed" in memory_words.answer(tables([failed_record(), ON]), ASKED)
    assert "failed" not in memory_words.answer(tables([OFF, ON]), ASKED)


def test_the_published_package_is_named_with_the_ratio():
    said = memory_words.answer(tables([OFF, ON], [peer_record()]), ASKED)

    assert "10.0 MiB for backward, **0.400 ×** the 25.0 MiB of the published package 1.0." in said


@pytest.mark.parametrize(("bytes_", "verdict"), [(25 * MIB, "reached"), (20 * MIB, "not reached")])
def test_a_goal_is_told_where_the_shape_is_the_one_it_is_for(bytes_, verdict):
    shape = {"vocab_size": 32_000, "d_model": 512, "n_layers": 8, "context_length": 512}
    config = memory_config(**shape, base=("respsann",), batch_tokens=(512,), contexts=())
    place = {"context_length": 512, "batch_tokens": 512}
    mine = memory_record(**place, saved_bytes=10 * MIB)
    peer = peer_record(**place, saved_bytes=bytes_)
    memory = memory_tables([mine], [peer], config, timestamp="t", device="a CPU")

    said = memory_words.answer(memory, config.model_dump(mode="json"))

    assert f"(goal: at most 0.45, {verdict})." in said


def test_a_package_that_could_not_be_measured_is_told_with_its_reason():
    peer = peer_record(status="failed", reason="cannot install it", saved_bytes=None)

    said = memory_words.answer(tables([OFF, ON], [peer]), ASKED)

    assert "no ratio to the published package 1.0: cannot install it." in said


def test_few_processes_are_said_to_be_few():
    few = ASKED | {"n_repeats": 1}

    assert "With 1 fresh process a row" in memory_words.answer(MEMORY, few)
    assert "indication" not in memory_words.answer(MEMORY, ASKED)


def test_on_a_cpu_nothing_is_called_memory_of_a_gpu():
    on_cpu = memory_words.reading(MEMORY, ASKED)
    on_cuda = memory_words.reading(tables([memory_record(peak_reserved_bytes=64 * MIB)]), ASKED)

    assert "main memory, not that of a GPU" in on_cpu
    assert "Peak RSS" in on_cpu
    assert "on the GPU" in on_cuda
    assert "Peak RSS" not in on_cuda
