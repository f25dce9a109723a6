"""The table of this tool in a `pyproject.toml`: found, read and checked."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flake8_torchmem.configuration.keys import KEYS, MOST_SAID, OF_THE_USER, PATHS, RefusedError, each_of, nearest
from flake8_torchmem.reach import is_within, read_regular, top_of

FILE = "pyproject.toml"
TABLE = "flake8_torchmem"
MOST_JOBS = max(8, os.cpu_count() or 1)  # in a file that was found: a repository is not to start processes without end
MAX_BYTES = 500_000
MAX_READ = 20_000_000  # to see whether it speaks of this tool: files of others may be as large as they like
MAX_PARTS = 100  # of a dotted key: readers of TOML take a time that grows with the square of it
_OURS = re.compile(r"^(?:flake8[-_]?)?torch[-_]?mem$", re.IGNORECASE)


class ConfigurationError(ValueError):
    """A configuration that cannot be obeyed: its text names place, key and cause, in a line for each thing that is wrong.

    Args:
        causes: those lines.
    """

    def __init__(self, *causes: str) -> None:
        super().__init__("\n".join(causes))
        self.causes = causes


@dataclass(frozen=True)
class Table:
    """What a file says.

    Attributes:
        file: where; None for nowhere.
        folder: that its paths are relative to.
        values: checked, by key.
    """

    file: str | None = None
    folder: str = ""
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        """The file as messages name it."""
        return shown(self.file) if self.file else ""


def shown(path: str) -> str:
    """A path as seen from the working directory, or absolute where that would lead upwards."""
    try:
        relative = os.path.relpath(path)
    except ValueError:  # on another drive
        return path
    return path if relative.startswith(os.pardir) else relative


def find(paths: Sequence[str]) -> Table:
    """The nearest table above some paths; an empty one if there is none.

    Args:
        paths: of files and folders; the search begins in the folder that holds them all.

    Raises:
        ConfigurationError: the file that has it cannot be obeyed.
    """
    folder = common_folder(paths)
    while True:
        path = os.path.join(folder, FILE)
        data = _bytes(path, missing=b"")
        if b"torchmem" in data:  # files of other people's may be broken as they like
            found = _ours(path, data)
            if found is not None:
                return _checked(path, data, found, folder, top_of(folder))
        parent = os.path.dirname(folder)
        if parent == folder:
            return Table()
        folder = parent


def read(path: str) -> Table:
    """The table of a file that was named; what it says of paths is relative to the working directory.

    Args:
        path: of the file.

    Raises:
        ConfigurationError: it cannot be obeyed, or has no table for this tool.
    """
    data = _bytes(path)
    found = _ours(path, data)
    if found is None:
        raise ConfigurationError(f"{shown(path)}: there is no table [tool.{TABLE}]")
    return _checked(path, data, found, os.getcwd())


def common_folder(paths: Sequence[str]) -> str:
    """The folder that holds all of some files and folders; the working directory if there is none."""
    places = [place if os.path.isdir(place) else os.path.dirname(place) for place in map(os.path.abspath, paths)]
    try:
        return os.path.commonpath(places)
    except ValueError:  # none, or on several drives
        return os.getcwd()


def _bytes(path: str, missing: bytes | None = None) -> bytes:
    try:
        return read_regular(path, MAX_READ)
    except (FileNotFoundError, NotADirectoryError):
        if missing is not None:
            return missing
        raise ConfigurationError(f"{shown(path)}: no such file") from None
    except OSError as error:
        raise ConfigurationError(f"{shown(path)}: cannot be read: {error.strerror}") from None


def _ours(path: str, data: bytes) -> object:
    """What the file has for this tool; None for nothing."""
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{shown(path)}: larger than {MAX_BYTES:,} bytes")
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        text = data.decode("utf-8")
        _require_short_keys(path, text)
        tools = tomllib.loads(text).get("tool", {})
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{shown(path)}:{line}: not valid UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        cause, line = _without_place(str(error), text)
        raise ConfigurationError(f"{shown(path)}:{line}: not valid TOML: {cause}") from None
    except RecursionError:
        raise ConfigurationError(f"{shown(path)}: nested too deeply") from None
    tools = tools if isinstance(tools, dict) else {}
    misnamed = [name for name in tools if name != TABLE and _OURS.match(name)]
    if misnamed:
        place = f"{shown(path)}{{}}: there is no table [tool.{{}}]; did you mean [tool.{TABLE}]?"
        raise ConfigurationError(*(place.format(_line(text, name), name) for name in misnamed[:MOST_SAID]))
    return tools.get(TABLE)


def _require_short_keys(path: str, text: str) -> None:
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_PARTS and any(part.count(".") > MAX_PARTS for part in re.split(r"[][={},]", line)):
            raise ConfigurationError(f"{shown(path)}:{number}: a key of more than {MAX_PARTS} parts")


def _without_place(message: str, text: str) -> tuple[str, int]:
    """What a TOML reader says, and the line that it says it of."""
    found = re.search(r" \(at line (\d+), column \d+\)$", message)
    return (message[: found.start()], int(found[1])) if found else (message.removesuffix(" (at end of document)"), text.count("\n") + 1)


def _checked(path: str, data: bytes, found: object, folder: str, top: str | None = None) -> Table:
    """The table, if it can be obeyed. That of a file which was found, and not named, reaches no further than the repository: `top`."""
    text = data.decode("utf-8")
    if not isinstance(found, dict):
        raise ConfigurationError(f"{shown(path)}{_line(text, TABLE)}: [tool.{TABLE}] has to be a table")
    values: dict[str, Any] = {}
    causes: list[str] = []
    for name, value in found.items():
        try:
            values[name] = _value(name, value, folder, top)
        except RefusedError as error:
            causes += (_complaint(path, text, name, one) for one in each_of(error))
        if len(causes) >= MOST_SAID:
            break
    if causes:
        raise ConfigurationError(*causes[:MOST_SAID])
    return Table(path, folder, values)


def _value(name: str, value: object, folder: str, top: str | None) -> object:
    if name not in KEYS:
        raise RefusedError(f"there is no such key{nearest(name, KEYS)}")
    read = KEYS[name].read(value, folder)
    if top is not None and name in OF_THE_USER:
        raise RefusedError(f"only the command line, its environment and a file named by --config can say it: {OF_THE_USER[name]}")
    if top is not None and name == "jobs" and read != "auto":
        return min(int(str(read)), MOST_JOBS)
    if top is not None and name in PATHS and not is_within(str(read), top):
        raise RefusedError(f"it leads out of {shown(top)}, which only the command line and a file named by --config can")
    return read


def _complaint(path: str, text: str, name: str, error: RefusedError) -> str:
    dotted = ".".join(part if re.fullmatch(r"[\w-]+", part) else f'"{part}"' for part in (name, error.inner) if part)
    return f"{shown(path)}{_line(text, error.inner, name)}: [tool.{TABLE}] {dotted}: {error}"


def _line(text: str, *names: str) -> str:
    """`:7` for the line of the first of these keys or tables that is seen: readers of TOML do not tell."""
    for name in filter(None, names):
        key, inside = re.compile(rf"\s*[\"']?{re.escape(name)}[\"']?\s*[=.]"), False
        for number, line in enumerate(text.split("\n"), 1):
            header = re.match(r"\s*\[{1,2}([^][]+)\]", line)
            parts = [part.strip(" \t\"'") for part in header[1].split(".")] if header else []
            inside = TABLE in parts if parts else inside
            if name in parts or (inside and key.match(line)):
                return f":{number}"
    return ""
