"""What a shootout is asked to do: arms, equal budgets of tuning, seeds, controls.

Knows nothing of torch, nor of files. An arm is a name under which a network is compared: a base, or
a nonlinearity of the base `transformer`.
"""

from typing import ClassVar, Literal

from psannlm.config.schema import AnyOf, Count, OneOrMore, Positive, Processes, Rule, Seed, Text
from psannlm.config.training import TrainingSettings

Match = Literal["parameters", "width"]


class ShootoutConfig(TrainingSettings):
    """Everything that notebooks/shootout.ipynb may vary."""

    base: AnyOf[Text]
    """Arms; none named means all there are."""

    baseline: Text
    """The arm that differences are taken against."""

    match: Match
    """What arms have in common: the baseline's number of parameters, reached by d_mlp, or d_mlp."""

    learning_rates: OneOrMore[Positive]
    """Grid of arms whose nonlinearity has no frequency."""

    scaled_learning_rates: OneOrMore[Positive]
    scaled_frequencies: OneOrMore[Positive]
    """Grid, with the learning rates before it, of arms whose nonlinearity has an initial f."""

    tuning_seed: Seed
    """Of every tuning; none of `seeds`, so that no published training was chosen by."""

    seeds: OneOrMore[Seed]
    """Of weights and the order of text; the same for all arms."""

    side_seeds: Count
    """How many of the seeds the ablation and the scales take, from the first on."""

    ablation: AnyOf[Text]
    """Arms with a damped sine of which every subset of learned parameters is trained."""

    scales: AnyOf[Positive]
    """Initial scales: f where there is one, else factors of init_std of all weights."""

    scale_arms: AnyOf[Text]
    """Arms that are trained at every scale."""

    cells_at_once: Processes
    """Trainings at a time; 0 is one a GPU, or one."""

    scheduler: str
    """Address of a dask scheduler whose workers train; empty for this machine."""

    timeout_seconds: Positive
    """A training that takes longer is stopped and becomes a row that says so."""

    with_lm_eval: bool
    lm_eval_tasks: AnyOf[Text]
    lm_eval_limit: Count
    """Items of each task."""

    lm_eval_folder: str
    """Folder of task definitions of one's own; empty for those that lm-eval knows."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *TrainingSettings.rules,
        Rule(
            ("learning_rates", "scaled_learning_rates", "scaled_frequencies"),
            lambda plain, scaled, frequencies: len(plain) == len(scaled) * len(frequencies),
            "every arm must be tuned with as many settings: learning_rates ({}) must be as many as "
            "scaled_learning_rates ({}) times scaled_frequencies ({})",
        ),
        Rule(
            ("tuning_seed", "seeds"),
            lambda one, seeds: one not in seeds,
            "tuning_seed must be none of seeds, got {} and {}",
        ),
        Rule(
            ("side_seeds", "seeds"),
            lambda n, seeds: n <= len(seeds),
            "side_seeds must be at most the number of seeds, got {} and {}",
        ),
    )
