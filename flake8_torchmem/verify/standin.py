"""`torch.cuda` as the stand-in device answers it, and what else of PyTorch asks for a device outside of tensor calls."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch

from flake8_torchmem.verify.ledger import Ledger
from flake8_torchmem.verify.refusal import RefusedError
from flake8_torchmem.verify.virtual import DEVICE, Calls, Operators, names_device

NOTHING = (
    "empty_cache", "synchronize", "set_device", "init", "_lazy_init", "ipc_collect", "reset_accumulated_memory_stats", "manual_seed",
    "manual_seed_all", "reset_max_memory_allocated", "reset_max_memory_cached", "set_per_process_memory_fraction", "seed", "seed_all",
)  # fmt: skip
MISSING = {
    "Stream": "streams", "Event": "events", "CUDAGraph": "CUDA graphs", "graph": "CUDA graphs", "make_graphed_callables": "CUDA graphs",
    "stream": "streams",
}  # fmt: skip
PRIORITY = 5  # before PyTorch's own ways to restore a storage


@contextmanager
def stand_in(ledger: Ledger, total: int) -> Iterator[None]:
    """A CUDA device for as long as this is entered.

    Args:
        ledger: its books.
        total: bytes of memory that it says to have; nothing stops a program that takes more.
    """
    importlib.import_module("torch._dynamo")  # what it sets up at import must not be counted
    with ExitStack() as stack:
        for name, value in _cuda(ledger, total).items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value, create=True))
        stack.enter_context(mock.patch.object(torch.amp.autocast_mode.autocast, "__init__", _autocast(torch.amp.autocast_mode.autocast)))
        stack.enter_context(mock.patch.object(torch, "Generator", _Generator))
        stack.enter_context(mock.patch.object(torch.serialization, "_package_registry", [_package(ledger), *_registry()]))
        stack.enter_context(mock.patch.object(torch, "compile", _missing("torch.compile")))
        stack.enter_context(Calls(ledger))
        stack.enter_context(Operators(ledger))
        yield


def _cuda(ledger: Ledger, total: int) -> dict[str, Any]:
    """What `torch.cuda` has."""

    def reset(*_args: object) -> None:
        ledger.reset_peak()

    answers: dict[str, object] = {
        "is_available": True, "is_initialized": True, "device_count": 1, "current_device": 0, "get_device_name": "stand-in",
        "is_bf16_supported": True, "get_device_capability": (8, 0), "is_current_stream_capturing": False,
    }  # fmt: skip
    found: dict[str, Any] = {name: _answering(value) for name, value in answers.items()}
    found |= {name: _answering(None) for name in NOTHING}
    found |= {name: _missing(what) for name, what in MISSING.items()}
    found |= dict.fromkeys(("memory_allocated", "memory_reserved", "memory_cached"), lambda *_args, **_kwargs: ledger.live)
    found |= dict.fromkeys(("max_memory_allocated", "max_memory_reserved"), lambda *_args, **_kwargs: ledger.peak)
    found |= {
        "reset_peak_memory_stats": reset,
        "mem_get_info": lambda *_args, **_kwargs: (max(total - ledger.live, 0), total),
        "get_device_properties": lambda *_args, **_kwargs: mock.Mock(total_memory=total, major=8, minor=0, name="stand-in"),
        "get_rng_state": lambda *_args, **_kwargs: torch.get_rng_state(),
        "get_rng_state_all": lambda: [torch.get_rng_state()],
        "set_rng_state": lambda state, *_args, **_kwargs: torch.set_rng_state(state),
        "set_rng_state_all": lambda states: torch.set_rng_state(states[0]),
        "memory_stats": lambda *_args, **_kwargs: {
            "allocated_bytes.all.current": ledger.live,
            "allocated_bytes.all.peak": ledger.peak,
            "requested_bytes.all.current": ledger.live,
            "requested_bytes.all.peak": ledger.peak,
            "reserved_bytes.all.current": ledger.live,
            "allocation.all.current": len(ledger.blocks),
        },
    }
    return found


def _answering(value: object) -> Callable[..., object]:
    return lambda *_args, **_kwargs: value


def _missing(what: str) -> Callable[..., object]:
    def refuse(*_args: object, **_kwargs: object) -> object:
        raise RefusedError(f"the stand-in device has no {what}")

    return refuse


def _autocast(autocast: Any) -> Callable[..., None]:  # noqa: ANN401
    """Autocasting on the device is autocasting of its CPU tensors, with the type that a device would take."""
    real = autocast.__init__

    def init(self: object, device_type: str, dtype: torch.dtype | None = None, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        if names_device(device_type):
            device_type, dtype = "cpu", dtype or torch.float16
        real(self, device_type, dtype, *args, **kwargs)

    return init


class _Generator(torch.Generator):
    """Numbers of the device are those of the CPU."""

    def __new__(cls, device: object = "cpu") -> _Generator:
        return super().__new__(cls, "cpu" if names_device(device) else device)


def _registry() -> list[Any]:
    found: list[Any] = torch.serialization._package_registry
    return found


def _package(ledger: Ledger) -> tuple[int, Callable[[Any], str | None], Callable[[Any, str], Any]]:
    """How storages of the device are saved and loaded: they remember where they were."""

    def tag(storage: Any) -> str | None:  # noqa: ANN401
        return str(DEVICE) if _untyped(storage)._cdata in ledger.blocks else None

    def restore(storage: Any, location: str) -> Any:  # noqa: ANN401
        if not names_device(location):
            return None
        ledger.book_storage(_untyped(storage))
        return storage

    return PRIORITY, tag, restore


def _untyped(storage: Any) -> torch.UntypedStorage:  # noqa: ANN401
    found: torch.UntypedStorage = storage if isinstance(storage, torch.UntypedStorage) else storage._untyped_storage
    return found
