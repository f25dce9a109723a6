"""Access paths as strings: `self.opts.opt[0]`."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=8192)
def root(path: str) -> str:
    """The variable that an access path starts from."""
    for index, char in enumerate(path):
        if char in ".[":
            return path[:index]
    return path


@lru_cache(maxsize=8192)
def prefixes(path: str) -> tuple[str, ...]:
    """The path and every shorter path it goes through: `a.b['c']`, `a.b`, `a`."""
    return (path, *(path[:index] for index in range(len(path) - 1, 0, -1) if path[index] in ".["))
