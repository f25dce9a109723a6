"""Access paths as strings: `self.opts.opt[0]`."""

from __future__ import annotations

from collections.abc import Iterator


def root(path: str) -> str:
    """The variable that an access path starts from."""
    for index, char in enumerate(path):
        if char in ".[":
            return path[:index]
    return path


def prefixes(path: str) -> Iterator[str]:
    """The path and every shorter path it goes through: `a.b['c']`, `a.b`, `a`."""
    yield path
    for index in range(len(path) - 1, 0, -1):
        if path[index] in ".[":
            yield path[:index]
