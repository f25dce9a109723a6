"""Watches a run: a sample at each beat, the gradients at each step, who holds what at the end."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils._python_dispatch import _disable_current_modes

from flake8_torchmem.verify.series import FORWARD, KINDS, STEP, TURN, Gradient, Run, Sample

PAGE = 4096
LINES_EVERY = 4  # beats
SHOWN_LINES = 10
WITHOUT_STEPS = 50  # times the beats that are wanted: calls of modules after which a program with an optimizer is not waited for


class Backend(Protocol):
    """A device that can be measured, entered for one run.

    Attributes:
        name: cuda or virtual.
        title: the device's own name.
        exact: bytes are counted one by one, so that two runs of a program are alike to the last.
        snapshot: where to save the allocator's history at the end of a run, for PyTorch's viewer; None: nowhere.
    """

    name: str
    title: str
    exact: bool
    snapshot: Path | None

    def running(self, probe: Probe) -> Any: ...  # noqa: ANN401
    def read(self) -> tuple[int, int, int, int]:
        """Live bytes, peak since `reset_peak`, live blocks, reserved bytes."""

    def reset_peak(self) -> None: ...
    def beat(self, kind: str) -> int:
        """A beat has ended: of how many such beats something is alive."""

    def forward(self, change: int) -> None:
        """A module is entered (1) or left (-1)."""

    def categories(self, owned: dict[str, list[torch.Tensor]]) -> dict[str, int]: ...
    def lines(self) -> list[tuple[str, int, int]]:
        """Bytes by the line of the program that made them, most first: file, line, bytes."""


class EnoughError(BaseException):
    """The run has had its beats. No `except Exception` of the program catches it."""


class Probe:
    """Records one run.

    Args:
        backend: the device.
        nodes: count autograd nodes at each beat, which takes a walk over all tensors.
        limit: beats of any kind after which the run is ended; None lets it run.
    """

    def __init__(self, backend: Backend, nodes: bool = False, limit: int | None = None) -> None:
        self.backend = backend
        self.nodes = nodes
        self.limit = limit
        self.run = Run()
        self.depth = 0
        self.peaks = dict.fromkeys(KINDS, 0)
        # Weak: what the program lets go of must not live on here.
        self.optimizers: WeakValueDictionary[int, torch.optim.Optimizer] = WeakValueDictionary()
        self.began = time.perf_counter()
        self.most = -1
        self.first_lines: dict[str, dict[tuple[str, int], int]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks are in place for as long as this is entered."""
        with ExitStack() as stack:
            for handle in (
                register_optimizer_step_pre_hook(self._before_step),
                register_optimizer_step_post_hook(self._after_step),
                register_module_forward_pre_hook(self._entered),
                register_module_forward_hook(self._left, always_call=True),
            ):
                stack.callback(handle.remove)
            yield

    def turns(self, batches: Iterable[Any]) -> Iterator[Any]:
        """The batches of a fixture; each that is asked for ends a turn."""
        for batch in batches:
            yield batch
            self.beat(TURN)

    def _before_step(self, optimizer: torch.optim.Optimizer, _args: object, _kwargs: object) -> None:
        with _disable_current_modes(), torch.no_grad():
            self.optimizers[id(optimizer)] = optimizer
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            square, digest = 0.0, hashlib.sha256()
            for grad in grads:
                whole = _plain(grad)
                square += float(whole.pow(2).sum())
                digest.update(ctypes.string_at(whole.data_ptr(), whole.nbytes))  # PyTorch works without NumPy
            self.run.gradients.append(Gradient(square**0.5, digest.hexdigest()[:16]))

    def _after_step(self, *_arguments: object) -> None:
        self.beat(STEP)

    def _entered(self, _module: object, _inputs: object) -> None:
        self.depth += 1
        self.backend.forward(1)

    def _left(self, _module: object, _inputs: object, _outputs: object) -> None:
        self.depth -= 1
        self.backend.forward(-1)
        if self.depth == 0:
            self.beat(FORWARD)

    def beat(self, kind: str) -> None:
        """One beat of a kind has ended."""
        if self.depth and kind != FORWARD:
            return
        with _disable_current_modes():
            live, peak, blocks, reserved = self.backend.read()
            for other in KINDS:
                self.peaks[other] = max(self.peaks[other], peak)
            self.backend.reset_peak()
            cohorts = self.backend.beat(kind)
            nodes = count_nodes() if self.nodes else -1
            seconds = time.perf_counter() - self.began
            self.run.samples[kind].append(Sample(live, self.peaks[kind], blocks, cohorts, nodes, _resident(), reserved, seconds))
            self.peaks[kind] = live
            if live > self.most:
                self.most = live
                self.run.categories = self.backend.categories(self._owned())
            enough = self.limit is not None and kind == self._leading() and self._is_enough(kind, self.limit)
            if enough or len(self.run.samples[kind]) % LINES_EVERY == 0:
                self._read_lines(kind)
        if enough:
            raise EnoughError

    def _read_lines(self, kind: str) -> None:
        """Which lines made what is alive, and what came to be since the warm-up of the beats that count."""
        lines = self.backend.lines()
        self.run.lines = lines[:SHOWN_LINES]
        if kind != self._leading():
            return
        before = self.first_lines.setdefault(kind, {(file, line): size for file, line, size in lines})
        grown = [(file, line, size - before.get((file, line), 0)) for file, line, size in lines]
        self.run.grown = sorted((entry for entry in grown if entry[2] > 0), key=lambda entry: -entry[2])[:SHOWN_LINES]

    def _is_enough(self, kind: str, limit: int) -> bool:
        """Whether the program may end. One that has an optimizer may evaluate, or play, long before its first step."""
        done = len(self.run.samples[kind])
        if kind == STEP or done < limit:
            return done >= limit
        return done % limit == 0 and (done >= limit * WITHOUT_STEPS or not _has_optimizer())

    def _leading(self) -> str:
        """The kind of beat that counts: steps, once there is one."""
        return next((kind for kind in KINDS if self.run.samples[kind]), STEP)

    def _owned(self) -> dict[str, list[torch.Tensor]]:
        """Tensors by what they are for, as far as optimizers know."""
        optimizers = list(self.optimizers.values())
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        parameters = [p for group in groups for p in group["params"]]
        states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
        return {
            "parameters": [p.detach() for p in parameters],
            "gradients": [p.grad for p in parameters if p.grad is not None],
            "optimizer state": [value for value in states if isinstance(value, torch.Tensor)],
        }


def _plain(grad: torch.Tensor) -> torch.Tensor:
    """The numbers of a gradient, on the host, one after the other."""
    whole = grad.detach().cpu()
    if whole.layout != torch.strided:
        whole = whole.to_dense()
    return (torch.view_as_real(whole) if whole.is_complex() else whole).double().contiguous()


def count_nodes() -> int:
    """Autograd nodes that are reachable from the tensors that are alive in Python."""
    gc.collect(0)
    # What was there before the run is frozen, and not listed. The types are asked, not the objects: some answer with code of their own.
    pending = [t.grad_fn for t in gc.get_objects() if issubclass(type(t), torch.Tensor) and t.grad_fn is not None]
    seen: set[object] = set()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        pending.extend(function for function, _ in node.next_functions if function is not None)
    return len(seen)


def _has_optimizer() -> bool:
    return any(issubclass(type(thing), torch.optim.Optimizer) for thing in gc.get_objects())


def _resident() -> int:
    """Bytes of this process in memory."""
    try:
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0
