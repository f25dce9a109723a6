"""A project's own names for what PyTorch does: they are read as the calls that they stand for, from the first look at a text on.

Lowering makes of `wipe(optimizer)` what it makes of `optimizer.zero_grad()`, so that no rule need know of them; the gate, which
looks at words alone, is shown the text with PyTorch's words in their place.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import NamedTuple

from flake8_torchmem.words import SPELLINGS

MOST = 200  # of a kind


class _Kinds(NamedTuple):
    backward: tuple[str, ...] = ()
    step: tuple[str, ...] = ()
    zero_grad: tuple[str, ...] = ()
    detach: tuple[str, ...] = ()
    to_host: tuple[str, ...] = ()
    no_grad: tuple[str, ...] = ()


class OwnNames(_Kinds):
    """Names by what they do. A bare name (`wipe`) also means methods; a dotted one is how a file imports it, from any package on.

    Attributes:
        backward: back-propagate an argument, or what they are a method of.
        step: make the step of the optimizer that they are given.
        zero_grad: clear the gradients of the optimizer or module that they are given.
        detach: give back what they are given, without its graph.
        to_host: make a number or an array on the host of what they are given.
        no_grad: decorators and context managers under which no graph is recorded.
    """

    def __bool__(self) -> bool:
        return bool(self._by_last_part)

    def kinds(self, path: str) -> tuple[str, ...]:
        """What a name stands for; more than one thing for what back-propagates and steps, say.

        Args:
            path: of the call, with imports spelled out.
        """
        named = self._by_last_part.get(path.rpartition(".")[2], ())
        return tuple(kind for name, kind in named if path == name or path.endswith(f".{name}"))

    def spelled(self, text: str) -> str:
        """A text for those who search it for words: each of the names is written as PyTorch's."""
        return self._words.sub(self._spelling, text) if self._by_last_part else text

    def spoken(self, text: str) -> bool:
        """Whether a text has one of the names in it."""
        return bool(self._by_last_part) and self._words.search(text) is not None

    @cached_property
    def _by_last_part(self) -> dict[str, list[tuple[str, str]]]:
        found: dict[str, list[tuple[str, str]]] = {}
        for kind, names in self._asdict().items():
            for name in names:
                found.setdefault(name.rpartition(".")[2], []).append((name, kind))
        return found

    @cached_property
    def _words(self) -> re.Pattern[str]:
        return re.compile(rf"\b(?:{'|'.join(map(re.escape, self._by_last_part))})\b")

    def _spelling(self, match: re.Match[str]) -> str:
        return "(), ".join(dict.fromkeys(SPELLINGS[kind] for _, kind in self._by_last_part[match[0]]))


NONE = OwnNames()


def refused(names: tuple[str, ...]) -> list[str]:
    """What is wrong with names, in words."""
    if len(names) > MOST:
        return [f"these are {len(names):,} names; {MOST} are looked for in every text"]
    wrong = (name for name in names if not all(part.isidentifier() for part in name.split(".")))
    return [f"{name!r} is no name like 'clear_gradients' or 'package.module.clear_gradients'" for name in wrong]
