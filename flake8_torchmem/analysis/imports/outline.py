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


@dataclass
class Outline:
    """An imported file.

    Attributes:
        path: where it is.
        shown: the path as messages name it, from the project's folder.
        module: its dotted name in the project.
        text: its source.
        definitions: functions and classes of the module, by name, as lines [first, end).
        imports: local name to full dotted name; `*1`, `*2` are modules from which everything is imported.
        relative: imports that begin with dots: how many, and what follows.
    """

    path: str
    shown: str
    module: str
    text: str
    definitions: dict[str, tuple[int, int]] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    relative: dict[str, tuple[int, str]] = field(default_factory=dict)

    @cached_property
    def scope(self) -> dict[str, str]:
        """What names of the module stand for: its imports, and its own definitions by their names in the project."""
        return {**self.imports, **{name: f"{self.module}.{name}" for name in self.definitions}}

    def parse(self, name: str) -> ast.Module | None:
        """The syntax tree of one definition, its lines numbered as in the file; None when it cannot be parsed alone."""
        first, _ = self.definitions[name]
        try:
            return parse("\n" * (first - 1) + self.source(name) + "\n")
        except SourceError:
            return None

    def size(self, name: str) -> int:
        """Characters of a definition."""
        return len(self.source(name))

    def source(self, name: str) -> str:
        """The text of a definition."""
        first, end = self.definitions[name]
        return "\n".join(self._lines[first - 1 : end - 1])

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")


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
    importing = []
    for first, piece in _pieces(text):
        defines = DEFINES.search(piece) if piece.startswith(("@", "def", "class", "async")) else None
        if defines is not None:
            found.definitions[defines[1]] = (first, first + piece.rstrip().count("\n") + 1)
        elif IMPORTS.search(piece):
            importing.append(piece)
    for statement in _statements(importing):
        _add_imports(statement, found)
    return found


def _pieces(text: str) -> list[tuple[int, str]]:
    """Top-level statements by first line, as far as indentation shows; decorators stay with what they decorate."""
    starts: list[int] = []
    decorated = False
    for match in STARTS.finditer(text):
        begin = match.start()
        if not (decorated or CONTINUES.match(text, begin)):
            starts.append(begin)
        decorated = text[begin] == "@"
    pieces, line = [], 1
    for begin, end in pairwise([*starts, len(text)]):
        if begin == starts[0]:
            line += text.count("\n", 0, begin)
        pieces.append((line, text[begin:end]))
        line += text.count("\n", begin, end)
    return pieces


def _statements(pieces: list[str]) -> Iterator[ast.stmt]:
    """The pieces parsed: in one go, or where one is none that can be parsed alone, one by one."""
    try:
        yield from parse("".join(pieces)).body
    except SourceError:
        if len(pieces) > 1:
            yield from chain.from_iterable(_statements([piece]) for piece in pieces)


def _add_imports(statement: ast.stmt, found: Outline) -> None:
    absolute, relative = imports(ast.Module([statement], []))
    found.imports.update(absolute)
    found.relative.update(relative)
    if "*" in found.imports:
        # One name for each star: it is looked up in all of them.
        star = f"*{len(found.imports)}"
        found.imports[star] = found.imports.pop("*").removesuffix(".*")
        if "*" in found.relative:
            level, name = found.relative.pop("*")
            found.relative[star] = level, name.removesuffix("*").removesuffix(".")
