"""The two devices: a real one, read through its caching allocator, and the stand-in, read from its ledger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from flake8_torchmem.verify.ledger import OWN, Ledger, key_of, size_of
from flake8_torchmem.verify.probe import Backend, Probe
from flake8_torchmem.verify.refusal import RefusedError
from flake8_torchmem.verify.series import STAND_IN
from flake8_torchmem.verify.standin import stand_in

HISTORY = 100_000  # allocations and frees that the allocator remembers for a snapshot
MEMORY = 24 << 30  # bytes that the stand-in device says to have


class VirtualBackend:
    """The stand-in device: exact bytes, no time and no caching allocator."""

    name = "virtual"
    title = STAND_IN
    exact = True

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.snapshot: Path | None = None  # it has no allocator whose history could be saved

    @contextmanager
    def running(self, probe: Probe) -> Iterator[None]:
        """The device is there, and the probe watches, for as long as this is entered."""
        self.ledger = Ledger()
        with stand_in(self.ledger, MEMORY), probe.watching():
            yield

    def read(self) -> tuple[int, int, int, int]:
        """Live bytes, peak since `reset_peak`, live storages; nothing is reserved."""
        return self.ledger.live, self.ledger.peak, len(self.ledger.blocks), self.ledger.live

    def reset_peak(self) -> None:
        """The peak starts again from what is there now."""
        self.ledger.reset_peak()

    def beat(self, kind: str) -> int:
        """A beat has ended: of how many such beats something is alive."""
        return self.ledger.beat(kind)

    def forward(self, change: int) -> None:
        """A module is entered (1) or left (-1)."""
        self.ledger.depth += change

    def categories(self, owned: dict[str, list[torch.Tensor]]) -> dict[str, int]:
        """Bytes by what they are for; activations are what modules made and optimizers do not own."""
        names = {key_of(tensor): name for name, tensors in reversed(owned.items()) for tensor in tensors}
        found: Counter[str] = Counter()
        for key, block in self.ledger.blocks.items():
            found[names.get(key) or ("activations" if block.in_forward else "other")] += block.size
        return dict(found)

    def lines(self) -> list[tuple[str, int, int]]:
        """Bytes by the line that made them, most first: file, line, bytes."""
        return [(file, line, size) for (file, line), size in self.ledger.by_line()]


class CudaBackend:
    """A real device. Bytes are those that were asked for, as the allocator counts them; whole blocks are a multiple of 512."""

    name = "cuda"
    exact = False

    def __init__(self) -> None:
        if not torch.cuda.is_available():
            raise RefusedError("this PyTorch sees no CUDA device")
        if torch.cuda.get_allocator_backend() != "native":
            raise RefusedError("the allocator is not PyTorch's own (cudaMallocAsync): it does not say what was asked for")
        self.snapshot: Path | None = None
        self.title: str = torch.cuda.get_device_name()

    @contextmanager
    def running(self, probe: Probe) -> Iterator[None]:
        """The allocator remembers who allocated what is alive, and the probe watches, for as long as this is entered."""
        torch.cuda.synchronize()
        if hasattr(torch._C, "_cuda_clearCublasWorkspaces"):
            torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        # What was allocated and is gone takes kilobytes an entry, and each look at the lines would copy it: for a snapshot alone.
        what = "state" if self.snapshot is None else "all"
        torch.cuda.memory._record_memory_history(what, context="state", stacks="python", max_entries=HISTORY)
        try:
            with probe.watching():
                yield
        finally:
            # Here, where what holds the memory of a run that was stopped has not been unwound yet.
            if self.snapshot is not None:
                torch.cuda.memory._dump_snapshot(str(self.snapshot))
            torch.cuda.memory._record_memory_history(None)

    def read(self) -> tuple[int, int, int, int]:
        """Live bytes that were asked for, their peak since `reset_peak`, live allocations, reserved bytes."""
        torch.cuda.synchronize()
        stats = torch.cuda.memory_stats()
        live, peak = stats["requested_bytes.all.current"], stats["requested_bytes.all.peak"]
        return live, peak, stats["allocation.all.current"], stats["reserved_bytes.all.current"]

    def reset_peak(self) -> None:
        """The peak starts again from what is there now."""
        torch.cuda.reset_peak_memory_stats()

    def beat(self, kind: str) -> int:
        """The allocator does not say when a block was born in terms of beats."""
        del kind
        return 0

    def forward(self, change: int) -> None:
        """A module is entered (1) or left (-1): the allocator is not asked in which."""
        del change

    def categories(self, owned: dict[str, list[torch.Tensor]]) -> dict[str, int]:
        """Bytes by what they are for, as far as optimizers own them."""
        names = {key_of(tensor): name for name, tensors in reversed(owned.items()) for tensor in tensors if tensor.is_cuda}
        sizes = {key_of(tensor): size_of(tensor) for tensors in owned.values() for tensor in tensors}
        found: Counter[str] = Counter()
        for key, name in names.items():
            found[name] += sizes[key]
        found["other"] = max(self.read()[0] - sum(found.values()), 0)
        return dict(found)

    def lines(self) -> list[tuple[str, int, int]]:
        """Bytes by the line that allocated them, most first: file, line, bytes."""
        found: Counter[tuple[str, int]] = Counter()
        here = torch.cuda.current_device()
        for segment in torch.cuda.memory._snapshot()["segments"]:
            for block in segment["blocks"] if segment.get("device", here) == here else ():
                frame = next((frame for frame in block.get("frames", ()) if _is_programs(frame["filename"])), None)
                if block["state"] == "active_allocated" and frame is not None:
                    found[frame["filename"], frame["line"]] += block.get("requested_size", block["size"])
        return [(file, line, size) for (file, line), size in found.most_common()]


def _is_programs(name: str) -> bool:
    return name.endswith(".py") and not name.startswith(OWN)


def choose(device: str) -> tuple[Backend, str]:
    """A backend, and why it was chosen.

    Args:
        device: auto, cuda or virtual.

    Raises:
        RefusedError: a real device was asked for, and there is none that can be read.
    """
    if device == "virtual":
        return VirtualBackend(), "as asked for"
    if device == "cuda":
        return CudaBackend(), f"as asked for: {torch.cuda.get_device_name()}"
    try:
        return CudaBackend(), f"found: {torch.cuda.get_device_name()}"
    except RefusedError as error:
        return VirtualBackend(), str(error)
