"""GitLab's code quality report: a JSON list, one entry for each finding and each file that could not be checked."""

from __future__ import annotations

import json
from collections.abc import Iterator

from flake8_torchmem.model import FileError, Severity
from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.names import digest, fingerprint, from_here
from flake8_torchmem.output.text import printable
from flake8_torchmem.rules.internal import UNREADABLE_FILE

_LEVELS = {Severity.ERROR: "major", Severity.WARNING: "minor"}


def render(report: Report, colour: bool = False) -> Iterator[str]:
    """The whole list."""
    yield json.dumps([*map(_entry, report.findings), *map(_unchecked, report.errors)], indent=2)


def _entry(located: Located) -> dict[str, object]:
    finding = located.finding
    path = printable(from_here(finding.path))
    line, end = finding.lines_of_file
    return {
        "description": printable(f"{finding.code} {finding.message}; {finding.help}"),
        "check_name": finding.name,
        "fingerprint": fingerprint(located, path),
        "severity": _LEVELS[finding.severity],
        "location": {"path": path, "lines": {"begin": line, "end": end}},
    }


def _unchecked(error: FileError) -> dict[str, object]:
    path = printable(from_here(error.path))
    return {
        "description": printable(error.message),
        "check_name": UNREADABLE_FILE.name,
        "fingerprint": digest(path, UNREADABLE_FILE.code, *([] if error.cell is None else [str(error.cell)])),
        "severity": _LEVELS[UNREADABLE_FILE.severity],
        "location": {"path": path, "lines": {"begin": error.line or 1}},
    }
