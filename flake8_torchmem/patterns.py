"""Patterns for paths, as in `.gitignore`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec


@dataclass(frozen=True)
class Patterns:
    """Some patterns; the last one that matches decides.

    Attributes:
        folder: that they are relative to; empty for the working directory.
        patterns: as in `.gitignore`.
    """

    folder: str
    patterns: tuple[str, ...]

    def match(self, path: str, is_folder: bool = False) -> bool:
        """Whether a path, or a folder around it, is meant.

        Args:
            path: absolute, or as seen from the working directory.
            is_folder: whether it is one; a file is not meant by `name/`.

        Raises:
            ValueError: a pattern is malformed.
        """
        if not self.patterns:
            return False
        try:
            relative = os.path.relpath(path, self.folder or os.curdir).replace(os.sep, "/")
        except ValueError:  # on another drive
            return False
        return spec(self.patterns).match_file(relative + "/" if is_folder else relative)

    def without(self, folder: str) -> Patterns:
        """The patterns that do not mean a folder."""
        return Patterns(self.folder, tuple(one for one in self.patterns if not Patterns(self.folder, (one,)).match(folder, is_folder=True)))


@lru_cache(maxsize=256)
def spec(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    """The patterns, ready to match.

    Raises:
        ValueError: one is malformed.
    """
    from pathspec import GitIgnoreSpec

    return GitIgnoreSpec.from_lines(patterns)
