"""What the throughput page is asked to measure."""

from typing import Literal

from psannlm.config.schema import OneOrMore, Text
from psannlm.config.training import BatchSettings

Mode = Literal["forward", "train_step"]


class ThroughputConfig(BatchSettings):
    """Everything that notebooks/throughput.ipynb may vary."""

    baseline: Text  # base that every ratio is taken against; measured twice, for the noise floor
    mode: OneOrMore[Mode]
    compile: bool
