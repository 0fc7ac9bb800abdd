"""What the checks are asked to hold, and on which networks."""

from typing import Literal

from psannlm.config.network import Architecture
from psannlm.config.schema import AnyOf, Count, OneOrMore, Positive, Seed, Text
from psannlm.config.training import Device, Preset

Half = Literal["bf16", "fp16"]
Check = Literal[
    "GPU-01", "GPU-02", "GPU-03", "GPU-04", "GPU-05", "GPU-06", "GPU-07", "GPU-08", "FAST"
]
"""Names of the checks of the validation page; FAST holds fast paths against plain ones."""


class ValidationConfig(Architecture):
    """Everything that notebooks/validation.ipynb may vary."""

    preset: Preset
    base: AnyOf[Text]  # none named means every base: the configuration of a run names them all
    only: AnyOf[Check]  # checks that run; none named means all
    corpus: Text  # path of the text that is fitted, one paragraph a line
    batch: Count  # B, sequences of a batch, each context_length tokens long
    precision: OneOrMore[Half]  # what is held against fp32
    n_seeds: Count  # of weights, each with text of its own, that precisions are compared on
    fit_steps: Count  # optimizer steps in which a network has to learn a short text
    learning_rate: Positive  # of those steps
    compile: bool  # whether the compiled network is held against the eager one too
    min_seconds: Positive  # least time that the timed steps of a speed take together
    min_steps: Count  # least number of timed steps of a speed
    timeout_seconds: Positive  # a process that runs longer is stopped, and its check fails
    device: Device
    seed: Seed
