"""A stand-in for a CUDA device, on any machine: code that says "cuda" runs unchanged, with real values, and bytes are counted exactly.

Tensors of the stand-in device are CPU tensors whose storages are in a `Ledger`. Two modes keep it true. One sees every call
of PyTorch's Python interface: it takes "cuda" out of arguments, copies what moves between host and device, so that the two
never share memory, and answers `tensor.device`. The other sees every operator, those of backward included: what is computed
from tensors of the device is on the device.

What it is not: a caching allocator (reserved bytes, fragmentation, `empty_cache`), streams and transfers (time), kernels of
one's own, several devices, `torch.compile` and CUDA graphs. Code that asks for those is refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch.autograd.graph import increment_version
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from flake8_torchmem.verify.ledger import Ledger, key_of
from flake8_torchmem.verify.refusal import RefusedError

DEVICE = torch.device("cuda", 0)
HOST = torch.device("cpu")
RESIZES = frozenset({"aten::resize_", "aten::set_", "aten::resize_as_"})
# Operators that may read from one side and write to the other, or take indices of the host.
CROSSES = frozenset({"aten::copy_", "aten::_to_copy", "aten::set_", "aten::clone"})
TAKES_INDICES = ("aten::index", "aten::_index_put", "aten::_unsafe_index")

Arguments = tuple[Any, ...]
Named = dict[str, Any]


def names_device(value: object) -> bool:
    """Whether an argument names a CUDA device."""
    if isinstance(value, torch.device):
        return value.type == "cuda"
    return isinstance(value, str) and value.partition(":")[0] == "cuda"


def names_host(value: object) -> bool:
    """Whether an argument names the CPU."""
    return (isinstance(value, torch.device) and value.type == "cpu") or value == "cpu"


@cache
def writes_lists(func: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Which arguments of an operator are lists of tensors that it writes to."""
    arguments = enumerate(func._schema.arguments)
    return tuple(i for i, one in arguments if one.alias_info is not None and one.alias_info.is_write and one.type.kind() == "ListType")


def _count_write(tensors: Iterable[torch.Tensor]) -> None:
    """A graph that saved one of these must see that it has changed: below a mode, operators on lists (`_foreach_add_`) do not say so."""
    for tensor in tensors:
        if not tensor.is_inference():
            increment_version(tensor)


class Operators(TorchDispatchMode):
    """What is computed from tensors of the device is on the device.

    Args:
        ledger: the device's books.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_dispatch__(self, func: Any, types: Any, args: Arguments = (), kwargs: Named | None = None) -> Any:  # noqa: ANN401
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        booked = [tensor for tensor in tensors if self.ledger.holds(tensor)]
        name = func._schema.name
        if booked and len(booked) < len(tensors) and name not in CROSSES and not name.startswith(TAKES_INDICES):
            self._require_one_device(name, tensors)
        result = func(*args, **(kwargs or {}))
        for index in writes_lists(func):
            _count_write(args[index] if index < len(args) else ())
        if booked and not (name == "aten::copy_" and not self.ledger.holds(args[0])):
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.ledger.book(leaf)
            if name in RESIZES:
                self.ledger.grown(booked[0])
        return result

    def _require_one_device(self, name: str, tensors: list[torch.Tensor]) -> None:
        """A number of the host may join tensors of the device, a tensor may not, as on a real device."""
        if any(tensor.dim() and tensor.numel() and not self.ledger.holds(tensor) for tensor in tensors):
            raise RuntimeError(f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({name})")


class Calls(TorchFunctionMode):
    """Takes the device out of the calls, and moves tensors onto it and off.

    Args:
        ledger: the device's books.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func: Any, types: Any, args: Arguments = (), kwargs: Named | None = None) -> Any:  # noqa: ANN401
        kwargs = dict(kwargs or {})
        special = SPECIAL.get(func)
        if special is not None:
            return special(self, args, kwargs)
        kwargs.pop("pin_memory", None)  # host memory is not counted
        device = kwargs.get("device")
        if device is None:
            return func(*args, **kwargs)
        if not (names_device(device) or names_host(device)):
            return func(*args, **kwargs)
        peak, known = self.ledger.peak, set(self.ledger.blocks)
        result = func(*args, **{**kwargs, "device": HOST})
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                if names_device(device):
                    self.ledger.book(leaf)
                elif key_of(leaf) not in known:
                    self.ledger.unbook(leaf, peak)
        return result

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the device: a copy, unless it is there."""
        return tensor if self.ledger.holds(tensor) else _Move.apply(tensor, self.ledger, True)

    def to_host(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor on the host: a copy, unless it is there."""
        return _Move.apply(tensor, self.ledger, False) if self.ledger.holds(tensor) else tensor


class _Move(torch.autograd.Function):
    """A copy on the other side; its gradient comes back to this one."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, ledger: Ledger, onto: bool) -> torch.Tensor:  # noqa: ANN401
        ctx.ledger, ctx.onto = ledger, onto
        return _copied(tensor, ledger, onto)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:  # noqa: ANN401
        return _copied(gradients[0], ctx.ledger, not ctx.onto), None, None


def _copied(tensor: torch.Tensor, ledger: Ledger, onto: bool) -> torch.Tensor:
    peak = ledger.peak
    copy = torch.Tensor.clone(tensor)
    if onto:
        ledger.book(copy)
    else:
        ledger.unbook(copy, peak)
    return copy


def _to(calls: Calls, args: Arguments, kwargs: Named) -> torch.Tensor:
    """`tensor.to(...)` in all its forms."""
    tensor, *rest = args
    copy = kwargs.pop("copy", False)
    other = kwargs.pop("other", rest[0] if rest and isinstance(rest[0], torch.Tensor) else None)
    if other is not None:
        device, dtype = DEVICE if calls.ledger.holds(other) else HOST, other.dtype
    else:
        device, dtype, _, _ = torch._C._nn._parse_to(*rest, **kwargs)
    moved = tensor
    if device is not None and device.type in ("cuda", "cpu"):
        moved = calls.to_device(tensor) if device.type == "cuda" else calls.to_host(tensor)
    elif device is not None:
        raise RefusedError(f"the stand-in device cannot move tensors to {device.type!r}")
    if dtype is not None and dtype != moved.dtype:
        return torch.Tensor.type(moved, dtype)
    return torch.Tensor.clone(moved) if copy and moved is tensor else moved


def _device(calls: Calls, args: Arguments, _kwargs: Named) -> torch.device:
    return DEVICE if calls.ledger.holds(args[0]) else torch.Tensor.device.__get__(args[0])


def _numpy(calls: Calls, args: Arguments, kwargs: Named) -> object:
    if calls.ledger.holds(args[0]) and not kwargs.get("force"):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
    return torch.Tensor.numpy(*args, **kwargs)


def _array(calls: Calls, args: Arguments, kwargs: Named) -> object:
    _numpy(calls, args[:1], {})
    return torch.Tensor.__array__(*args, **kwargs)


def _deepcopy(calls: Calls, args: Arguments, kwargs: Named) -> object:
    """A copy of storages that no operator makes."""
    result = torch.Tensor.__deepcopy__(*args, **kwargs)
    for source, target in ((args[0], result), (args[0].grad, result.grad)):
        if source is not None and target is not None and calls.ledger.holds(source):
            calls.ledger.book(target)
    return result


SPECIAL: dict[Any, Callable[[Calls, Arguments, Named], Any]] = {
    torch.Tensor.cuda: lambda calls, args, _kwargs: calls.to_device(args[0]),
    torch.Tensor.cpu: lambda calls, args, _kwargs: calls.to_host(args[0]),
    torch.Tensor.to: _to,
    torch.Tensor.device.__get__: _device,
    torch.Tensor.is_cuda.__get__: lambda calls, args, _kwargs: calls.ledger.holds(args[0]),
    torch.Tensor.get_device: lambda calls, args, _kwargs: 0 if calls.ledger.holds(args[0]) else -1,
    torch.Tensor.pin_memory: lambda _calls, args, _kwargs: args[0],
    torch.Tensor.numpy: _numpy,
    torch.Tensor.__array__: _array,
    torch.Tensor.__deepcopy__: _deepcopy,
}
