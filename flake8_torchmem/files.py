"""Which files a run checks: named files always, folders in sorted order without what git ignores."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, TextIO

from flake8_torchmem.model import FileError
from flake8_torchmem.patterns import Patterns, compiled
from flake8_torchmem.reach import is_within, read_regular, top_of
from flake8_torchmem.rules.internal import UNREADABLE_FILE

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

STDIN = "-"
SUFFIX_OF_NOTEBOOKS = ".ipynb"
_SUFFIXES = (".py", SUFFIX_OF_NOTEBOOKS)
SKIPPED_FOLDERS = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        "node_modules",
        ".tox",
        ".nox",
        ".eggs",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
        ".ipynb_checkpoints",
    }
)
_MARKS_OF_ENVIRONMENTS = frozenset({"pyvenv.cfg", "conda-meta"})
MAX_BYTES = 10_000_000  # of a file of Python
MAX_NOTEBOOK_BYTES = 100_000_000  # whose outputs may be pictures
MAX_IGNORE_BYTES = 200_000
LEADS_OUT = "a link that leads out of the repository"
_EDITOR_LOCK_PREFIX = ".#"  # a dangling link on purpose


@dataclass(frozen=True)
class Exclusions:
    """What is not looked at, besides what git ignores and virtual environments.

    Attributes:
        folders: names of folders.
        patterns: of files and folders.
        forced: leave out what is named as well.
    """

    folders: frozenset[str] = SKIPPED_FOLDERS
    patterns: tuple[Patterns, ...] = ()
    forced: bool = False

    def match(self, path: str, is_folder: bool) -> bool:
        """Whether an entry of a folder is left out."""
        return (is_folder and os.path.basename(path) in self.folders) or any(one.match(path, is_folder) for one in self.patterns)

    def match_named(self, path: str, is_folder: bool) -> bool:
        """Whether a path that was named is left out, by what it is or where it is."""
        around = os.path.abspath(path).split(os.sep)
        return self.match(path, is_folder) or not self.folders.isdisjoint(around if is_folder else around[:-1])

    def inside(self, folder: str) -> Exclusions:
        """What holds in a folder that was named: patterns by which it would be left out itself are not meant."""
        return replace(self, patterns=tuple(one.without(folder) for one in self.patterns))


@dataclass
class Sources:
    """What the paths of one run come to.

    Attributes:
        files: to be checked, each once, in the order of the paths given and sorted within folders.
        errors: what cannot be checked, and why.
        missing: the given paths that do not exist.
    """

    files: list[str] = field(default_factory=list)
    errors: list[FileError] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def find_files(paths: Sequence[str], exclusions: Exclusions = Exclusions()) -> Sources:
    """Expand the given paths. `-` stands for standard input and is passed on."""
    sources = Sources()
    for path in paths:
        if path == STDIN:
            sources.files.append(path)
        elif exclusions.forced and exclusions.match_named(path, os.path.isdir(path)):
            continue
        elif not os.path.lexists(path):
            sources.missing.append(path)
            sources.errors.append(unreadable(path, "no such file or folder"))
        elif os.path.isdir(path):
            _add_folder(path, sources, exclusions.inside(path))
        else:
            _add_file(path, sources)
    sources.files = _unique(sources.files)
    return sources


def _unique(paths: list[str]) -> list[str]:
    first_name: dict[str, str] = {}
    for path in paths:
        first_name.setdefault(path if path == STDIN else os.path.abspath(path), path)
    return list(first_name.values())


def unreadable(path: str, cause: str, line: int | None = None) -> FileError:
    """The entry for a file that could not be checked: one line that names file, line and cause."""
    return _error(path if line is None else f"{path}:{line}", path, cause, line)


def unreadable_cell(path: str, cell: int, line: int, row: int, cause: str) -> FileError:
    """The same for a cell of a notebook whose other cells were checked: `line` is in the cell, `row` in the file."""
    return _error(f"{path}:cell {cell}:{line}", path, cause, row, cell)


def _error(place: str, path: str, cause: str, line: int | None, cell: int | None = None) -> FileError:
    return FileError(path, f"{place}: {UNREADABLE_FILE.code} [{UNREADABLE_FILE.name}] {' '.join(cause.split())}", line, cell)


def cannot(verb: str, name: str, error: OSError) -> FileError:
    """The entry for a file that the system does not let us read or write."""
    return unreadable(name, f"cannot be {verb}: {error.strerror}")


def read(path: str) -> bytes:
    """The bytes of a file, or of standard input.

    Raises:
        OSError: the system does not let us, or it is larger than what is checked.
    """
    if path == STDIN:
        return b"" if sys.stdin is None else _all_of(sys.stdin)
    return read_regular(path, MAX_NOTEBOOK_BYTES if path.endswith(SUFFIX_OF_NOTEBOOKS) else MAX_BYTES)


@lru_cache(maxsize=1)
def _all_of(stream: TextIO) -> bytes:
    """What a stream holds: it can be read once, and is asked for again by reports that show code."""
    return stream.buffer.read()


def _add_file(path: str, sources: Sources) -> None:
    cause = _obstacle(path)
    if cause is None:
        sources.files.append(path)
    else:
        sources.errors.append(unreadable(path, cause))


def _obstacle(path: str) -> str | None:
    """Why the path cannot be read as a file. Opening a pipe or a device could wait for ever."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "broken symbolic link" if os.path.islink(path) else "no such file"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    return None if stat.S_ISREG(mode) else f"not a regular file; pass {STDIN} to check standard input"


def _add_folder(root: str, sources: Sources, exclusions: Exclusions) -> None:
    """Walk a folder without following links to folders: no link can make the walk endless."""
    pending = [(root, True, _Ignores.above(os.path.abspath(root)))]
    reach = top_of(os.path.abspath(root)), root
    while pending:
        path, is_folder, ignores = pending.pop()
        if not is_folder:
            if os.path.islink(path) and os.path.exists(path) and not is_within(path, *reach):
                sources.errors.append(unreadable(path, LEADS_OUT))
            else:
                _add_file(path, sources)
            continue
        try:
            with os.scandir(path) as scan:
                entries = sorted(scan, key=lambda entry: entry.name, reverse=True)
        except OSError as error:
            sources.errors.append(unreadable(path, f"cannot be read: {error.strerror}"))
            continue
        if path == root or _MARKS_OF_ENVIRONMENTS.isdisjoint(entry.name for entry in entries):
            inner = ignores.within(os.path.abspath(path))
            pending.extend((entry.path, is_dir, inner) for entry, is_dir in _wanted(entries, inner, exclusions))


def _wanted(entries: list[os.DirEntry[str]], ignores: _Ignores, exclusions: Exclusions) -> Iterator[tuple[os.DirEntry[str], bool]]:
    """The entries to go on with, each with whether it is a folder."""
    for entry in entries:
        is_folder = entry.is_dir(follow_symlinks=False)
        wanted = is_folder or _is_source(entry)
        if wanted and not (exclusions.match(entry.path, is_folder) or ignores.match(os.path.abspath(entry.path), is_folder)):
            yield entry, is_folder


def _is_source(entry: os.DirEntry[str]) -> bool:
    is_linked_folder = entry.is_symlink() and os.path.isdir(entry.path)
    return entry.name.endswith(_SUFFIXES) and not entry.name.startswith(_EDITOR_LOCK_PREFIX) and not is_linked_folder


@dataclass(frozen=True)
class _Ignores:
    """The ignore files that hold in a folder, outermost first, each with the folder that its patterns are relative to."""

    layers: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    @classmethod
    def above(cls, folder: str) -> _Ignores:
        """What the repository says above this folder; nothing if it ignores the folder, for it was asked for by name."""
        ancestors = [folder]
        while not os.path.lexists(os.path.join(ancestors[-1], ".git")):
            parent = os.path.dirname(ancestors[-1])
            if parent == ancestors[-1]:
                return cls()
            ancestors.append(parent)
        ignores = cls().with_file(ancestors[-1], os.path.join(".git", "info", "exclude"))
        for outer, inner in zip(ancestors[:0:-1], ancestors[-2::-1], strict=True):
            ignores = ignores.with_file(outer, ".gitignore")
            if ignores.match(inner, is_folder=True):
                return cls()
        return ignores

    def within(self, folder: str) -> _Ignores:
        """What holds inside this folder; a repository inside another one starts anew."""
        outer = self if not os.path.lexists(os.path.join(folder, ".git")) else _Ignores().with_file(folder, ".git/info/exclude")
        return outer.with_file(folder, ".gitignore")

    def with_file(self, folder: str, name: str) -> _Ignores:
        """This, and the patterns of the folder's ignore file if it has one."""
        try:
            data = read_regular(os.path.join(folder, name), MAX_IGNORE_BYTES)
        except OSError:
            return self
        patterns = data.decode("utf-8", "surrogateescape").splitlines()
        return _Ignores((*self.layers, (folder, _spec(patterns))))

    def match(self, path: str, is_folder: bool) -> bool:
        """Whether git ignores the path: the innermost file that has something to say decides."""
        for folder, spec in reversed(self.layers):
            relative = os.path.relpath(path, folder).replace(os.sep, "/")
            verdict = spec.check_file(relative + "/" if is_folder else relative).include
            if verdict is not None:
                return verdict
        return False


def _spec(patterns: list[str]) -> GitIgnoreSpec:
    """Parse ignore patterns, without those that git would ignore as malformed."""
    try:
        return compiled(patterns)
    except ValueError:
        return compiled([pattern for pattern in patterns if _is_pattern(pattern)])


def _is_pattern(pattern: str) -> bool:
    try:
        compiled([pattern])
    except ValueError:
        return False
    return True
