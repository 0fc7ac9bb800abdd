"""What autograd keeps for backward, counted by storage."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def kept_by(step: Callable[[], object], model: nn.Module) -> int:
    """Bytes of all storages but those of parameters that autograd keeps for backward."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    storages: dict[int, tuple[int, Tensor]] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = step()
    assert result is not None
    return sum(size for address, (size, _) in storages.items() if address not in own)
