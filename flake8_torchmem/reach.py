"""How far a repository reaches: nothing in it, be it a link or a path in its configuration, leads a run out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable

REPOSITORIES = (".git", ".hg")
MAX_INDEX_BYTES = 500_000_000


class TooLargeError(OSError):
    """A file is larger than what is read of its kind; `strerror` says so."""

    def __init__(self, limit: int) -> None:
        super().__init__(27, f"larger than {limit:,} bytes")


class NoFileError(OSError):
    """What is no regular file, such as a pipe, could be waited for without end; `strerror` says so."""

    def __init__(self) -> None:
        super().__init__(22, "not a regular file")


def top_of(folder: str, marks: Iterable[str] = REPOSITORIES) -> str:
    """The repository around a folder: the nearest folder upwards that has a `.git` or `.hg`; the folder itself if there is none.

    Args:
        folder: absolute. Links in it are taken as they are spelled: it is what lies around the link that counts.
        marks: other names that are looked for.
    """
    current = folder
    while not any(os.path.lexists(os.path.join(current, name)) for name in marks):
        parent = os.path.dirname(current)
        if parent == current:
            return folder
        current = parent
    return current


def is_within(path: str, *folders: str) -> bool:
    """Whether a path lies in one of some folders, or is one, all links followed."""
    real, *tops = (os.path.normcase(os.path.realpath(each)) for each in (path, *folders))
    return any(real == top or real.startswith(os.path.join(top, "")) for top in tops)


def leads_out(path: str) -> bool:
    """Whether links lead a path out of the repository that it is spelled in."""
    place = os.path.abspath(path)
    return not is_within(place, top_of(os.path.dirname(place)))


def brings_along(folder: str, name: str) -> bool:
    """Whether a file of this name may be part of the repository around a folder, as git's index tells; it need not be in the folder."""
    top = top_of(os.path.abspath(folder))
    try:
        home = os.path.join(top, ".git")
        if os.path.isfile(home):  # of a worktree or submodule
            home = os.path.join(top, read_regular(home, 4096).decode("utf-8", "surrogateescape").partition(":")[2].strip())
        indexes = [entry.path for entry in os.scandir(home) if entry.name == "index" or entry.name.startswith("sharedindex.")]
        contents = [read_regular(path, MAX_INDEX_BYTES) for path in indexes]
    except OSError:
        return False
    # From version 4 on, names leave out what they begin with like the one before.
    return any(name.encode() in content or content[4:8] >= b"\0\0\0\4" for content in contents)


def read_regular(path: str, limit: int) -> bytes:
    """The bytes of a regular file, be it replaced by something else right now.

    Args:
        path: of the file, or of a link to it.
        limit: bytes that are read at most.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise NoFileError
        if status.st_size > limit:
            raise TooLargeError(limit)
        # What the system makes up as it is read has no size, and other files may grow: they are read, no further than the limit.
        data = file.read(status.st_size + 1)
        if len(data) > status.st_size:
            data += file.read(limit + 1 - len(data))
    if len(data) > limit:
        raise TooLargeError(limit)
    return data
