"""A progress bar on standard error, for people who wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")

_PATIENCE = 1.0  # seconds without a bar


def with_progress(items: Iterable[Item], total: int) -> Generator[Item, None, None]:
    """The items one by one; a bar appears if standard error is a terminal and more than a second has gone by.

    Args:
        items: each is counted when the next one is asked for.
        total: how many there will be.
    """
    started, left = time.monotonic(), iter(items)
    for done, item in enumerate(left, start=1):
        yield item
        if sys.stderr is not None and sys.stderr.isatty() and time.monotonic() - started > _PATIENCE:
            yield from _with_bar(left, total, done)


def _with_bar(items: Iterable[Item], total: int, done: int) -> Generator[Item, None, None]:
    with bar("checking", total, done) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def bar(verb: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """A bar that what it gives moves on by one; none if standard error is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(verb), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Lines of a report that goes to the same terminal are put above the bar; one that goes elsewhere is left alone.
    above = sys.stdout is not None and sys.stdout.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=above) as shown:
        task = shown.add_task("", total=total, completed=done)
        yield lambda: shown.advance(task)
