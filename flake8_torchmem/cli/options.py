"""What several commands take from their command line and read in the same way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TextIO, TypeVar

import click

from flake8_torchmem.files import STDIN, unreadable
from flake8_torchmem.model import FileError
from flake8_torchmem.settings import Settings, SettingsError

CLEAN, FINDINGS, FAILURE, INTERRUPTED = 0, 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., Any])


def _codes(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    codes = tuple(code.strip() for value in values for code in value.split(",") if code.strip())
    if values and not codes:
        raise click.BadParameter("it names no code")
    return codes


def selection(verb: str) -> Callable[[Command], Command]:
    """`--select`, `--ignore` and `--extend-select`.

    Args:
        verb: what is done with the rules, for the help.
    """
    options = (
        click.option("--select", multiple=True, callback=_codes, metavar="CODES", help=f"{verb} only these codes or prefixes, by commas."),
        click.option("--ignore", multiple=True, callback=_codes, metavar="CODES", help=f"Do not {verb.lower()} these."),
        click.option("--extend-select", multiple=True, callback=_codes, metavar="CODES", help=f"{verb} these as well."),
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def settings_of(select: tuple[str, ...], ignore: tuple[str, ...], extend_select: tuple[str, ...]) -> Settings:
    """The choice of rules; a code that no rule has is a usage error."""
    settings = Settings(select or None, ignore, extend_select)
    try:
        settings.enabled_codes()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    return settings


def read(path: str) -> bytes:
    """The bytes of a file, or of standard input."""
    if path == STDIN:
        return b"" if sys.stdin is None else _all_of(sys.stdin)
    with open(path, "rb") as file:
        return file.read()


@lru_cache(maxsize=1)
def _all_of(stream: TextIO) -> bytes:
    """What a stream holds: it can be read once, and is asked for again by reports that show code."""
    return stream.buffer.read()


def cannot(verb: str, name: str, error: OSError) -> FileError:
    """The entry for a file that the system does not let us read or write."""
    return unreadable(name, f"cannot be {verb}: {error.strerror}")
