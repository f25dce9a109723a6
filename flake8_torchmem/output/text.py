"""The text report, for people: place, defect, the line with the spot underlined, and what to write instead."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from flake8_torchmem.model import Finding, Severity
from flake8_torchmem.output import Located, Report

_TAB = 4
_WIDEST = 160  # characters of a source line that are shown
_BEFORE = 60  # of those, in front of the spot when the line is longer
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})  # would move the cursor, reorder or break the text around them
_NOT_CHARACTERS = frozenset("\ufffe\uffff")  # no XML document may hold them
COLOURS = {Severity.ERROR: "1;31", Severity.WARNING: "1;33"}
_BOLD, _BLUE, _GREEN = "1", "34", "32"


def render(report: Report, colour: bool) -> Iterator[str]:
    """The lines of the report, the last one a summary."""
    for located in report.findings:
        yield from _finding(located, colour)
    for error in report.errors:
        yield paint(printable(error.message), COLOURS[Severity.ERROR], colour)
    if report.errors:
        yield ""
    if report.statistics and report.findings:
        yield from _statistics(report, colour)
    yield summary(report)


def printable(text: str) -> str:
    """The text with every character escaped that a terminal would obey instead of show, or that a document could not hold."""
    return "".join(_shown(character) for character in text)


def _finding(located: Located, colour: bool) -> Iterator[str]:
    finding = located.finding
    span = finding.span
    code = paint(finding.code, COLOURS[finding.severity], colour)
    yield f"{place(finding, colour)} {code} [{finding.name}] {printable(finding.message)}"
    shown, underline = excerpt(located.line, finding)
    margin = " " * len(str(span.line))
    yield f"{paint(f'{span.line} |', _BLUE, colour)} {shown}"
    yield f"{paint(f'{margin} |', _BLUE, colour)} {paint(underline, COLOURS[finding.severity], colour)}"
    yield f"{paint('help:', _GREEN, colour)} {printable(finding.help)}"
    yield ""


def place(finding: Finding, colour: bool) -> str:
    """`path:line:column:`, or `path:cell 3:line:column:`."""
    return paint(f"{printable(finding.path)}:{spot(finding)}:", _BOLD, colour)


def spot(finding: Finding) -> str:
    """`line:column`, in a notebook with its cell before it."""
    cell = "" if finding.cell is None else f"cell {finding.cell}:"
    return f"{cell}{finding.span.line}:{finding.span.column}"


def excerpt(line: str, finding: Finding) -> tuple[str, str]:
    """The source line, or the part of a long one around the finding, and the underline that fits below it."""
    span = finding.span
    start = min(span.column - 1, len(line))
    end = span.end_column - 1 if span.end_line == span.line else len(line.rstrip())
    first = max(0, start - _BEFORE) if len(line) > _WIDEST else 0
    last = min(len(line), first + _WIDEST)
    end = max(start, min(end, last))
    lead, trail = "..." if first else "", "..." if last < len(line) else ""
    before, spot, after = lead + cells(line[first:start]), cells(line[start:end]), cells(line[end:last])
    return f"{before}{spot}{after}{trail}".rstrip(), " " * _width(before) + "^" * max(1, _width(spot))


def cells(text: str) -> str:
    """Source text as it is shown: tabs as blanks, nothing that a terminal would obey."""
    return printable(text.replace("\t", " " * _TAB))


def _shown(character: str) -> str:
    if character.isascii():
        return character if character.isprintable() else f"\\x{ord(character):02x}"
    harmless = unicodedata.category(character) not in _UNSAFE and character not in _NOT_CHARACTERS
    return character if harmless else character.encode("ascii", "backslashreplace").decode("ascii")


def _width(text: str) -> int:
    """Columns of a terminal that the text fills: East Asian wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _statistics(report: Report, colour: bool) -> Iterator[str]:
    """How often each rule reports, the most frequent first."""
    rules = {located.finding.code: located.finding for located in report.findings}
    counts = sorted(report.counts().items(), key=lambda each: -each[1])
    width = len(str(counts[0][1]))
    for code, number in counts:
        yield f"{number:>{width}}  {paint(code, COLOURS[rules[code].severity], colour)}  {rules[code].name}"
    yield ""


def summary(report: Report) -> str:
    """One line: how much was found, in how many files."""
    files = len({located.finding.path for located in report.findings})
    found = f"{count(len(report.findings), 'finding')} in {count(files, 'file')}" if report.findings else "no findings"
    unchecked = f"; {len({error.path for error in report.errors})} could not be checked" if report.errors else ""
    return f"{found}; {count(report.files_checked, 'file')} checked{unchecked}"


def count(number: int, noun: str) -> str:
    """`1 file`, `2 files`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def paint(text: str, style: str, colour: bool) -> str:
    """The text in a style of the terminal's, if it is to have colours."""
    return f"\x1b[{style}m{text}\x1b[0m" if colour else text
