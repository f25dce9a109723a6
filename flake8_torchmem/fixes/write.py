"""Files that are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile


class ChangedError(Exception):
    """The file is no longer what was read."""


def replace_file(path: str, old: bytes, new: bytes) -> None:
    """Write a file so that whoever looks, and whenever this is killed, finds the old bytes or the new ones.

    The file keeps its mode, and its owner where that is allowed; of a link it is the file that it leads to.

    Args:
        path: the file.
        old: what it is expected to hold.
        new: what it is to hold.

    Raises:
        ChangedError: it holds something else by now.
        OSError: it cannot be written.
    """
    target = os.path.realpath(path)
    found = os.stat(target)
    if not os.access(target, os.W_OK):
        raise PermissionError(13, "Permission denied", path)
    handle, temporary = tempfile.mkstemp(prefix=".torchmem-", suffix=".tmp", dir=os.path.dirname(target))
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, stat.S_IMODE(found.st_mode))
        if hasattr(os, "chown"):
            with contextlib.suppress(OSError):
                os.chown(temporary, found.st_uid, found.st_gid)
        with open(target, "rb") as current:
            if current.read() != old:
                raise ChangedError(path)
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
