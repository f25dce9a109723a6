"""The keys of the table: what each may hold, and what is said of anything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flake8_torchmem.files import SKIPPED_FOLDERS
from flake8_torchmem.model import Severity
from flake8_torchmem.ownnames import refused
from flake8_torchmem.patterns import spec
from flake8_torchmem.settings import SettingsError, require_known
from flake8_torchmem.words import SPELLINGS

API_KEYS = {kind.replace("_", "-"): kind for kind in SPELLINGS}
_TYPES = ((bool, "a boolean"), (str, "a string"), (int, "an integer"), (float, "a float"), (list, "an array"), (dict, "a table"))


class RefusedError(ValueError):
    """A value that a key does not take; its text says why.

    Args:
        cause: in words.
        inner: the key within the key that it is about.
    """

    def __init__(self, cause: str, inner: str = "") -> None:
        super().__init__(cause)
        self.inner = inner


@dataclass(frozen=True)
class Key:
    """A key.

    Attributes:
        default: what holds without it.
        read: checks a value, and gives what is made of it; it also takes the folder that paths are relative to.
        adds: whether the command line adds to the file, where else it takes its place.
    """

    default: object
    read: Callable[[object, str], object]
    adds: bool = False


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'this'?`, with the known word that is most like it."""
    import difflib

    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.0)
    return f"; did you mean {found[0]!r}?" if found else ""


def _unexpected(value: object, expected: str) -> RefusedError:
    found = next((name for kind, name in _TYPES if isinstance(value, kind)), "a date or time")
    return RefusedError(f"expected {expected}, found {found}")


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise _unexpected(value, "a string")
    if not value:
        raise RefusedError("it is empty")
    return value


def _boolean(value: object, _folder: str) -> bool:
    if not isinstance(value, bool):
        raise _unexpected(value, "true or false")
    return value


def _strings(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise _unexpected(value, "an array of strings") if not isinstance(value, list) else RefusedError("expected strings alone")
    return tuple(map(_string, value))


def _entries(value: object, expected: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _unexpected(value, expected)
    return value


def _codes(value: object, _folder: str) -> tuple[str, ...]:
    found = _strings(value)
    try:
        for code in found:
            require_known(code)
    except SettingsError as error:
        raise RefusedError(str(error)) from None
    return found


def _patterns(value: object, _folder: str) -> tuple[str, ...]:
    found = _strings(value)
    try:
        spec(found)
    except ValueError as error:
        raise RefusedError(f"malformed: {' '.join(str(error).split())}") from None
    return found


def _choice(value: object, known: Iterable[str]) -> str:
    choices = list(known)
    if _string(value) not in choices:
        raise RefusedError(f"{value!r} is none of {', '.join(choices)}{nearest(str(value), choices)}")
    return str(value)


def _per_file(value: object, folder: str) -> dict[str, tuple[str, ...]]:
    found = {}
    for pattern, codes in _entries(value, "a table of patterns, each with an array of codes").items():
        with _within(pattern):
            if pattern.startswith("!"):
                raise RefusedError("a pattern cannot be negated here")
            found[_patterns([pattern], folder)[0]] = _codes(codes, folder)
    return found


def _severities(value: object, folder: str) -> dict[str, str]:
    found = {}
    for code, severity in _entries(value, "a table of codes, each with a severity").items():
        with _within(code):
            found[_codes([code], folder)[0]] = _choice(severity, [known.value for known in Severity])
    return found


def _api(value: object, _folder: str) -> dict[str, tuple[str, ...]]:
    found = {}
    for kind, called in _entries(value, "a table of names").items():
        with _within(kind):
            if kind not in API_KEYS:
                raise RefusedError(f"there is no such key{nearest(kind, API_KEYS)}")
            found[kind] = _strings(called)
            if cause := refused(found[kind]):
                raise RefusedError(cause)
    return found


@contextmanager
def _within(inner: str) -> Iterator[None]:
    try:
        yield
    except RefusedError as error:
        raise RefusedError(str(error), inner) from None


def _path(value: object, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, os.path.expanduser(_string(value))))


def _folder(value: object, folder: str) -> str:
    path = _path(value, folder)
    if not os.path.isdir(path):
        raise RefusedError(f"there is no folder {path!r}")
    return path


def _jobs(value: object, _folder: str) -> int | str:
    if value == "auto":
        return "auto"
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise RefusedError(f"{value!r} is neither a number from 1 on nor 'auto'")
    return value


def _format(value: object, _folder: str) -> str:
    from flake8_torchmem.output import FORMATS

    return _choice(value, FORMATS)


KEYS = {
    "select": Key(None, _codes),
    "extend-select": Key((), _codes, adds=True),
    "ignore": Key((), _codes, adds=True),
    "per-file-ignores": Key({}, _per_file),
    "exclude": Key(tuple(sorted(SKIPPED_FOLDERS)), _patterns),
    "extend-exclude": Key((), _patterns, adds=True),
    "force-exclude": Key(False, _boolean),
    "project-root": Key(None, _folder),
    "no-imports": Key(False, _boolean),
    "severity": Key({}, _severities),
    "api": Key({}, _api),
    "jobs": Key("auto", _jobs),
    "output-format": Key("text", _format),
    "cache-dir": Key(None, _path),
    "baseline": Key(None, _path),
}
PATHS = frozenset({"project-root", "baseline"})
OF_THE_USER = {"cache-dir": "a repository could bring a cache along that knows of no findings"}
