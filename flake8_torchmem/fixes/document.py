"""The bytes of a file as lines that keep their ends: what no edit touches comes back to the last byte."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from flake8_torchmem.model import Edit, Finding, Span
from flake8_torchmem.source import SourceError, decode, encoding_of

_LINE_END = re.compile(r"\r\n|\r|\n")
_BOM = "\ufeff"


@dataclass(frozen=True)
class Document:
    """A decoded source file.

    Attributes:
        text: with the line ends and the byte order mark that the file has.
        encoding: what it is written in.
    """

    text: str
    encoding: str

    @classmethod
    def of(cls, data: bytes) -> Document:
        """The document in these bytes.

        Raises:
            SourceError: they are no text in the declared encoding, or come back as other bytes.
        """
        decode(data)
        encoding = encoding_of(data)
        found = cls(data.decode(encoding), encoding)
        if found.data != data:
            raise SourceError(f"not written in {encoding} as that is written: it would come back as other bytes")
        return found

    @property
    def normal(self) -> str:
        """The text that is parsed: LF line ends, no byte order mark. Lines and columns are the same in both."""
        return _LINE_END.sub("\n", self.text.removeprefix(_BOM))

    @property
    def lines(self) -> list[str]:
        """The lines with their ends, the byte order mark left out."""
        body = self.text.removeprefix(_BOM)
        ends = [match.end() for match in _LINE_END.finditer(body)]
        return [body[begin:end] for begin, end in zip([0, *ends], [*ends, len(body)], strict=True) if begin < end]

    @property
    def data(self) -> bytes:
        """The bytes of the file."""
        return self.text.encode(self.encoding)

    @property
    def line_end(self) -> str:
        """How most lines end."""
        found = Counter(_LINE_END.findall(self.text)).most_common(1)
        return found[0][0] if found else "\n"

    def admit(self, edits: Sequence[Edit]) -> None:
        """Say no to the edits of a fix that the kind of file cannot have.

        Raises:
            Refused: it cannot (`flake8_torchmem.fixes.syntax`).
        """

    def parts(self, path: str) -> list[tuple[str, str]]:
        """What differences are shown of: names, each with a text."""
        return [(path, self.normal)]

    def located(self, finding: Finding) -> Finding:
        """A finding in this text as people look for it."""
        return finding

    def edited(self, edits: Sequence[Edit]) -> Document:
        """The document after some edits that do not overlap; new lines end as most do."""
        bom = _BOM if self.text.startswith(_BOM) else ""
        body = self.text.removeprefix(_BOM)
        starts = [0, *(match.end() for match in _LINE_END.finditer(body))]
        pieces, done = [bom], 0
        for edit in sorted(edits, key=lambda edit: edit.span):
            begin, end = _offset(starts, edit.span.line, edit.span.column), _offset(starts, edit.span.end_line, edit.span.end_column)
            pieces += [body[done:begin], edit.text.replace("\n", self.line_end)]
            done = end
        return Document("".join([*pieces, body[done:]]), self.encoding)


def _offset(starts: Sequence[int], line: int, column: int) -> int:
    return starts[line - 1] + column - 1


def overlap(one: Span, other: Span) -> bool:
    """Whether two edits would touch the same text, or insert at the same place, or one within what the other replaces."""
    first, second = sorted((one, other))
    return _start(second) < _end(first) or _start(first) == _start(second)


def _start(span: Span) -> tuple[int, int]:
    return span.line, span.column


def _end(span: Span) -> tuple[int, int]:
    return span.end_line, span.end_column


def changed_blocks(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """The lines that differ: from and to in the old ones, from and to in the new ones. What is alike around them is taken off first."""
    head = shared(old, new)
    tail = shared(old[head:][::-1], new[head:][::-1])
    matcher = SequenceMatcher(None, old[head : len(old) - tail], new[head : len(new) - tail])
    for tag, begin, end, first, last in matcher.get_opcodes():
        if tag != "equal":
            yield head + begin, head + end, head + first, head + last


def shared(one: Sequence[str], other: Sequence[str]) -> int:
    """How many items two sequences begin with alike."""
    return next((index for index, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def carried(before: Document, after: Document) -> dict[int, int]:
    """Where the lines of a document, counted from 1, are in another one, those left out that are there no more."""
    old, new = before.lines, after.lines
    found, done = {}, 0
    for begin, end, first, _ in [*changed_blocks(old, new), (len(old), len(old), len(new), len(new))]:
        found.update({line + 1: line + 1 + first - begin for line in range(done, begin)})
        done = end
    return found
