"""Processes on this machine, imported by runs that are long enough for them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from flake8_torchmem.running.crews import CHUNKS_PER_WORKER, LARGEST_CHUNK, Here

P = ParamSpec("P")
R = TypeVar("R")

MAX_WINDOWS_PROCESSES = 61  # that Windows can wait for
LIBRARY = os.path.dirname(os.__file__)


class Processes:
    """Processes on this machine, each a fresh interpreter: it inherits no threads, locks or open files, on any system.

    Args:
        size: processes at once.
    """

    largest_chunk = LARGEST_CHUNK
    lost: tuple[type[Exception], ...] = (BrokenExecutor,)

    def __init__(self, size: int) -> None:
        self.size = min(size, MAX_WINDOWS_PROCESSES) if sys.platform == "win32" else size
        self.window = self.size * CHUNKS_PER_WORKER

    @contextmanager
    def open(self, size: int) -> Iterator[Executor]:
        """A pool. When the block is left by an exception its processes are ended, whatever they do."""
        others = set(multiprocessing.active_children())
        executor = _pool(size)
        if executor is None:
            with Here().open(size) as here:
                yield here
            return
        try:
            yield executor
        except BaseException:
            with uninterrupted():
                for process in set(multiprocessing.active_children()) - others:
                    process.terminate()
            raise
        finally:
            with uninterrupted():
                executor.shutdown(cancel_futures=True)


def _pool(size: int) -> _Pool | None:
    """None where the system has no semaphores, or no room for them: a container without shared memory, or a full disk."""
    try:
        with in_library():
            return _Pool(size, mp_context=multiprocessing.get_context("spawn"), initializer=partial(_begin, os.getcwd()))
    except (ImportError, NotImplementedError, OSError):
        return None


class _Pool(ProcessPoolExecutor):
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Processes start here; they inherit that an interrupt is none of their business: it reaches all at once."""
        with uninterrupted(), in_library():
            return super().submit(fn, *args, **kwargs)


def _begin(folder: str) -> None:
    """Leave interrupts to the parent, and go when it is gone: nobody else would end this process then."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: Any) -> None:  # noqa: ANN401 - its class has no public name
    parent.join()
    os._exit(1)


@contextmanager
def in_library() -> Iterator[None]:
    """Be in the folder of the standard library.

    A fresh interpreter looks for its first modules in the folder that it is started in: that must not be the one under check, whose
    `multiprocessing.py` it would run.
    """
    before = os.getcwd()
    os.chdir(LIBRARY)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """An interrupt waits until the end of the block, where the system can make it wait."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
