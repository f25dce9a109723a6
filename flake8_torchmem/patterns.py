"""Patterns for paths, as in `.gitignore`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
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


@cache  # as many as configurations have
def spec(patterns: tuple[str, ...]) -> GitIgnoreSpec:
    """The patterns, ready to match.

    Raises:
        ValueError: one is malformed.
    """
    return compiled(patterns)


def compiled(patterns: Iterable[str]) -> GitIgnoreSpec:
    """The patterns, ready to match any path in a time that grows with its length alone.

    Raises:
        ValueError: one is malformed.
    """
    from pathspec import GitIgnoreSpec

    try:
        found = GitIgnoreSpec.from_lines(patterns)
        for pattern in found.patterns:
            if pattern.regex is not None:
                pattern.regex = re.compile(steady(pattern.regex.pattern))
    except re.error as error:  # a class that runs backwards: `[z-a]`
        raise ValueError(error.msg) from None
    return found


# As pathspec writes them: `*`, `**` between folders, and `**` at the beginning.
_STAR, _FOLDERS, _ANYWHERE = "[^/]*", "(?:/.+)?", "^(?:.+/)?"
_ATOM = r"(?:\\.|\[\^/\](?!\*)|\[(?!\^/\])(?:\\.|[^]\\])+\]|[^][\\/()*])"
_STAR_AND_MORE = re.compile(rf"\[\^/\]\*({_ATOM}+)(?=\[\^/\]\*)")


def steady(regex: str) -> str:
    """A regular expression for the same paths that does not go back over what it has read.

    Where `*` and `**` have something behind them, then another `*` or `**`, the first place that fits is as good as any: no other
    one is tried. A handful of stars would otherwise take years of a long name.

    Args:
        regex: as pathspec makes it of a pattern. What is not known is left as it is.
    """
    end = min((place for place in (regex.find("(?:(?P<"), regex.find("(?P<"), regex.find("$")) if place >= 0), default=len(regex))
    number = 0

    def first(group: str) -> str:
        nonlocal number
        number += 1
        return f"(?=(?P<s{number}>{group}))(?P=s{number})"

    body = re.sub(r"\[\^(?!/)", "[^/", regex[:end])  # no class has the `/`
    body = re.sub(r"(?:\[\^/\]\*)+", _STAR, body)
    body = _STAR_AND_MORE.sub(lambda match: first(f"{_STAR}?{match[1]}"), body)
    *chunks, last = body.split(_FOLDERS)
    if not chunks:
        return body + regex[end:]
    anywhere = chunks[0].startswith(_ANYWHERE)
    parts = ["^" + first(f"(?:.+?/)??{chunks[0].removeprefix(_ANYWHERE)}(?=/)") if anywhere else chunks[0]]
    parts += [first(f"(?:/.+?)??{chunk}(?=/)") for chunk in chunks[1:]]
    return "".join([*parts, _FOLDERS, last, regex[end:]])
