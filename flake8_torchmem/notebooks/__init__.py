"""Notebooks as programs: the code cells in order, with a way back from the program's lines to cells, and from changed cells to the file.

Cells are numbered from the top, from 1, text cells counted, as editors show them. A blank line follows each code cell in the program.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate

from flake8_torchmem.model import Finding, Span
from flake8_torchmem.notebooks.broken import defined_by, imported_by, stand_in, words_around
from flake8_torchmem.notebooks.layout import Layout, Stored
from flake8_torchmem.notebooks.magics import Magics
from flake8_torchmem.source import SourceError

MAX_BROKEN = 100  # cells: what has more is no notebook of Python's
_LINE = re.compile(r"\bline (\d+)\b(?! of )")


@dataclass(frozen=True)
class Notebook:
    """A notebook whose code is Python.

    Attributes:
        layout: its JSON.
        cells: its code cells, as the file has them.
        magics: what in them is no Python.
        texts: the cells with Python in its place, line by line, LF line ends.
        broken: cells, by index, that are neither Python nor what IPython makes Python of, with what is wrong there and in which line.
    """

    layout: Layout
    cells: tuple[Stored, ...]
    magics: Magics
    texts: tuple[str, ...]
    broken: Mapping[int, SourceError] = field(default_factory=dict)

    @classmethod
    def of(cls, data: bytes) -> Notebook:
        """The notebook in these bytes; one for another language than Python has no code cells.

        Raises:
            SourceError: it is no notebook, or so much of it is broken that nothing is known of the rest.
        """
        layout = Layout.of(data)
        cells = tuple(layout.cells()) if layout.is_python else ()
        magics = Magics(cell.source for cell in cells)
        texts, broken = _python(magics, cells)
        return cls(layout, cells, magics, texts, broken)

    def whole(self) -> Notebook:
        """This notebook, for whoever has to know all of it.

        Raises:
            SourceError: a cell is broken.
        """
        for index, error in self.broken.items():
            raise _in_cell(self.cells[index], error)
        return self

    @cached_property
    def starts(self) -> list[int]:
        """The program's line, from 1, on which each cell begins."""
        return list(accumulate((text.count("\n") + 2 for text in self.texts[:-1]), initial=1))

    @property
    def text(self) -> str:
        """The program."""
        return program(self.texts)

    def place(self, line: int) -> tuple[int, int]:
        """Which of the code cells, from 0, a line of the program is in, and which of its lines."""
        index = max(0, bisect_right(self.starts, line) - 1)
        return index, line - self.starts[index] + 1

    def line(self, line: int) -> str:
        """A line of the program as the notebook has it."""
        index, inner = self.place(line)
        lines = normal(self.cells[index].source).split("\n")
        return lines[inner - 1] if inner <= len(lines) else ""

    def is_sure(self, finding: Finding) -> bool:
        """Whether a finding is neither in what stands for a broken cell, nor in code that uses what such a cell defines."""
        if not self.broken:
            return True
        index, line = self.place(finding.span.line)
        return index not in self.broken and self._unsure.isdisjoint(words_around(self.texts[index], line))

    @cached_property
    def _unsure(self) -> frozenset[str]:
        return defined_by(normal(self.cells[index].source) for index in self.broken)

    def complaints(self) -> Iterator[tuple[int, int, int, str]]:
        """Of each broken cell its number, the line in it and in the file, and what is wrong."""
        for index, error in self.broken.items():
            cell, line = self.cells[index], error.line or 1
            yield cell.number, line, self.layout.row(cell, line), str(error)

    def located(self, finding: Finding) -> Finding:
        """A finding in the program as one in its cell; what its message says of other lines as well."""
        if not self.cells:
            return finding
        mentioned = {mention.span.line for mention in finding.mentions if not mention.path}

        def renamed(match: re.Match[str]) -> str:
            index, line = self.place(int(match[1]))
            return f"line {line} of cell {self.cells[index].number}" if int(match[1]) in mentioned else match[0]

        span = finding.span
        index, line = self.place(span.line)
        last, end = self.place(span.end_line)
        inner = Span(line, span.column, end, span.end_column) if last == index else Span(line, span.column, line, span.column)
        message = _LINE.sub(renamed, finding.message)
        cell = self.cells[index]
        rows = self.layout.row(cell, inner.line), self.layout.row(cell, inner.end_line)
        return replace(finding, span=inner, message=message, mentions=(), cell=cell.number, rows=rows)

    def with_texts(self, texts: Mapping[int, str]) -> bytes:
        """The file with other texts in some of its code cells; all else as it is, to the byte.

        Args:
            texts: by index of the code cell; what was no Python is put back.

        Raises:
            SourceError: it would not come back as it was put in.
        """
        try:
            sources = {index: self.magics.restored(self.texts[index], text) for index, text in texts.items()}
        except ValueError as error:
            raise SourceError(f"the cells cannot be written: {error}") from None
        data = self.layout.with_sources({self.cells[index]: source for index, source in sources.items()})
        after = Notebook.of(data).whole()
        if after.texts != tuple(texts.get(index, text) for index, text in enumerate(self.texts)):
            raise SourceError("the cells cannot be written: they would not come back as they are put in")
        return data


def program(texts: tuple[str, ...]) -> str:
    """The texts of cells as one program."""
    return "".join(f"{text}\n\n" for text in texts)


def normal(source: str) -> str:
    """Text with LF line ends."""
    return source.replace("\r\n", "\n").replace("\r", "\n")


def _python(magics: Magics, cells: Sequence[Stored]) -> tuple[tuple[str, ...], dict[int, SourceError]]:
    """The Python of all cells, and what is wrong with those that have none, for which something stands that does nothing known."""
    found = [_of_cell(magics, cell) for cell in cells]
    broken = {index: each for index, each in enumerate(found) if isinstance(each, SourceError)}
    imported = imported_by(each for each in found if isinstance(each, str)) if broken else frozenset()
    texts = []
    for cell, each in zip(cells, found, strict=True):
        text = each if isinstance(each, str) else stand_in(normal(cell.source), imported)
        if text is None or len(broken) > MAX_BROKEN:
            raise _in_cell(cell, each)
        texts.append(text)
    return tuple(texts), broken


def _of_cell(magics: Magics, cell: Stored) -> str | SourceError:
    try:
        return magics.python(normal(cell.source))
    except SourceError as error:
        return error


def _in_cell(cell: Stored, error: SourceError | str) -> SourceError:
    line = f", line {error.line}" if isinstance(error, SourceError) and error.line is not None else ""
    return SourceError(f"cell {cell.number}{line}: {error}")
