"""The keys of the table: what each may hold, and what is said of anything else."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flake8_torchmem.files import SKIPPED_FOLDERS
from flake8_torchmem.model import Severity
from flake8_torchmem.ownnames import refused
from flake8_torchmem.patterns import spec
from flake8_torchmem.settings import SettingsError, require_known
from flake8_torchmem.words import SPELLINGS

MOST_SAID = 20  # of what is wrong
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


class SeveralRefusedError(RefusedError):
    """The same of several things in one value.

    Args:
        errors: one for each.
    """

    def __init__(self, errors: Sequence[RefusedError]) -> None:
        super().__init__("; ".join(map(str, errors)))
        self.errors = errors


class Gathered:
    """Goes on where a value is refused, so that all that is wrong is said at once; up to a limit."""

    def __init__(self) -> None:
        self.errors: list[RefusedError] = []

    @contextmanager
    def going_on(self, inner: str = "") -> Iterator[None]:
        """What is refused in the block is kept.

        Args:
            inner: the key within the key that the block is about.

        Raises:
            SeveralRefusedError: it is enough by now.
        """
        try:
            yield
        except RefusedError as error:
            self.errors += [RefusedError(str(one), inner or one.inner) for one in each_of(error)]
        if len(self.errors) >= MOST_SAID:
            self.end()

    def end(self) -> None:
        """Raise what was kept, if there is any."""
        if self.errors:
            raise SeveralRefusedError(self.errors[:MOST_SAID])


def each_of(error: RefusedError) -> Sequence[RefusedError]:
    """The single things that are refused."""
    return error.errors if isinstance(error, SeveralRefusedError) else [error]


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
    found, wrong = _strings(value), Gathered()
    for code in found:
        with wrong.going_on():
            _require_known(code)
    wrong.end()
    return found


def _require_known(code: str) -> None:
    try:
        require_known(code)
    except SettingsError as error:
        raise RefusedError(str(error)) from None


def _patterns(value: object, _folder: str) -> tuple[str, ...]:
    found = _strings(value)
    try:
        spec(found)
    except ValueError:
        wrong = Gathered()
        for pattern in found:
            with wrong.going_on():
                _require_pattern(pattern)
        wrong.end()
    return found


def _require_pattern(pattern: str) -> None:
    try:
        spec((pattern,))
    except ValueError as error:
        raise RefusedError(f"malformed: {' '.join(str(error).split())}") from None


def _choice(value: object, known: Iterable[str]) -> str:
    choices = list(known)
    if _string(value) not in choices:
        raise RefusedError(f"{value!r} is none of {', '.join(choices)}{nearest(str(value), choices)}")
    return str(value)


def _per_file(value: object, folder: str) -> dict[str, tuple[str, ...]]:
    found, wrong = {}, Gathered()
    for pattern, codes in _entries(value, "a table of patterns, each with an array of codes").items():
        with wrong.going_on(pattern):
            if pattern.startswith("!"):
                raise RefusedError("a pattern cannot be negated here")
            found[_patterns([pattern], folder)[0]] = _codes(codes, folder)
    wrong.end()
    return found


def _severities(value: object, folder: str) -> dict[str, str]:
    found, wrong = {}, Gathered()
    for code, severity in _entries(value, "a table of codes, each with a severity").items():
        with wrong.going_on(code):
            found[_codes([code], folder)[0]] = _choice(severity, [known.value for known in Severity])
    wrong.end()
    return found


def _api(value: object, _folder: str) -> dict[str, tuple[str, ...]]:
    found, wrong = {}, Gathered()
    for kind, called in _entries(value, "a table of names").items():
        with wrong.going_on(kind):
            if kind not in API_KEYS:
                raise RefusedError(f"there is no such key{nearest(kind, API_KEYS)}")
            found[kind] = _strings(called)
            if causes := refused(found[kind]):
                raise SeveralRefusedError([RefusedError(cause) for cause in causes])
    wrong.end()
    return found


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
