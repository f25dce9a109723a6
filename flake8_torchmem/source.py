"""Bytes in: decoding, parsing, and the way back from syntax to positions."""

from __future__ import annotations

import ast
import io
import re
import tokenize
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flake8_torchmem.model import Span

if TYPE_CHECKING:
    from flake8_torchmem.analysis.ir import Site


# What an encoding of source has to leave as it is. Some hide words (UTF-7), some take the square of the time (Punycode).
_PLAIN = b"def step(self): # +AEE- \\x41 \\u0041"
MANY_CHARACTERS = 1_000_000  # from which on it is counted what a text consists of
MAX_PIECES = 1_200_000
_PIECE = re.compile(r"\w+|[(\[{]")


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
    if text.startswith("\ufeff"):  # a second mark, which Python does not take off a file, but off a string
        raise SourceError("syntax error: invalid non-printable character U+FEFF", 1)
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


class Places:
    """Where the syntax of a file is.

    Args:
        text: the whole file.
        read: the line ranges [first, end) of it that were looked at, 1-based.
    """

    def __init__(self, text: str, read: Sequence[tuple[int, int]] = ()) -> None:
        self._lines = text.split("\n")
        self._read = read

    def unread(self, pattern: str) -> bool:
        """Whether a pattern is found in lines that were not looked at."""
        read = {line for first, end in self._read for line in range(first, end)}
        return any(number not in read and re.search(pattern, line) for number, line in enumerate(self._lines, 1))

    def locate(self, site: Site) -> Span | None:
        """The position of reported syntax; None of what is nowhere."""
        extent = site.extent or site.mark.extent
        if extent is None:
            return None
        line, start, end, stop = extent
        return Span(line, self._column(line, start), end, self._column(end, stop))

    def _column(self, line: int, offset: int) -> int:
        """1-based characters from 0-based UTF-8 bytes."""
        text = self._lines[line - 1]
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1
