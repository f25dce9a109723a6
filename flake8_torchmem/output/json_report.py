"""The JSON report, for programs: version 1 keeps its keys and their meaning."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flake8_torchmem.model import FileError, Finding
from flake8_torchmem.output import Report


def render(report: Report, colour: bool = False) -> Iterator[str]:
    """The report as one JSON object."""
    document: dict[str, object] = {
        "version": 1,
        "findings": [finding_entry(located.finding) for located in report.findings],
        "files_checked": report.files_checked,
        "errors": [error_entry(error) for error in report.errors],
    }
    if report.statistics:
        document["statistics"] = report.counts()
    yield json.dumps(document, indent=2)


def finding_entry(finding: Finding) -> dict[str, str | int]:
    """One finding."""
    span = finding.span
    return {
        "code": finding.code,
        "name": finding.name,
        "path": valid(finding.path),
        **({} if finding.cell is None else {"cell": finding.cell}),
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
        "severity": finding.severity.value,
        "message": valid(finding.message),
        "help": valid(finding.help),
    }


def error_entry(error: FileError) -> dict[str, str | int]:
    """One file, or cell of a notebook, that could not be checked."""
    return {"path": valid(error.path), **({} if error.cell is None else {"cell": error.cell}), "message": valid(error.message)}


def valid(text: str) -> str:
    """The text with the bytes of an undecodable file name as escapes: lone surrogates are not valid JSON everywhere."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
