"""Shortens an input that fails: by lines, then by what stands on them, as long as it fails in the same way."""

from __future__ import annotations

import re
from collections.abc import Callable

TOKEN = re.compile(rb"\w+|[^\S\n]+|\n|[^\w\s]|.", re.DOTALL)


def minimised(data: bytes, fails: Callable[[bytes], bool], budget: int = 400) -> bytes:
    """A part of an input that still fails.

    Args:
        data: that fails.
        fails: whether another input fails in the same way.
        budget: how many inputs may be tried.
    """
    left = budget

    def tried(parts: list[bytes]) -> bool:
        nonlocal left
        left -= 1
        return left >= 0 and fails(b"".join(parts))

    for split in (_lines, TOKEN.findall):
        data = b"".join(_reduced(split(data), tried))
    return data


def _lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


def _reduced(parts: list[bytes], fails: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Parts without which it would not fail: runs of them are left out, shorter and shorter ones, until none can be."""
    size = max(1, len(parts) // 2)
    while parts:
        before, at = len(parts), 0
        while at < len(parts):
            without = parts[:at] + parts[at + size :]
            if fails(without):
                parts = without
            else:
                at += size
        if size == 1 and len(parts) == before:
            break
        size = max(1, size // 2)
    return parts
