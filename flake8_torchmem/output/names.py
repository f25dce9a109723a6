"""What findings and files are called where other programs keep track of them."""

from __future__ import annotations

import os
from hashlib import sha256
from urllib.parse import quote

from flake8_torchmem.output import Located, normal


def fingerprint(located: Located, *around: str) -> str:
    """What a finding is known by from run to run: it stays the same when lines move or are indented anew.

    Args:
        located: the finding.
        around: what else tells it apart, such as its file where one name space holds the findings of all files.
    """
    return digest(*around, located.finding.code, normal(located.line), str(located.twin))


def digest(*parts: str) -> str:
    """32 hexadecimal digits that stand for some texts."""
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def from_here(path: str) -> str:
    """A path with slashes, from the folder of this run if it is in there, as CI services know their files."""
    inside = _inside(path)
    return path.replace(os.sep, "/") if inside is None else inside


def uri(path: str) -> str:
    """A path as a reference: relative if it is within the folder of this run, else of scheme `file`. Any bytes survive."""
    inside = _inside(path)
    if inside is not None:
        return quote(os.fsencode(inside))
    full = os.path.abspath(path).replace(os.sep, "/")
    return "file://" + ("" if full.startswith("/") else "/") + quote(os.fsencode(full))


def _inside(path: str) -> str | None:
    """The path from the folder of this run, if it is within it."""
    try:
        here = os.path.relpath(path).replace(os.sep, "/")
    except ValueError:  # another drive
        return None
    return None if here.split("/", 1)[0] == os.pardir else here
