"""The outline of an imported file: its top-level definitions and imports, found without parsing all of it.

Most of an imported file is of no interest. Lines that begin in the first column split it into pieces; only pieces that
import something, and definitions that are asked for, are parsed.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise

from flake8_torchmem.analysis.imports.statements import imports
from flake8_torchmem.source import SourceError, parse

STARTS = re.compile(r"^[A-Za-z_@]", re.M)
CONTINUES = re.compile(r"(?:else|elif|except|finally)\b")
DEFINES = re.compile(r"^(?:async\s+)?(?:def|class)\s+(\w+)", re.M)
IMPORTS = re.compile(r"^[^\S\n]*(?:lazy\s+)?(?:from\s+[\w.]+\s+import|import)\b", re.M)


@dataclass(eq=False)
class Imports:
    """What a file, or a part of it, imports, as it is written.

    Attributes:
        full: local name to full dotted name; `*pkg` is a module `pkg` from which everything is imported.
        relative: those that begin with dots: how many, and what follows.
    """

    full: dict[str, str] = field(default_factory=dict)
    relative: dict[str, tuple[int, str]] = field(default_factory=dict)

    @classmethod
    def of(cls, pieces: list[str]) -> Imports:
        """The imports in these pieces of a file."""
        found = cls()
        for statement in _statements(pieces):
            full, relative = imports(ast.Module([statement], []))
            if "*" in full:
                star = f"*{full['*']}"
                full[star] = full.pop("*").removesuffix(".*")
                if "*" in relative:
                    level, name = relative.pop("*")
                    relative[star] = level, name.removesuffix("*").removesuffix(".")
            found.take(cls(full, relative))
        return found

    def take(self, later: Imports) -> None:
        """Add what comes later in the file."""
        self.full.update(later.full)
        self.relative.update(later.relative)


@dataclass(eq=False)
class Outline:
    """An imported file.

    Attributes:
        path: where it is.
        shown: the path as messages name it, from the project's folder.
        module: its dotted name in the project.
        text: its source.
        definitions: functions and classes of the module, by name: the first line, and the characters [begin, end).
        importing: the pieces that import something.
    """

    path: str
    shown: str
    module: str
    text: str
    definitions: dict[str, tuple[int, int, int]] = field(default_factory=dict)
    importing: list[str] = field(default_factory=list)
    _parsed: dict[str, Imports] = field(default_factory=dict)

    @cached_property
    def imports(self) -> Imports:
        """All that it imports."""
        return Imports.of(self.importing)

    def imported(self, word: str) -> Imports:
        """What is imported by the statements that hold a word: of most files no more is asked for."""
        found = Imports()
        for piece in self.importing:
            if word in piece:
                if piece not in self._parsed:
                    self._parsed[piece] = Imports.of([piece])
                found.take(self._parsed[piece])
        return found

    def parse(self, name: str) -> ast.Module | None:
        """The syntax tree of one definition, its lines numbered as in the file; None when it cannot be parsed alone."""
        first, _, _ = self.definitions[name]
        try:
            return parse("\n" * (first - 1) + self.source(name) + "\n")
        except SourceError:
            return None

    def size(self, name: str) -> int:
        """Characters of a definition."""
        _, begin, end = self.definitions[name]
        return end - begin

    def source(self, name: str) -> str:
        """The text of a definition."""
        _, begin, end = self.definitions[name]
        return self.text[begin:end]


def outline(path: str, root: str, text: str) -> Outline:
    """Outline a file.

    Args:
        path: where it is.
        root: the project's folder.
        text: its source.
    """
    shown = os.path.relpath(path, root).replace(os.sep, "/")
    module = shown.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    found = Outline(path, shown, module, text)
    for first, begin, end in _pieces(text):
        defines = DEFINES.search(text, begin, end) if text.startswith(("@", "def", "class", "async"), begin) else None
        if defines is not None:
            found.definitions[defines[1]] = first, begin, begin + len(text[begin:end].rstrip())
        elif "import" in text[begin:end] and IMPORTS.search(text, begin, end):
            found.importing.append(text[begin:end])
    return found


def _pieces(text: str) -> Iterator[tuple[int, int, int]]:
    """Top-level statements by first line and characters, as far as indentation shows; decorators stay with what they decorate."""
    starts: list[int] = []
    decorated = False
    for match in STARTS.finditer(text):
        begin = match.start()
        if not (decorated or CONTINUES.match(text, begin)):
            starts.append(begin)
        decorated = text[begin] == "@"
    line, counted = 1, 0
    for begin, end in pairwise([*starts, len(text)]):
        line += text.count("\n", counted, begin)
        counted = begin
        yield line, begin, end


def _statements(pieces: list[str]) -> Iterator[ast.stmt]:
    """The pieces parsed: in one go, or where one is none that can be parsed alone, one by one."""
    try:
        yield from parse("".join(pieces)).body
    except SourceError:
        if len(pieces) > 1:
            yield from chain.from_iterable(_statements([piece]) for piece in pieces)
