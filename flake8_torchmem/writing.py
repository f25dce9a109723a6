"""Files that are written whole or not at all: whoever looks, and whenever this is killed, finds the old file or the new one."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Callable

from flake8_torchmem.reach import leads_out

SYSTEM = ("/dev/", "/proc/")  # whose links are nobody's trap: `/dev/stdout` may lead anywhere


def write_whole(path: str, data: bytes) -> None:
    """Write a file, new or in the place of an old one whose mode and owner it gets; of a link it is the file that it leads to.

    What is no regular file, such as a pipe or a terminal, is written as it comes.

    Args:
        path: the file.
        data: what it is to hold.

    Raises:
        OSError: it cannot be written, or is a link that leads out of the repository.
    """
    if not path.startswith(SYSTEM) and leads_out(path):
        raise OSError(40, "it is a link that leads out of the repository")
    target = os.path.realpath(path)
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb") as file:
            file.write(data)
        return
    put_in_place(target, data, lambda: None)


def put_in_place(target: str, data: bytes, check: Callable[[], None]) -> None:
    """Write the bytes beside a regular file, and then over it in one step.

    Args:
        target: the file itself, no link to it.
        data: what it is to hold.
        check: called right before the file is replaced; what it raises leaves the old one there.

    Raises:
        OSError: it cannot be written.
    """
    old = os.stat(target) if os.path.exists(target) else None
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(13, "Permission denied", target)
    handle, temporary = tempfile.mkstemp(prefix=".torchmem-", suffix=".tmp", dir=os.path.dirname(target))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            _like(file.fileno() if hasattr(os, "fchmod") else temporary, old)
        check()
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _like(file: int | str, old: os.stat_result | None) -> None:
    """Give a file the mode and owner of another one. By its number where that can be: a name may stand for another file by now."""
    os.chmod(file, stat.S_IMODE(old.st_mode) if old else 0o666 & ~_umask())
    if old is not None and hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(file, old.st_uid, old.st_gid)


def _umask() -> int:
    """What the user wants new files not to be; asking means setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
