"""Bytes that autograd saves for backward: counted storage by storage, exact on any device.

Needs torch alone, so that other packages' networks are counted by this same file.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Saved:
    """Storages that autograd saves, each once however many tensors view it."""

    excluded: frozenset[int] = frozenset()
    """Addresses of storages that are there anyway: those of parameters."""

    storages: dict[int, Tensor] = field(default_factory=dict)
    """By address, the largest tensor saved of it; kept alive, so that no address comes twice."""

    def add(self, tensor: Tensor) -> None:
        """Note a tensor that backward will need."""
        address = tensor.untyped_storage().data_ptr()
        known = self.storages.get(address)
        if address not in self.excluded and (known is None or tensor.numel() > known.numel()):
            self.storages[address] = tensor

    @property
    def kinds(self) -> Mapping[str, int]:
        """Bytes of the storages by what lies in them, such as `float32 1x512x2048`."""
        found: Counter[str] = Counter()
        for tensor in self.storages.values():
            shape = "x".join(map(str, tensor.shape)) or "scalar"
            kind = f"{str(tensor.dtype).removeprefix('torch.')} {shape}"
            found[kind] += tensor.untyped_storage().nbytes()
        return dict(found.most_common())

    @property
    def total(self) -> int:
        """Bytes of all of them."""
        return sum(self.kinds.values())


@contextlib.contextmanager
def saved_for_backward(parameters: Iterable[Tensor]) -> Iterator[Saved]:
    """Count what the forward pass within saves for its backward pass.

    Of what is checkpointed, torch saves the inputs alone, and these alone are counted. What a
    function saves otherwise than by `save_for_backward` is not seen.

    Args:
        parameters: What is not counted, as it is there with or without a backward pass.
    """
    saved = Saved(frozenset(p.untyped_storage().data_ptr() for p in parameters))

    def pack(tensor: Tensor) -> Tensor:
        saved.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved
