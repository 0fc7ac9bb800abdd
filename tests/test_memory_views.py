"""What people read of memory is what the tables hold."""

import pytest

from psannlm.files import MIB
from psannlm.pages.memory import views as memory_views
from psannlm.pages.memory.tables import memory_tables
from tests.synthetic_memory import (
    failed_record,
    memory_config,
    memory_record,
    memory_records,
    peer_record,
)

CONFIG = memory_config(n_repeats=2)
ASKED = CONFIG.model_dump(mode="json")


def tables(records, peers=()):
    return memory_tables(records, peers, CONFIG, timestamp="t", device="a CPU")


MEMORY = tables(memory_records(CONFIG, noise=0.0))


def test_there_is_one_row_a_base_and_precision_at_the_first_batch():
    pairs = memory_views.pairs(MEMORY, ASKED)

    found = list(zip(pairs["precision"], pairs["base"], strict=True))
    assert found == [(p, base) for p in ("fp32", "bf16") for base in ("respsann", "transformer")]


def test_a_pair_has_bytes_predicted_and_counted_and_the_price_in_time():
    row = memory_views.pairs(MEMORY, ASKED).iloc[0]

    assert row["saved for backward, MiB: off"] == "10.0"
    assert row["on"] == "4.0"
    assert row["less"] == "6.0 MiB less (60%)"
    assert (row["predicted: off"], row["predicted: on"]) == ("10.0", "4.0")
    assert row["peak of torch's allocator, MiB: off"] == "19"
    assert row["peak of torch's allocator, MiB: on"] == "13"
    assert row["time ratio (95% interval)"] == "1.30 (1.30 – 1.30)"
    assert row["result"] == "ok"


def test_one_process_gives_no_interval():
    alone = tables([memory_record(), memory_record(grad_checkpoint=True)])

    [row] = memory_views.pairs(alone, ASKED).to_dict("records")

    assert row["time ratio (95% interval)"] == "1.00"
    assert list(memory_views.rows(alone)["step, s (95% interval)"]) == ["0.500", "0.500"]


@pytest.mark.parametrize(
    ("mib", "share", "said"),
    [
        (6.0, 0.6, "6.0 MiB less (60%)"),
        (0.0, 0.0, "no less"),
        (-0.04, -0.001, "no less"),
        (0.04, 0.001, "no less"),
        (-2.0, -0.2, "2.0 MiB more (20%)"),
        (None, None, "—"),
    ],
)
def test_less_is_said_only_of_what_is_less(mib, share, said):
    assert memory_views.less(mib, share) == said


def test_every_part_stands_beside_what_was_measured():
    row = memory_views.breakdown(MEMORY, ASKED).iloc[0]

    parts = [row[f"{name}, MiB"] for name in ("parameters", "gradients", "optimizer", "logits")]
    assert parts == ["2.0", "2.0", "4.0", "1.0"]
    assert (row["saved: mlp"], row["saved: attention"]) == ("7.5", "2.5")
    assert (row["saved, predicted"], row["saved, counted"]) == ("10.0", "10.0")
    assert row["saved: error"] == "+0.0%, within 2%"


def test_kinds_of_saved_tensors_come_by_their_size():
    assert memory_views.kinds_of(MEMORY.rows) == ["mlp", "attention"]


def test_fast_paths_are_told_by_name_and_apart_from_checkpointing():
    savers = memory_views.savers(MEMORY)

    assert set(savers["what saves"]) == {"the fast sine", "the chunked loss"}
    assert savers.iloc[0]["less"] == "10.0 MiB less (50%)"


def test_a_failed_row_shows_its_reason_and_dashes():
    rows = memory_views.rows(tables([failed_record("out of memory: full")]))

    [row] = rows.to_dict("records")
    assert row["result"] == "failed: out of memory: full"
    assert row["saved for backward, MiB"] == "—"
    assert row["predicted"] == "10.0"
    assert row["processes"] == "0 (1 failed)"


def test_a_gpu_and_a_cpu_differ_in_what_is_reserved():
    on_cuda = memory_record(peak_reserved_bytes=64 * MIB)

    assert list(memory_views.rows(tables([on_cuda]))["reserved on the GPU, MiB"]) == ["64"]
    assert set(memory_views.rows(MEMORY)["reserved on the GPU, MiB"]) == {"—"}


def test_the_published_package_stands_beside_ours_with_the_ratio():
    [row] = memory_views.peer(tables(memory_records(CONFIG), [peer_record()])).to_dict("records")

    assert row["package"] == "package 1.0"
    assert row["saved for backward, MiB: package"] == "25.0"
    assert row["saved for backward, MiB: ours"] == "10.0"
    assert row["ratio"] == "0.400"
    assert row["goal: at most"] == "—", "the goal is for another shape"


def test_without_a_package_its_table_is_empty():
    assert memory_views.peer(MEMORY).empty


def test_the_files_of_a_run_hold_its_tables():
    manifest = {
        "notebook": "memory",
        "run": "20260101_000000",
        "preset": "cpu",
        "environment": {"device": "a CPU"},
        "parameters": ASKED,
        "command": "papermill x y",
    }

    files = memory_views.files(MEMORY, manifest)

    assert set(files) == {"memory.json", "savings.csv", "peer.csv", "README.md"}
    assert "| respsann | fp32 | 10.0 | 4.0 | 6.0 MiB less (60%) |" in files["README.md"]
    assert "steps of 32 tokens in sequences of 16" in files["README.md"]
