"""What several commands take from their command line and read in the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from flake8_torchmem.cli.streams import write_lines
from flake8_torchmem.configuration import Configuration, ConfigurationError, Given, configure
from flake8_torchmem.files import STDIN
from flake8_torchmem.output import FORMATS
from flake8_torchmem.output.text import printable
from flake8_torchmem.settings import Settings, SettingsError

CLEAN, FINDINGS, FAILURE, INTERRUPTED = 0, 1, 2, 130

Command = TypeVar("Command", bound=Callable[..., Any])


def _listed(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    found = tuple(item.strip() for value in values for item in value.split(",") if item.strip())
    if values and not found:
        raise click.BadParameter("it is empty")
    return found


def _number(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | int | None:
    return int(value) if value is not None and value.isdecimal() and value.isascii() else value


def selection(verb: str) -> Callable[[Command], Command]:
    """`--select`, `--ignore` and `--extend-select`.

    Args:
        verb: what is done with the rules, for the help.
    """
    return _decorated(_SELECTION, verb)


_SELECTION = ("select", "ignore", "extend-select")
_EVERYWHERE = (*_SELECTION, "exclude", "extend-exclude", "force-exclude", "no-imports", "project-root")
_CODES: dict[str, Any] = {"multiple": True, "callback": _listed, "metavar": "CODES"}
_PATTERNS: dict[str, Any] = {"multiple": True, "callback": _listed, "metavar": "PATTERNS"}
_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "select": (("--select",), {**_CODES, "help": "{verb} only these codes or prefixes, by commas."}),
    "ignore": (("--ignore",), {**_CODES, "help": "Do not {low} these."}),
    "extend-select": (("--extend-select",), {**_CODES, "help": "{verb} these as well."}),
    "exclude": (("--exclude",), {**_PATTERNS, "help": "Do not look at these files and folders: patterns as in .gitignore, by commas."}),
    "extend-exclude": (
        ("--extend-exclude",),
        {**_PATTERNS, "help": "Nor at these; --exclude takes the place of what is left out by default."},
    ),
    "force-exclude": (("--force-exclude/--no-force-exclude",), {"default": None, "help": "Leave them out even where they are named."}),
    "no-imports": (
        ("--no-imports/--imports",),
        {"default": None, "help": "Judge each file alone: do not read what it imports from the project around it."},
    ),
    "project-root": (
        ("--project-root",),
        {"metavar": "FOLDER", "help": "Where imports are looked for; by default in the project around each file."},
    ),
    "output-format": (("--output-format",), {"type": click.Choice(list(FORMATS)), "help": "How to report; by default as text."}),
    "jobs": (
        ("--jobs", "-j"),
        {
            "callback": _number,
            "metavar": "N|auto",
            "help": "Processes at once; auto: as many as there are processors, for runs that are long enough.",
        },
    ),
    "cache-dir": (
        ("--cache-dir",),
        {"envvar": "TORCHMEM_CACHE_DIR", "metavar": "FOLDER", "help": "Where findings are kept; by default in the user's caches."},
    ),
    "baseline": (
        ("--baseline",),
        {
            "metavar": "FILE",
            "help": "The findings that are known: `torchmem baseline` writes this file, `torchmem check` reports only others.",
        },
    ),
}


def _decorated(keys: tuple[str, ...], verb: str) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for key in reversed(keys):
            names, rest = _OPTIONS[key]
            shown = rest["help"].format(verb=verb, low=verb.lower())
            command = click.option(*names, key.replace("-", "_"), **{**rest, "help": shown})(command)
        return command

    return decorate


def configured(verb: str, *more: str, default: tuple[str, ...] = ()) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The options of a command on PATHS that a file may set as well: it gets a `configuration` in their place.

    Args:
        verb: what is done with the rules, for the help.
        more: keys of this command, besides those of all.
        default: the paths where none are given; without them that is an error.
    """
    keys = (*_EVERYWHERE, *more)

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def run(paths: tuple[str, ...], config: str | None, isolated: bool, show_settings: bool, **values: object) -> int:
            given = dict(_given(keys, values))
            rest = {name: value for name, value in values.items() if name.replace("_", "-") not in keys}
            paths = paths or default
            if not (paths or show_settings):
                raise click.UsageError("Missing argument 'PATHS...'.")
            names = [str(values["stdin_display_name"]) if path == STDIN else path for path in paths]
            configuration = _configuration(names, given, config, isolated)
            return _show(configuration) if show_settings else command(paths=paths, configuration=configuration, **rest)

        return _decorated(keys, verb)(_about_the_file(run, not default))

    return decorate


def configured_by_file(verb: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """The same options for a command that learns only later which files it looks at: it gets `configure`, which decides about a path.

    Args:
        verb: what is done with the rules, for the help.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def run(config: str | None, isolated: bool, **values: object) -> int:
            given = dict(_given(_EVERYWHERE, values))
            _configuration([], given, config, isolated=config is None)  # what is wrong here is said at once
            rest = {name: value for name, value in values.items() if name.replace("_", "-") not in _EVERYWHERE}
            return command(configure=lambda path: configure([path], given, config, isolated), **rest)

        for option in reversed(_WHICH_FILE):
            run = option(run)
        return _decorated(_EVERYWHERE, verb)(run)

    return decorate


_WHICH_FILE = (
    click.option("--config", metavar="FILE", help="Read [tool.flake8_torchmem] of this file, not of the nearest pyproject.toml."),
    click.option("--isolated", is_flag=True, help="Read no configuration file: the command line alone decides."),
)


def _about_the_file(command: Callable[..., int], required: bool) -> Callable[..., int]:
    options = (
        click.argument("paths", nargs=-1, metavar="PATHS..." if required else "[PATHS]..."),
        *_WHICH_FILE,
        click.option("--show-settings", is_flag=True, help="Show what holds for PATHS, and where each value comes from, and do nothing."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _given(keys: tuple[str, ...], values: dict[str, object]) -> Iterator[tuple[str, Given]]:
    """What the command line and environment variables say."""
    context = click.get_current_context()
    for key in keys:
        name = key.replace("-", "_")
        source = context.get_parameter_source(name)
        if source is ParameterSource.COMMANDLINE:
            yield key, Given(values[name], f"--{key}")
        elif source is ParameterSource.ENVIRONMENT:
            yield key, Given(values[name], _OPTIONS[key][1]["envvar"])


def _configuration(paths: list[str], given: dict[str, Given], file: str | None, isolated: bool) -> Configuration:
    if file is not None and isolated:
        raise click.UsageError("--config and --isolated: one of them")
    try:
        return configure(paths, given, file, isolated)
    except ConfigurationError as error:
        raise click.ClickException("\nError: ".join(map(printable, error.causes))) from error


def _show(configuration: Configuration) -> int:
    from flake8_torchmem.configuration.shown import lines

    write_lines(lines(configuration))
    return CLEAN


def settings_of(select: tuple[str, ...], ignore: tuple[str, ...], extend_select: tuple[str, ...]) -> Settings:
    """The choice of rules; a code that no rule has is a usage error."""
    settings = Settings(select or None, ignore, extend_select)
    try:
        settings.enabled_codes()
    except SettingsError as error:
        raise click.UsageError(str(error)) from error
    return settings
