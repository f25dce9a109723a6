"""The reports: each module turns one `Report` into lines of text, and prints nothing itself.

A format is a module with `render(report, colour)`; `FORMATS` names them all, and each is imported when it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from flake8_torchmem.model import FileError, Finding

if TYPE_CHECKING:
    from flake8_torchmem.fixes import Document
    from flake8_torchmem.fixes.preview import Preview

FORMATS = {
    "text": "text",
    "json": "json_report",
    "github": "github",
    "gitlab": "gitlab",
    "sarif": "sarif",
    "junit": "junit",
    "html": "html_report",
}
DETAILED = frozenset({"sarif", "html"})  # show the code and its fixes: files with findings are read and planned for once more
COUNTING = frozenset({"text", "json"})  # have room for `--statistics`


@dataclass(frozen=True)
class Located:
    """A finding with what stands around it.

    Attributes:
        finding: the finding.
        line: the text of the line that it starts on.
        twin: how many findings of its code are before it in the file on lines of the same text.
        document: the whole file, for the formats that show it; None if it is not what was checked any more.
        preview: what mends it, with the document.
    """

    finding: Finding
    line: str
    twin: int = 0
    document: Document | None = None
    preview: Preview | None = None


@dataclass(frozen=True)
class Report:
    """What one run found.

    Attributes:
        findings: by file and place.
        errors: the files that could not be checked.
        files_checked: how many were.
        statistics: whether to count by rule as well.
    """

    findings: Sequence[Located]
    errors: Sequence[FileError]
    files_checked: int
    statistics: bool = False

    def counts(self) -> dict[str, int]:
        """The number of findings by code, in the order of the codes."""
        return dict(sorted(Counter(located.finding.code for located in self.findings).items()))


def locate(findings: Sequence[Finding], text: str) -> list[Located]:
    """All findings of one file with their lines.

    Args:
        findings: in order of place.
        text: the file, with LF line ends.
    """
    lines = text.split("\n") if findings else []
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for finding in findings:
        line = lines[finding.span.line - 1]
        alike = finding.code, normal(line)
        found.append(Located(finding, line, seen[alike]))
        seen[alike] += 1
    return found


def normal(line: str) -> str:
    """A line by which its finding is known while code around it moves and is indented anew."""
    return " ".join(line.split())


def render(output_format: str, report: Report, colour: bool = False) -> Iterator[str]:
    """The lines of a report.

    Args:
        output_format: one of `FORMATS`.
        report: what is to be said; with details for the `DETAILED` formats.
        colour: for a terminal; only text has colours.
    """
    lines: Iterable[str] = import_module(f"{__name__}.{FORMATS[output_format]}").render(report, colour)
    yield from lines
