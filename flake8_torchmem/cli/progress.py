"""A progress bar on standard error, for people who wait."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

_PATIENCE = 1.0  # seconds without a bar


def with_progress(paths: Sequence[str]) -> Iterator[str]:
    """The paths one by one; a bar appears if standard error is a terminal and more than a second has gone by."""
    started = time.monotonic()
    for done, path in enumerate(paths):
        if sys.stderr is not None and sys.stderr.isatty() and time.monotonic() - started > _PATIENCE:
            yield from _with_bar(paths, done)
            return
        yield path


def _with_bar(paths: Sequence[str], done: int) -> Iterator[str]:
    with bar("checking", len(paths), done) as advance:
        for path in paths[done:]:
            yield path
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
