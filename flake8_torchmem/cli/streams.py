"""Writing to standard output that neither an encoding nor a reader that left can break."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from flake8_torchmem.output.text import printable


def write_lines(lines: Iterable[str], to: TextIO | None = None) -> None:
    """Print the lines, by default to standard output.

    Characters that the stream cannot encode are escaped; a closed pipe ends the output in silence.
    """
    stream = sys.stdout if to is None else to
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    with _whole(stream):
        for line in lines:
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def write_file(path: str, lines: Iterable[str]) -> None:
    """Write the lines to a file in UTF-8, whole or not at all.

    Raises:
        ClickException: it cannot be written.
    """
    from flake8_torchmem.writing import write_whole

    try:
        write_whole(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise click.ClickException(f"{printable(path)}: the report cannot be written: {error.strerror}") from error


def write_source(data: bytes) -> None:
    """Write the bytes of a source file to standard output, as they are."""
    stream = sys.stdout
    if stream is not None:
        with _whole(stream):
            stream.flush()
            stream.buffer.write(data)


@contextmanager
def _whole(stream: TextIO) -> Iterator[None]:
    try:
        yield
        stream.flush()
    except OSError as error:
        # The interpreter flushes once more on its way out, and would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise click.FileError(stream.name, f"the report cannot be written: {error.strerror}") from error


def wants_colour(stream: TextIO | None = None) -> bool:
    """Whether a stream, by default standard output, is a terminal whose user has not asked for plain text (https://no-color.org)."""
    stream = stream or sys.stdout
    return stream is not None and stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
