"""What a training step saves for backward and holds at its peak, from the configuration alone.

Shape letters: B batch, T tokens, N = B * T, C tokens of a chunk, D d_model, V vocabulary.
"""

from collections import Counter
from collections.abc import Mapping

from psannlm.config.network import ModelConfig
from psannlm.model import saved_activations
from psannlm.model.bases import base_of, cost_of
from psannlm.model.cost import training_bytes
from psannlm.model.saved_activations import WIDE, SavedActivations, Step


def training_memory(config: ModelConfig, step: Step, chunk_tokens: int) -> Mapping[str, int]:
    """Bytes of a steady training step: forward, backward, fused AdamW, gradients freed.

    `parameters`, `gradients`, `optimizer`; `logits` of one chunk, or all with the plain loss, and
    what the loss holds beside them at one time; `saved: KIND` of each kind, of all storages but
    those of parameters, as torch's saved-tensor hooks see them; and `peak`, predicted, of what an
    allocator gives out. Not all of these are there at one time. The peak is parameters and
    optimizer state with the largest of these moments (see `SavedActivations`):

    - The loss: all that is saved, and the logits.
    - The backward pass of any part, above all that of the last layers, where all before them is
      still saved, and that of the first ones, where all behind them has become gradients. A
      checkpointed block is there once more as it would be without.
    - The end of backward: all gradients.
    """
    whole = _embedding(config, step)
    for layer in range(config.n_layers):
        whole += _block(config, step, layer)
    whole += saved_activations.norm(config, step) + _loss(config, step, chunk_tokens)
    fixed = training_bytes(cost_of(config, step.shape).n_parameters)
    return {
        **fixed,
        "logits": _logits(config, step, chunk_tokens),
        **{f"saved: {kind}": size for kind, size in whole.kinds.items() if size},
        "peak": fixed["parameters"] + fixed["optimizer"] + whole.peak,
    }


def _embedding(config: ModelConfig, step: Step) -> SavedActivations:
    """The tokens; its gradient is as large as itself."""
    size = WIDE * config.vocab_size * config.d_model
    stream = WIDE * step.n * config.d_model
    return SavedActivations(Counter({"tokens": 8 * step.n}), working=size + stream, gradients=size)


def _block(config: ModelConfig, step: Step, layer: int) -> SavedActivations:
    """One block; checkpointed, it saves its input alone until its backward needs the rest."""
    block = base_of(config).saved(config, step, layer)
    if config.grad_checkpoint:
        stream = saved_activations.stream(config, step)
        return SavedActivations(stream.kinds, gradients=block.gradients, peak=block.peak)
    return block


def _loss(config: ModelConfig, step: Step, chunk_tokens: int) -> SavedActivations:
    """The loss of `train/` saves finished gradients, a plain one log-probabilities and input."""
    n, width, vocabulary = step.n, config.d_model, config.vocab_size
    kinds, size = Counter[str](), vocabulary * width
    if step.variant == "plain_loss":
        kinds["loss"] = WIDE * n * vocabulary + 8 * n + WIDE
        kinds["head"] = step.item * n * width
        kinds["weights cast"] = step.item * size if step.casts else 0
        working = 0
    else:
        kinds["loss"] = step.item * n * width + 8
        kinds["head gradient"] = WIDE * size
        working = WIDE * n * width + (step.item * (size + n * width) if step.casts else 0)
    working += _logits(config, step, chunk_tokens)
    return SavedActivations(kinds, working=working, gradients=WIDE * size)


def _logits(config: ModelConfig, step: Step, chunk_tokens: int) -> int:
    """What the loss holds at one time beside what it saves.

    Of a chunk, (C, V): the logits, under autocast once more in float32, exponentials, those with
    1 taken from each target's, both chosen from, and the truth values that choose. Of a plain loss,
    when backward starts, (N, V): the gradients of the log-probabilities and of the logits.
    """
    if step.variant == "plain_loss":
        return 2 * WIDE * step.n * config.vocab_size
    numbers = min(chunk_tokens, step.n) * config.vocab_size
    return numbers * (4 * WIDE + 1 + (step.item if step.casts else 0))
