"""What a network costs: parameters, multiply-adds and activation memory, without running it.

Everything here works on the meta device, where tensors have shapes and no values, so that the largest network at the
largest size is described within a second. Sizes are those of float32 unless the network says otherwise.

What a graph that ships costs is counted by `export.graph.costs` from the ONNX file alone, since the certificate rests
on nothing else; a test holds the two counts against each other.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary


@dataclass(frozen=True)
class ModuleCosts:
    """One part of a network.

    Attributes:
        name: dotted name within the network.
        kind: class of the part, of timm's encoder for a backbone.
        parameters: learnable numbers.
        multiply_adds: of one forward, in convolutions and matrix products.
    """

    name: str
    kind: str
    parameters: int
    multiply_adds: int


def count_parameters(module: nn.Module) -> int:
    """Learnable numbers of a module, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def multiply_adds(forward: Callable[[], object]) -> dict[str, int]:
    """Multiply-adds of `forward` in convolutions and matrix products, per module and in all.

    Interpolation, activations, normalisation (folded into convolutions for inference) and softmax are left out, as
    published counts leave them out.

    Returns:
        Name within the outermost module that runs (dotted, `""` for all of it) -> multiply-adds.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        forward()
    counts: dict[str, int] = {"": counter.get_total_flops() // 2}
    for name, operations in counter.get_flop_counts().items():
        if name != "Global":
            counts[name.partition(".")[2]] = sum(operations.values()) // 2
    return counts


class _LiveStorage(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operations create until they are freed."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0
        self.peak = 0
        self._known: Any = WeakIdKeyDictionary()

    def hold(self, tensor: Tensor) -> None:
        """Count the storage of `tensor` from now on, once."""
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = storage.nbytes()
        self._known[storage] = size
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, size)

    def ignore(self, tensors: Iterable[Tensor]) -> None:
        """Leave the storages of `tensors` out (parameters and buffers)."""
        for tensor in tensors:
            self._known[tensor.untyped_storage()] = 0

    def _free(self, size: int) -> None:
        self.bytes -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.hold(leaf)
        return result


def peak_activation_bytes(module: nn.Module, images: Tensor) -> int:
    """Largest number of bytes of tensors that live at one time in an inference of `module` on `images`.

    The input counts, weights do not. Layers run one after the other as PyTorch runs them, without fusion or reuse.
    """
    with torch.no_grad(), _LiveStorage() as live:
        live.ignore([*module.parameters(), *module.buffers()])
        live.hold(images)
        module(images)
    peak: int = live.peak
    return peak


def saved_activation_bytes(module: nn.Module, forward: Callable[[], object]) -> int:
    """Bytes that `forward` keeps for the backward pass, parameters and buffers of `module` left out."""
    own = {tensor.untyped_storage()._cdata for tensor in [*module.parameters(), *module.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}  # holding the storages keeps their addresses from being used again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
        total: int = sum(storage.nbytes() for storage in kept.values())
        del result
    return total
