"""Workflow commands: GitHub Actions shows them beside the lines that they are about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flake8_torchmem.model import Finding
from flake8_torchmem.output import Report
from flake8_torchmem.output.names import from_here
from flake8_torchmem.output.text import place, printable, summary
from flake8_torchmem.rules.internal import UNREADABLE_FILE

_IN_DATA = str.maketrans({"%": "%25", "\r": "%0D", "\n": "%0A"})
_IN_PROPERTY = {**_IN_DATA, **str.maketrans({":": "%3A", ",": "%2C"})}


def render(report: Report, colour: bool = False) -> Iterator[str]:
    """A command for each finding and each file that could not be checked, and a summary that is none."""
    for located in report.findings:
        finding = located.finding
        message = f"{place(finding, colour=False)} {finding.code} {printable(finding.message)}\nhelp: {printable(finding.help)}"
        yield _command(finding.severity.value, finding.path, f"{finding.code} {finding.name}", _spot(finding), message)
    for error in report.errors:
        title = f"{UNREADABLE_FILE.code} {UNREADABLE_FILE.name}"
        yield _command("error", error.path, title, {"line": error.line} if error.line else {}, printable(error.message))
    yield summary(report)


def _spot(finding: Finding) -> dict[str, int]:
    """Columns only where the finding is on one line: GitHub takes none else."""
    span = finding.span
    line, end = finding.lines_of_file
    spot = {"line": line, "endLine": end}
    return {**spot, "col": span.column, "endColumn": span.end_column} if line == end and finding.rows is None else spot


def _command(level: str, path: str, title: str, spot: Mapping[str, int], message: str) -> str:
    properties = {"file": printable(from_here(path)), **spot, "title": title}
    given = ",".join(f"{key}={str(value).translate(_IN_PROPERTY)}" for key, value in properties.items())
    return f"::{level} {given}::{message.translate(_IN_DATA)}"
