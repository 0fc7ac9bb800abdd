"""What a training step keeps and holds in memory, from the configuration alone.

Shape letters: B batch, T tokens, N = B * T, C tokens of a chunk, D d_model, V vocabulary.
"""

from collections import Counter
from collections.abc import Mapping

from psannlm.architecture import ModelConfig
from psannlm.model import kept
from psannlm.model.bases import base_of
from psannlm.model.cost import Shape
from psannlm.model.kept import WIDE, Kept, Step


def saved_bytes(
    config: ModelConfig,
    shape: Shape,
    *,
    precision: str,
    device_type: str,
    variant: str = "default",
) -> Mapping[str, int]:
    """Bytes that one eager training step keeps for backward, by kind.

    Of all storages but those of parameters, as torch's saved-tensor hooks see them.
    """
    step = Step(shape, precision, device_type, variant)
    total = ends(config, step)
    for layer in range(config.n_layers):
        total += block(config, step, layer)
    return {kind: size for kind, size in total.kinds.items() if size}


def block(config: ModelConfig, step: Step, layer: int) -> Kept:
    """One block; checkpointed, it keeps its input alone."""
    if config.grad_checkpoint:
        return kept.stream(config, step)
    return base_of(config).kept(config, step, layer)


def ends(config: ModelConfig, step: Step) -> Kept:
    """Tokens, the last norm, and head and loss.

    The loss of `train/` keeps its finished gradients; a plain one float32 log-probabilities, and
    what the head has read.
    """
    n, width, vocabulary = step.n, config.d_model, config.vocab_size
    kinds = Counter({"tokens": 8 * n})
    if step.variant == "plain_loss":
        kinds["loss"] = WIDE * n * vocabulary + 8 * n + WIDE
        kinds["head"] = step.item * n * width
        kinds["weights cast"] = step.item * vocabulary * width if step.casts else 0
    else:
        kinds["loss"] = step.item * n * width + 8
        kinds["head gradient"] = WIDE * vocabulary * width
    return kept.norm(config, step) + Kept(kinds)
