"""What the tool says: findings, spans, safety classes. Plain frozen data, no behaviour beyond conversion."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from flake8_torchmem.remedies import NoRemedy, Remedy


class Severity(str, Enum):
    """How bad the defect is: an error makes the run wrong or grow without bound, a warning wastes memory or time."""

    ERROR = "error"
    WARNING = "warning"


class Safety(str, Enum):
    """How much a fix may change: nothing (SAFE), training behaviour or a type (UNSAFE), or it is only shown (DISPLAY)."""

    SAFE = "safe"
    UNSAFE = "unsafe"
    DISPLAY = "display"


@dataclass(frozen=True, order=True)
class Span:
    """A place in a file: 1-based lines, 1-based character columns, the end column exclusive."""

    line: int
    column: int
    end_line: int
    end_column: int


@dataclass(frozen=True)
class Mention:
    """A place that a message speaks of.

    Attributes:
        path: the file as the message names it, from the project's folder; empty for the file of the finding.
        span: where in it.
    """

    path: str
    span: Span


@dataclass(frozen=True)
class Finding:
    """One defect at one place.

    Attributes:
        code: the rule's code, `TM101`.
        name: the rule's name in the catalogue, `missing-zero-grad`; never changes once shipped.
        path: the file as the caller named it.
        span: where; `# noqa` works on its first line.
        severity: error or warning.
        message: what is wrong here, one sentence.
        help: what to write instead, one line.
        remedy: the edit that mends it, in terms of the file's syntax; or why there is none. None: this is for people to mend.
        mentions: the places whose lines the message names, as far as they can be found.
        cell: of a notebook, from 1, where the span is in one; None in a file of Python.
        rows: the first and the last line of the notebook's file that hold the span, for programs that know files alone.
    """

    code: str
    name: str
    path: str
    span: Span
    severity: Severity
    message: str
    help: str
    remedy: Remedy | NoRemedy | None = field(default=None, compare=False, repr=False)
    mentions: tuple[Mention, ...] = field(default=(), compare=False, repr=False)
    cell: int | None = None
    rows: tuple[int, int] | None = field(default=None, compare=False)

    @property
    def lines_of_file(self) -> tuple[int, int]:
        """The first and the last line of the file."""
        return self.rows or (self.span.line, self.span.end_line)


class Edit(NamedTuple):
    """The text of a span is replaced; an empty span inserts."""

    span: Span
    text: str


class Fix(NamedTuple):
    """The edits that mend one finding, made together or not at all, and how much they may change."""

    edits: tuple[Edit, ...]
    safety: Safety


class FileError(NamedTuple):
    """A file, or a cell of a notebook, that could not be checked.

    Attributes:
        path: the file as the caller named it.
        message: one line that names file, line and cause.
        line: of the file, where the cause is, if that is known.
        cell: of a notebook whose other cells were checked.
    """

    path: str
    message: str
    line: int | None = None
    cell: int | None = None
