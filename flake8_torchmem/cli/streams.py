"""Writing to standard output that neither an encoding nor a reader that left can break."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click


def write_lines(lines: Iterable[str]) -> None:
    """Print the lines. Characters that the stream cannot encode are escaped; a closed pipe ends the output in silence."""
    stream = sys.stdout
    if stream is None:
        return
    encoding = stream.encoding or "utf-8"
    try:
        for line in lines:
            stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        stream.flush()
    except OSError as error:
        # The interpreter flushes once more on its way out, and would complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if not isinstance(error, BrokenPipeError):
            raise click.FileError(stream.name, f"the report cannot be written: {error.strerror}") from error


def wants_colour() -> bool:
    """Whether standard output is a terminal whose user has not asked for plain text (https://no-color.org)."""
    return sys.stdout is not None and sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
