"""What is minimised, the loss of the next token, and by what: AdamW, or Muon beside it.

Shape letters: B batch, T tokens, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from psannlm.config.schema import ConfigError
from psannlm.config.training import TrainingConfig
from psannlm.device import autocast
from psannlm.model.loss import linear_cross_entropy, token_losses
from psannlm.model.transformer import Transformer


class NextToken(nn.Module):
    """A network with its loss, so that logits of B * T * V values never exist at one time.

    In training the mean loss of the batch in nats, as a scalar. In evaluation two rows: the nats of
    each token, and 1 where it was the likeliest, else 0; both 0 where the target is ignored.

    Takes tokens and targets, each (B, T), and returns () or (2, B * T). Logits of `chunk_tokens`
    exist at one time. With `compiled` the loss is compiled even where the network around it is not.
    """

    def __init__(
        self, model: Transformer, precision: str, chunk_tokens: int, *, compiled: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.precision, self.chunk_tokens, self.compiled = precision, chunk_tokens, compiled

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        head, chunk = self.model.lm_head.weight, self.chunk_tokens
        with autocast(tokens.device, self.precision):
            hidden = self.model.hidden(tokens).flatten(0, 1)  # (B * T, D)
            targets = targets.flatten()
            if self.training:
                return linear_cross_entropy(
                    hidden, head, targets, chunk_tokens=chunk, compiled=self.compiled
                )
            losses, hits = token_losses(hidden, head, targets, chunk_tokens=chunk)
        return torch.stack([losses, hits.to(losses.dtype)])


def make_optimizers(model: nn.Module, config: TrainingConfig) -> list[Optimizer]:
    """The optimizers that together hold every learned parameter of `model` once.

    AdamW (Loshchilov and Hutter 2019) for all parameters, or Muon (Jordan et al. 2024) for the
    matrices inside the blocks and AdamW for the rest. ConfigError if this torch has no Muon.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    rate, decay = config.learning_rate, config.weight_decay
    hidden = [x for x in named if config.optimizer == "muon" and _is_hidden_matrix(*x)]
    others = [x for x in named if config.optimizer != "muon" or not _is_hidden_matrix(*x)]
    groups: list[dict[str, Any]] = [
        {"params": [x for x in others if is_decayed(*x)], "weight_decay": decay},
        {"params": [x for x in others if not is_decayed(*x)], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    betas = (config.beta1, config.beta2)
    adamw = torch.optim.AdamW(groups, lr=rate, betas=betas, fused=True)
    if config.optimizer == "adamw":
        return [adamw]
    if not hasattr(torch.optim, "Muon"):
        raise ConfigError(
            f"optimizer: muon needs torch 2.9 or newer, this is {torch.__version__}; use adamw"
        )
    # The rate is adjusted so that one serves both.
    options: dict[str, Any] = {"momentum": 0.95, "adjust_lr_fn": "match_rms_adamw"}
    return [torch.optim.Muon(hidden, lr=rate, weight_decay=decay, **options), adamw]


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay pulls a parameter to zero: matrices only.

    To norms, biases, scalars and the parameters of sines zero means nothing special.
    """
    return parameter.dim() >= 2 and name.rsplit(".", 1)[-1] == "weight"


def _is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    ends = ("embedding.", "lm_head.")
    return is_decayed(name, parameter) and parameter.dim() == 2 and not any(e in name for e in ends)
