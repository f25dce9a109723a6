"""What a run is to do: from `[tool.flake8_torchmem]` of a `pyproject.toml`, and from the command line, which wins."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flake8_torchmem.configuration.keys import API_KEYS, KEYS, RefusedError, each_of
from flake8_torchmem.configuration.table import ConfigurationError, Table, find, read
from flake8_torchmem.files import SKIPPED_FOLDERS, Exclusions
from flake8_torchmem.model import Severity
from flake8_torchmem.ownnames import OwnNames
from flake8_torchmem.patterns import Patterns
from flake8_torchmem.settings import Prefixes, Settings

__all__ = ["Configuration", "ConfigurationError", "Given", "configure"]

DEFAULT = "default"
_CHOICE = ("select", "extend-select", "ignore")


@dataclass(frozen=True)
class Configuration:
    """All that was decided about a run.

    Attributes:
        settings: what decides about findings.
        exclusions: what is not looked at.
        follow_imports: read what files import from the project around them.
        project_root: absolute; empty to look for it around each file.
        cache_dir: where findings are kept; None for the folder among the user's caches.
        baseline: a file of findings that are known; None for none.
        jobs: processes at once; None to decide by the work.
        output_format: of the report.
        folder: what relative paths and patterns are relative to: the folder of the file, else the working directory.
        values: what holds, by key, as the file spells keys and values.
        origins: where each of those values comes from.
    """

    settings: Settings = field(default_factory=Settings)
    exclusions: Exclusions = field(default_factory=Exclusions)
    follow_imports: bool = True
    project_root: str = ""
    cache_dir: str | None = None
    baseline: str | None = None
    jobs: int | None = None
    output_format: str = "text"
    folder: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Given:
    """A value that does not come from a file.

    Attributes:
        value: as the file would have it; paths are relative to the working directory.
        origin: as it is shown.
    """

    value: object
    origin: str


def configure(
    paths: Sequence[str], given: Mapping[str, Given] | None = None, file: str | None = None, isolated: bool = False
) -> Configuration:
    """Decide about a run.

    Args:
        paths: of files and folders that are to be looked at. The nearest `pyproject.toml` with a table for this tool is read,
            from the folder that holds them all upwards.
        given: values that win over the file's, by key.
        file: is read in its place; what it says of paths is then relative to the working directory.
        isolated: read no file.

    Raises:
        ConfigurationError: values are refused, or a file cannot be read; all of that, in a line each.
    """
    table, above = _read(paths, given or {}, file, isolated)
    below = _beneath(above, table.values)
    values: dict[str, Any] = {name: key.default for name, key in KEYS.items()} | below | above
    origins = dict.fromkeys(KEYS, DEFAULT) | dict.fromkeys(below, table.shown) | {name: one.origin for name, one in (given or {}).items()}
    for name in below.keys() & above.keys():
        if KEYS[name].adds:
            values[name] = (*below[name], *above[name])
            origins[name] = f"{table.shown}, {origins[name]}"
    folder = table.folder or os.getcwd()
    return Configuration(
        settings=_settings(values, folder),
        exclusions=_exclusions(below, above, folder, values["force-exclude"]),
        follow_imports=not values["no-imports"],
        project_root=values["project-root"] or "",
        cache_dir=values["cache-dir"],
        baseline=values["baseline"],
        jobs=None if values["jobs"] == "auto" else values["jobs"],
        output_format=values["output-format"],
        folder=folder,
        values=values,
        origins=origins,
    )


def _read(paths: Sequence[str], given: Mapping[str, Given], file: str | None, isolated: bool) -> tuple[Table, dict[str, Any]]:
    """What the file says, and what is said besides; whatever is wrong in both."""
    table, above = Table(), dict[str, Any]()
    causes: list[str] = []
    try:
        table = table if isolated else read(file) if file is not None else find(paths)
    except ConfigurationError as error:
        causes += error.causes
    for name, one in given.items():
        try:
            above[name] = KEYS[name].read(one.value, os.getcwd())
        except RefusedError as error:  # noqa: PERF203 - there are a few of them
            causes += (f"{one.origin}: {cause}" for cause in each_of(error))
    if causes:
        raise ConfigurationError(*causes)
    return table, above


def _settings(values: Mapping[str, Any], folder: str) -> Settings:
    return Settings(
        select=values["select"],
        ignore=values["ignore"],
        extend_select=values["extend-select"],
        per_file_ignores=tuple(values["per-file-ignores"].items()),
        folder=folder,
        severities=tuple((prefix, Severity(severity)) for prefix, severity in values["severity"].items()),
        own=OwnNames(**{API_KEYS[kind]: names for kind, names in values["api"].items()}),
    )


def _exclusions(below: Mapping[str, Any], above: Mapping[str, Any], folder: str, forced: bool) -> Exclusions:
    """Patterns of the file are relative to its folder, those of the command line to the working directory."""
    layers = [(below, folder), (above, os.getcwd())]
    replaced = [(layer["exclude"], where) for layer, where in layers if "exclude" in layer]
    added = [(layer["extend-exclude"], where) for layer, where in layers if "extend-exclude" in layer]
    patterns = tuple(Patterns(where, found) for found, where in (*replaced[-1:], *added))
    return Exclusions(frozenset() if replaced else SKIPPED_FOLDERS, patterns, forced)


def _beneath(above: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of a file's values under those that win: a choice of rules begins anew, and is corrected code by code."""
    if "select" in above:
        return {name: value for name, value in values.items() if name not in _CHOICE}
    lost = dict.fromkeys(("select", "extend-select"), above.get("ignore", ())) | {"ignore": above.get("extend-select", ())}
    return {name: _without(value, lost[name]) if name in lost else value for name, value in values.items()}


def _without(codes: Prefixes, prefixes: Prefixes) -> Prefixes:
    return tuple(code for code in codes if not code.startswith(prefixes))
