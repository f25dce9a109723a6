"""A configuration as the table that would make it, with the origin of each value."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from flake8_torchmem.configuration import Configuration
from flake8_torchmem.configuration.keys import KEYS
from flake8_torchmem.configuration.table import TABLE
from flake8_torchmem.output.text import printable


def lines(configuration: Configuration) -> Iterator[str]:
    """TOML. What has no value stands in a comment, as does the origin of what has one."""
    values, origins = configuration.values, configuration.origins
    yield f"[tool.{TABLE}]"
    for name in KEYS:
        value = values[name]
        if not isinstance(value, dict):
            written = f"{name} = {_toml(value)}" if value is not None else f"# {name} is not set"
            yield printable(f"{written}  # {origins[name]}")
    for name in KEYS:
        if isinstance(values[name], Mapping):
            yield ""
            yield printable(f"[tool.{TABLE}.{name}]  # {origins[name]}")
            yield from (printable(f"{_toml(key)} = {_toml(inner)}") for key, inner in values[name].items())
    yield ""
    yield f"# rules that run: {', '.join(sorted(configuration.settings.enabled_codes()))}"


def _toml(value: object) -> str:
    """A value in TOML: its strings and booleans are JSON's, but that DEL has to be escaped."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
