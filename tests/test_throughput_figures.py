"""The figures of throughput show every label, and draw whatever became of the rows."""

import re

from psannlm.pages.throughput import figures as throughput_figures
from psannlm.pages.throughput.tables import throughput_table
from tests.synthetic import throughput_config, throughput_records

CONFIG = throughput_config(
    base=("respsann", "sgrpsann"), batch_tokens=(32, 64), mode=("forward", "train_step")
)
SPEEDS = {"respsann": 800.0, "sgrpsann": 900.0, "transformer": 1000.0}
TABLE = throughput_table(
    throughput_records(CONFIG, SPEEDS), CONFIG, timestamp="20260101_000000", device="a CPU"
)


def test_a_table_in_which_everything_failed_still_draws():
    failed = TABLE.assign(status="failed")

    assert "<svg" in throughput_figures.speed(failed).html
    assert "<svg" in throughput_figures.ceiling(failed).html


def test_every_label_of_the_table_stands_in_the_legend():
    words = set(re.findall(r">([^<>]+)</text>", throughput_figures.speed(TABLE).html))

    assert set(TABLE["label"]) <= words
