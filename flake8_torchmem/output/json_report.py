"""The JSON report, for programs: version 1 keeps its keys and their meaning."""

from __future__ import annotations

import json

from flake8_torchmem.model import FileError, Finding
from flake8_torchmem.output import Report


def render(report: Report) -> str:
    """The report as one JSON object."""
    document = {
        "version": 1,
        "findings": [_finding(located.finding) for located in report.findings],
        "files_checked": report.files_checked,
        "errors": [_error(error) for error in report.errors],
    }
    return json.dumps(document, indent=2)


def _finding(finding: Finding) -> dict[str, str | int]:
    span = finding.span
    return {
        "code": finding.code,
        "name": finding.name,
        "path": _valid(finding.path),
        "line": span.line,
        "column": span.column,
        "end_line": span.end_line,
        "end_column": span.end_column,
        "severity": finding.severity.value,
        "message": _valid(finding.message),
        "help": _valid(finding.help),
    }


def _error(error: FileError) -> dict[str, str]:
    return {"path": _valid(error.path), "message": _valid(error.message)}


def _valid(text: str) -> str:
    """The text with the bytes of an undecodable file name as escapes: lone surrogates are not valid JSON everywhere."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
