"""Files that are replaced only if they are still what was read."""

from __future__ import annotations

import os

from flake8_torchmem.reach import leads_out
from flake8_torchmem.writing import put_in_place


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
        OSError: it cannot be written, or is a link that leads out of the repository.
    """
    if leads_out(path):
        raise OSError(40, "it is a link that leads out of the repository")
    target = os.path.realpath(path)
    os.stat(target)

    def unchanged() -> None:
        with open(target, "rb") as current:
            if current.read() != old:
                raise ChangedError(path)

    put_in_place(target, new, unchanged)
