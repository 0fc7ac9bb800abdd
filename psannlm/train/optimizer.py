"""The optimizers of a training: which parameters decay, and how the learning rate goes.

AdamW (Loshchilov and Hutter 2019) for all parameters, or Muon (Jordan et al. 2024) for the
matrices inside the blocks and AdamW for the rest.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig

MUON_MOMENTUM = 0.95


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """The optimizers that together hold every learned parameter of `model` once.

    Raises:
        ConfigError: Muon is asked for and this torch has none.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    settings: dict[str, Any] = {
        "lr": config.learning_rate,
        "betas": (config.beta1, config.beta2),
        "fused": True,
    }
    if config.optimizer == "adamw":
        return [torch.optim.AdamW(_groups(named, config.weight_decay), **settings)]
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(
            f"optimizer: muon needs torch 2.9 or newer, this is {torch.__version__}; use adamw"
        )
    hidden = [(name, p) for name, p in named if _is_hidden_matrix(name, p)]
    others = [(name, p) for name, p in named if not _is_hidden_matrix(name, p)]
    muon = torch.optim.Muon(
        hidden,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        momentum=MUON_MOMENTUM,
        adjust_lr_fn="match_rms_adamw",  # so that one learning rate serves both
    )
    return [muon, torch.optim.AdamW(_groups(others, config.weight_decay), **settings)]


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay pulls a parameter to zero: matrices only.

    Norms, biases and the scalars and sine parameters that set a scale are left where they are;
    zero means nothing special to them.
    """
    return parameter.dim() >= 2 and name.rsplit(".", 1)[-1] == "weight"


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    ends = ("embedding.", "lm_head.")
    return is_decayed(name, parameter) and parameter.dim() == 2 and not any(e in name for e in ends)


def _groups(named: Iterable[tuple[str, nn.Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    named = list(named)
    groups = [
        {"params": [x for x in named if is_decayed(*x)], "weight_decay": weight_decay},
        {"params": [x for x in named if not is_decayed(*x)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def rate_at(step: int, n_steps: int, config: TrainingConfig) -> float:
    """Learning rate of optimizer step `step`, counted from 1, of `n_steps`.

    It rises linearly over the warm-up. Then `cosine` falls along half a cosine to its final share
    at the last step; `wsd` stays, and falls linearly over the last steps (Hu et al. 2024).
    """
    n_warmup = round(config.warmup_fraction * n_steps)
    if step <= n_warmup:
        return config.learning_rate * step / n_warmup
    if config.schedule == "cosine":
        n_falling = n_steps - n_warmup
    else:
        n_falling = round(config.decay_fraction * n_steps)
    done = step - (n_steps - n_falling)
    if done <= 0:
        return config.learning_rate
    share, low = done / n_falling, config.final_fraction
    left = 0.5 * (1 + math.cos(math.pi * share)) if config.schedule == "cosine" else 1 - share
    return config.learning_rate * (low + (1 - low) * left)


def set_rate(optimizers: Iterable[Optimizer], rate: float) -> None:
    """Make `rate` the learning rate of every group."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate
