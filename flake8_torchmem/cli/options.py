"""What several commands take from their command line and read in the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from flake8_torchmem.settings import Settings, SettingsError

CLEAN, FINDINGS, FAILURE = 0, 1, 2

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
