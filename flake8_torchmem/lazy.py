"""Regular expressions that are compiled when they are first used: most files need few, and compiling costs more than searching."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    Look = Callable[[str], re.Match[str] | None]

MANY = 2048  # words whose answers are kept, by each pattern
LONG = 100  # characters from which on something is no word


class _Lazy:
    """Stands for a pattern; its methods are there from the first use of each on."""

    def __init__(self, pattern: str, flags: int) -> None:
        self.pattern = pattern
        self.flags = flags

    def __getattr__(self, name: str) -> object:
        found = getattr(re.compile(self.pattern, self.flags), name)
        setattr(self, name, found)
        return found


def regex(pattern: str, flags: int = 0) -> re.Pattern[str]:
    """What `re.compile` gives, later."""
    return cast("re.Pattern[str]", _Lazy(pattern, flags))


class Words:
    """A pattern for names. Code says the same ones again and again: a look-up costs a tenth of a search.

    Args:
        pattern: as `re.compile` has it.
        flags: the same.
    """

    __slots__ = ("flags", "match", "pattern", "search")
    match: Look
    search: Look

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.pattern = pattern
        self.flags = flags

    def __getattr__(self, name: str) -> object:
        compiled = re.compile(self.pattern, self.flags)
        self.match = _Answers(compiled.match).__getitem__
        self.search = _Answers(compiled.search).__getitem__
        return object.__getattribute__(self, name)


class _Answers(dict[str, "re.Match[str] | None"]):
    """What a pattern says of words, each asked once."""

    __slots__ = ("look",)

    def __init__(self, look: Look) -> None:
        self.look = look

    def __missing__(self, word: str) -> re.Match[str] | None:
        found = self.look(word)
        if len(word) < LONG:
            if len(self) >= MANY:
                self.clear()
            self[word] = found
        return found
