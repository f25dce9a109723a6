"""The text report's fine print: what stands below what."""

from __future__ import annotations

import pytest

from flake8_torchmem.model import FileError, Finding, Severity, Span
from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.text import printable, render


def shown(line: str, span: Span, colour: bool = False) -> list[str]:
    finding = Finding("TM201", "loss-accumulated", "a.py", span, Severity.ERROR, "message", "help text")
    return list(render(Report([Located(finding, line)], [], 1), colour))


@pytest.mark.parametrize(
    ("line", "columns", "source", "underline"),
    [
        ("abc", (2, 3), "abc", " ^"),
        ("\tabc", (2, 5), "    abc", "    ^^^"),
        ("日本 abc", (4, 7), "日本 abc", "     ^^^"),
        ("e\u0301 abc", (4, 7), "e\u0301 abc", "  ^^^"),
        ("\x1b abc", (3, 6), "\\x1b abc", "     ^^^"),
        ("a\u202eb", (3, 4), "a\\u202eb", "       ^"),
        ("abc", (1, 1), "abc", "^"),
        ("", (1, 2), "", "^"),
        ("abc", (9, 12), "abc", "   ^"),
    ],
)
def test_the_caret_stands_below_the_spot(line: str, columns: tuple[int, int], source: str, underline: str) -> None:
    lines = shown(line, Span(7, columns[0], 7, columns[1]))
    assert lines[1:4] == [f"7 | {source}", f"  | {underline}", "help: help text"]


def test_a_finding_over_several_lines_is_underlined_to_the_end_of_the_first() -> None:
    assert shown("call(  ", Span(7, 1, 9, 2))[2] == "  | ^^^^^"


def test_the_part_of_a_long_line_around_the_spot_is_shown() -> None:
    lines = shown("x" * 500 + "SPOT" + "y" * 500, Span(7, 501, 7, 505))
    assert lines[1].startswith("7 | ...x")
    assert lines[1].endswith("y...")
    assert len(lines[1]) < 180
    assert lines[2].index("^") == lines[1].index("SPOT")


def test_colour_changes_nothing_else() -> None:
    plain, painted = shown("abc", Span(7, 2, 7, 3)), shown("abc", Span(7, 2, 7, 3), colour=True)
    assert any("\x1b[" in line for line in painted)
    assert [
        line.replace("\x1b[1;31m", "").replace("\x1b[1m", "").replace("\x1b[34m", "").replace("\x1b[32m", "").replace("\x1b[0m", "")
        for line in painted
    ] == plain


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 日本", "plain ü 日本"),
        ("\r\n\t\0\x7f", r"\x0d\x0a\x09\x00\x7f"),
        ("\x9b31m", r"\x9b31m"),
        ("\udce9\u2028\u200b", r"\udce9\u2028\u200b"),
    ],
)
def test_printable(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("findings", "errors", "checked", "summary"),
    [
        (0, 0, 0, "no findings; 0 files checked"),
        (1, 0, 1, "1 finding in 1 file; 1 file checked"),
        (2, 1, 3, "2 findings in 1 file; 3 files checked; 1 could not be checked"),
    ],
)
def test_summary(findings: int, errors: int, checked: int, summary: str) -> None:
    finding = Finding("TM201", "loss-accumulated", "a.py", Span(1, 1, 1, 2), Severity.WARNING, "message", "help")
    report = Report([Located(finding, "x")] * findings, [FileError("b.py", "b.py: cause")] * errors, checked)
    assert list(render(report, colour=False))[-1] == summary
