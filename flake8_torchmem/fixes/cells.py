"""A notebook as a document: each edit stays in its cell, and only the sources of changed cells are written."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from flake8_torchmem.fixes.document import Document
from flake8_torchmem.fixes.syntax import Refused
from flake8_torchmem.model import Edit, Finding, Span
from flake8_torchmem.notebooks import Notebook, program


@dataclass(frozen=True)
class CellsDocument(Document):
    """The program of a notebook.

    Attributes:
        original: the notebook as it was.
        now: with the texts that its cells have by now.
    """

    original: Notebook = field(repr=False)
    now: Notebook = field(repr=False)

    @classmethod
    def of(cls, data: bytes) -> CellsDocument:
        """The program in the bytes of a notebook.

        Raises:
            SourceError: they are no notebook, or a cell is broken: what is used there is not known, so nothing is changed.
        """
        found = Notebook.of(data).whole()
        return cls(found.text, "utf-8", found, found)

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        pairs = enumerate(zip(self.original.texts, self.now.texts, strict=True))
        changed = {index: text for index, (before, text) in pairs if text != before}
        return self.original.with_texts(changed)

    def edited(self, edits: Sequence[Edit]) -> CellsDocument:
        """The document after some edits, each within a cell.

        Raises:
            Refused: one is not, or changes what is no Python.
        """
        by_cell: defaultdict[int, list[Edit]] = defaultdict(list)
        for edit in edits:
            by_cell[self._cell(edit.span)].append(edit)
        texts = list(self.now.texts)
        for index, inner in by_cell.items():
            moved = [edit._replace(span=_moved(edit.span, self.now.starts[index] - 1)) for edit in inner]
            texts[index] = Document(f"{texts[index]}\n", "utf-8").edited(moved).text.removesuffix("\n")
            try:
                self.original.magics.restored(self.original.texts[index], texts[index])
            except ValueError as error:
                raise Refused(str(error)) from None
            if texts[index] and self._begins_with_magic(index) and not self._begins_with_magic(index, texts[index]):
                raise Refused("what is above all in its cell has to stay there")
        now = replace(self.now, texts=tuple(texts))
        return CellsDocument(program(now.texts), self.encoding, self.original, now)

    def admit(self, edits: Sequence[Edit]) -> None:
        """Say no to a fix that reaches over cells: each may be run alone. An import may come into another one, above.

        Raises:
            Refused: it does.
        """
        imports = [edit for edit in edits if _is_import(edit)]
        others = [edit for edit in edits if not _is_import(edit)]
        if len({self._cell(edit.span) for edit in others}) > 1:
            raise Refused("it would change several cells")
        if any(edit.span > other.span for edit in imports for other in others):
            raise Refused("the import that it needs would come after it")
        self.edited(edits)

    def parts(self, path: str) -> list[tuple[str, str]]:
        """The cells by their names, as the notebook has them."""
        magics = self.original.magics
        cells = zip(self.original.cells, self.original.texts, self.now.texts, strict=True)
        return [(f"{path}:cell {cell.number}", magics.restored(before, text)) for cell, before, text in cells]

    def located(self, finding: Finding) -> Finding:
        """The finding in its cell."""
        return self.now.located(finding)

    def _cell(self, span: Span) -> int:
        last = span.end_line - (span.end_column == 1 and span.end_line > span.line)
        index, _ = self.now.place(span.line)
        if self.now.place(last)[0] != index:
            raise Refused("it would reach over cells")
        return index

    def _begins_with_magic(self, index: int, text: str | None = None) -> bool:
        """Whether the first line of a cell that holds anything is a magic for all of it."""
        before = self.original.texts[index]
        source = self.original.magics.restored(before, before if text is None else text)
        return source.lstrip().startswith("%%")


def _is_import(edit: Edit) -> bool:
    return edit.text.strip().startswith(("import ", "from ")) and (edit.span.line, edit.span.column) == (
        edit.span.end_line,
        edit.span.end_column,
    )


def _moved(span: Span, lines: int) -> Span:
    return Span(span.line - lines, span.column, span.end_line - lines, span.end_column)
