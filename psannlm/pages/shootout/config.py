"""What a shootout is asked to do: arms, equal budgets of tuning, seeds, controls.

Knows nothing of torch, nor of files. An arm is a name under which a network is compared: a base, or
a nonlinearity of the base `transformer`.
"""

from typing import ClassVar, Literal

from psannlm.config.schema import AnyOf, Count, OneOrMore, Positive, Processes, Rule, Seed, Text
from psannlm.config.training import TrainingSettings


class ShootoutConfig(TrainingSettings):
    """Everything that notebooks/shootout.ipynb may vary."""

    base: AnyOf[Text]  # arms; none named means all there are
    baseline: Text  # the arm that differences are taken against
    match: Literal["parameters", "width"]  # what arms share: the baseline's size, or its d_mlp
    learning_rates: OneOrMore[Positive]  # grid of arms whose nonlinearity has no frequency
    scaled_learning_rates: OneOrMore[Positive]  # grid, with the next, of those with an initial f
    scaled_frequencies: OneOrMore[Positive]
    tuning_seed: Seed  # of every tuning; none of `seeds`: no published training was chosen by
    seeds: OneOrMore[Seed]  # of weights and the order of text; the same for all arms
    side_seeds: Count  # how many of them the ablation and the scales take, from the first on
    ablation: AnyOf[Text]  # arms with a damped sine: every subset of what it learns is trained
    scales: AnyOf[Positive]  # initial scales: f where there is one, else factors of init_std
    scale_arms: AnyOf[Text]  # arms that are trained at every scale
    cells_at_once: Processes  # trainings at a time; 0 is one a GPU, or one
    scheduler: str  # address of a dask scheduler whose workers train; empty for this machine
    timeout_seconds: Positive  # a longer training is stopped and becomes a row that says so
    with_lm_eval: bool
    lm_eval_tasks: AnyOf[Text]
    lm_eval_limit: Count  # items of each task
    lm_eval_folder: str  # of task definitions of one's own; empty for those that lm-eval knows

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
