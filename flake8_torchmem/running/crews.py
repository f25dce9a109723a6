"""Who does the work: what is common to all, and this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, contextmanager
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

LARGEST_CHUNK = 16  # files
CHUNKS_PER_WORKER = 4  # under way at once


class Crew(Protocol):
    """Makes executors.

    Attributes:
        size: workers.
        window: chunks that are under way at once.
        largest_chunk: files that are sent together at most.
        lost: exceptions of a future that say: whoever had it is no more.
    """

    @property
    def size(self) -> int: ...

    @property
    def window(self) -> int: ...

    @property
    def largest_chunk(self) -> int: ...

    @property
    def lost(self) -> tuple[type[Exception], ...]: ...

    def open(self, size: int) -> AbstractContextManager[Executor]:
        """An executor of so many workers; what it has not begun when the block is left is given up."""


def submitted(
    executor: Executor, lost: tuple[type[Exception], ...], function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> Future[R]:
    """The future of a call, also if an executor is broken already."""
    try:
        return executor.submit(function, *args, **kwargs)
    except lost as error:
        future: Future[R] = Future()
        future.set_exception(error)
        return future


class Here:
    """This process, one file after the other, each when its result is asked for."""

    size = window = largest_chunk = 1
    lost: tuple[type[Exception], ...] = ()

    @contextmanager
    def open(self, size: int) -> Iterator[Executor]:
        """An executor that does its work at once."""
        from flake8_torchmem.running.task import let_go

        del size
        try:
            yield _AtOnce()
        finally:
            let_go()


class _AtOnce(Executor):
    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        future: Future[R] = Future()
        future.set_result(fn(*args, **kwargs))
        return future
