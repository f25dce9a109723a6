"""The books of a stand-in device: which storages are on it, how large they are, what they are for, and which lines made them.

A storage is a block of memory, whatever views of it there are. It is booked when the first tensor on the device uses it, and
leaves the books when the last one is gone: PyTorch keeps the Python object of a storage alive exactly as long as the storage.
"""

from __future__ import annotations

import sys
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import torch

from flake8_torchmem.verify.series import KINDS

Line = tuple[str, int]
OWN = (torch.__path__[0], __file__.rpartition("/")[0])


@dataclass
class Block:
    """One storage.

    Attributes:
        size: bytes.
        line: of the program that made it: file, number.
        in_forward: made while a module was called.
        born: how many beats of each kind had ended by then.
    """

    size: int
    line: Line | None
    in_forward: bool = False
    born: tuple[int, ...] = ()


class Ledger:
    """The storages that live on the device, in bytes without any rounding.

    Attributes:
        live: bytes now.
        peak: the most bytes at any time since `reset_peak`.
        made: storages that were booked so far.
        depth: of modules that are being called.
    """

    def __init__(self) -> None:
        self.blocks: dict[int, Block] = {}
        self.live = 0
        self.peak = 0
        self.made = 0
        self.depth = 0
        self.beats = dict.fromkeys(KINDS, 0)

    def holds(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is on the device."""
        return key_of(tensor) in self.blocks

    def book(self, tensor: torch.Tensor) -> None:
        """A tensor's storage is on the device from now on, or its storages, if it is sparse."""
        for part in parts(tensor):
            self.book_storage(part.untyped_storage())

    def book_storage(self, storage: torch.UntypedStorage) -> None:
        """A storage is on the device from now on."""
        key = storage._cdata
        if key in self.blocks:
            return
        size = storage.nbytes()
        self.blocks[key] = Block(size, _line(), self.depth > 0, tuple(self.beats.values()))
        self.live += size
        self.made += 1
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key).atexit = False

    def unbook(self, tensor: torch.Tensor, peak: int) -> None:
        """What was booked on the way to the host never was on the device.

        Args:
            tensor: the copy on the host.
            peak: what it was before.
        """
        for part in parts(tensor):
            self._free(key_of(part))
        self.peak = max(peak, self.live)

    def grown(self, tensor: torch.Tensor) -> None:
        """A storage may have been resized in place."""
        for part in parts(tensor):
            block, size = self.blocks.get(key_of(part)), size_of(part)
            if block is not None and size != block.size:
                self.live += size - block.size
                block.size = size
                self.peak = max(self.peak, self.live)

    def _free(self, key: int) -> None:
        block = self.blocks.pop(key, None)
        if block is not None:
            self.live -= block.size

    def beat(self, kind: str) -> int:
        """A beat of a kind has ended: of how many such beats, this one counted in, something is still alive."""
        index = KINDS.index(kind)
        alive = {block.born[index] for block in self.blocks.values()}
        self.beats[kind] += 1
        return len(alive)

    def reset_peak(self) -> None:
        """The peak starts again from what is there now."""
        self.peak = self.live

    def by_line(self, keep: Callable[[int], bool] = lambda _key: True) -> list[tuple[Line, int]]:
        """Bytes by the line that made them, most first.

        Args:
            keep: which storages count, by their keys.
        """
        found: Counter[Line] = Counter()
        for key, block in self.blocks.items():
            if block.line is not None and keep(key):
                found[block.line] += block.size
        return found.most_common()


def parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The tensors with storages that a tensor is made of: itself, or the values and indices of a sparse one, in this order."""
    layout = tensor.layout
    if layout == torch.strided:
        return [tensor] if tensor.device.type != "meta" else []
    if layout == torch.sparse_coo:
        return [tensor._values(), tensor._indices()]
    if layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.values(), tensor.crow_indices(), tensor.col_indices()]
    if layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.values(), tensor.ccol_indices(), tensor.row_indices()]
    return []


def key_of(tensor: torch.Tensor) -> int:
    """What a tensor's storage, or that of its values, is known by while it lives; 0 if it has none."""
    try:
        return next((int(part.untyped_storage()._cdata) for part in parts(tensor)), 0)
    except (NotImplementedError, RuntimeError):  # nested and functional tensors have none
        return 0


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of what a tensor is made of; 0 if it has no storage."""
    return sum(part.untyped_storage().nbytes() for part in parts(tensor)) if key_of(tensor) else 0


def _line() -> Line | None:
    """The innermost line that is neither PyTorch's nor this package's."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(OWN) and not name.startswith("<"):
            return name, frame.f_lineno
        frame = frame.f_back
    return None
