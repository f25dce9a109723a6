"""Bytes in: decoding, parsing, libcst for the slices that matter, and the way back from syntax to positions."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.model import Span
from flake8_torchmem.positions import Positions

if TYPE_CHECKING:
    import libcst as cst

    from flake8_torchmem.analysis.gate import Selection
    from flake8_torchmem.analysis.ir import Site


# What an encoding of source has to leave as it is. Some hide words (UTF-7), some take the square of the time (Punycode).
_PLAIN = b"def step(self): # +AEE- \\x41 \\u0041"
MANY_CHARACTERS = 1_000_000  # from which on it is counted what a text consists of
MAX_PIECES = 1_200_000
_PIECE = re.compile(r"\w+|[(\[{]")
_PLACE = re.compile(r"parser error: error at (\d+):")


class SourceError(Exception):
    """A file that is no Python source: `str()` is the cause in one line, `line` is where, if that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def decode(data: bytes) -> str:
    """Source text with LF line ends and no byte order mark.

    Raises:
        SourceError: the bytes are not text in the declared encoding, or hold a NUL.
    """
    nul = data.find(b"\0")
    if nul >= 0:
        raise SourceError("the file holds a NUL byte", data.count(b"\n", 0, nul) + 1)
    try:
        text = data.decode(encoding_of(data, bom=True))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(f"not valid {error.encoding}, and no encoding cookie says otherwise", line) from None
    except (SyntaxError, LookupError) as error:
        raise SourceError(str(error).splitlines()[0]) from None
    except UnicodeError as error:
        raise SourceError(" ".join(str(error).split())) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def encoding_of(data: bytes, bom: bool = False) -> str:
    """What a source file says that it is written in; `bom`: in a way that takes a byte order mark off.

    Raises:
        SyntaxError: its first lines contradict themselves, or name an encoding in which ASCII is not written as ASCII.
    """
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    if not encoding.startswith("utf-8") and _PLAIN.decode(encoding, "replace") != _PLAIN.decode("ascii"):
        raise SyntaxError(f"source in {encoding} is not read: ASCII is not written as ASCII there")
    return encoding if bom or encoding != "utf-8-sig" else "utf-8"


def parse(text: str) -> ast.Module:
    """The syntax tree of a text.

    Raises:
        SourceError: it is not valid Python for the running interpreter, nested too deeply for it, or too much of it.
    """
    if len(text) > MANY_CHARACTERS and sum(1 for _ in _PIECE.finditer(text)) > MAX_PIECES:
        raise SourceError(f"more than {MAX_PIECES:,} names, numbers and brackets: its syntax tree would take gigabytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise SourceError(f"syntax error: {error.msg}", error.lineno) from None
    except (RecursionError, MemoryError):
        raise SourceError("nested too deeply to be parsed") from None
    except ValueError as error:
        raise SourceError(str(error)) from None


class Slices:
    """The libcst of the selected lines of a file, one top-level statement after the other.

    Args:
        text: the whole file.
        selection: which lines, and the ast of what is on them.
    """

    def __init__(self, text: str, selection: Selection) -> None:
        self._lines = text.split("\n")
        self._selection = selection
        self._positions: Positions | None = None

    def modules(self) -> Iterator[cst.Module]:
        """Parsed slices; none is kept here, so that a large file needs no more memory than its largest part.

        Raises:
            SourceError: the installed libcst does not know the syntax, which Python has read.
        """
        for ranges in self._selection.ranges:
            yield self._parsed([line for first, end in ranges for line in range(first, end)])

    def _parsed(self, numbers: list[int]) -> cst.Module:
        """Some lines, by their numbers."""
        import libcst

        try:
            return libcst.parse_module("\n".join(self._lines[number - 1] for number in numbers) + "\n")
        except libcst.ParserSyntaxError as error:
            from importlib.metadata import version

            said = _PLACE.match(error.message)  # its `raw_line` is one too many, but for the last line
            line = numbers[min(int(said[1]), len(numbers)) - 1 if said else 0]
            raise SourceError(f"Python can read this, but libcst {version('libcst')} cannot: a newer one may", line) from None

    def unread(self, pattern: str) -> bool:
        """Whether a pattern is found in lines that no slice holds."""
        read = {line for ranges in self._selection.ranges for first, end in ranges for line in range(first, end)}
        return any(number not in read and re.search(pattern, line) for number, line in enumerate(self._lines, 1))

    def locate(self, site: Site) -> Span | None:
        """The position of reported syntax, None when it cannot be found again."""
        if self._positions is None:
            self._positions = Positions(self._selection.body)
        node = self._positions.find(site)
        return None if node is None else self._span(node)

    def _span(self, node: ast.AST) -> Span:
        line, end = node.lineno, node.end_lineno or node.lineno  # type: ignore[attr-defined]
        start_column = self._column(line, node.col_offset)  # type: ignore[attr-defined]
        return Span(line, start_column, end, self._column(end, node.end_col_offset or 0))  # type: ignore[attr-defined]

    def _column(self, line: int, offset: int) -> int:
        """1-based characters from 0-based UTF-8 bytes."""
        text = self._lines[line - 1]
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1
