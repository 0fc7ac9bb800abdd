"""What is minimised: the loss of the next token.

Shape letters: B batch, T tokens, V vocabulary.
"""

import torch
from torch import Tensor, nn

from psannlm.device import autocast
from psannlm.model.loss import linear_cross_entropy, token_losses
from psannlm.model.transformer import Transformer


class NextToken(nn.Module):
    """A network with its loss, so that logits of B * T * V values never exist at one time.

    In training the mean loss of the batch in nats, as a scalar. In evaluation two rows: the nats of
    each token, and 1 where it was the likeliest, else 0; both 0 where the target is ignored.

    Args:
        model: The network.
        precision: Of its matrix products.
        chunk_tokens: Tokens whose logits exist at one time.
        compiled: Whether the loss is compiled even where the network around it is not.

    Shape:
        (B, T) tokens, (B, T) targets -> () or (2, B * T)
    """

    def __init__(
        self, model: Transformer, precision: str, chunk_tokens: int, *, compiled: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.precision, self.chunk_tokens, self.compiled = precision, chunk_tokens, compiled

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        head = self.model.lm_head.weight
        with autocast(tokens.device, self.precision):
            hidden = self.model.hidden(tokens).flatten(0, 1)  # (B * T, D)
            if self.training:
                return linear_cross_entropy(
                    hidden,
                    head,
                    targets.flatten(),
                    chunk_tokens=self.chunk_tokens,
                    compiled=self.compiled,
                )
            losses, hits = token_losses(
                hidden, head, targets.flatten(), chunk_tokens=self.chunk_tokens
            )
        return torch.stack([losses, hits.to(losses.dtype)])
