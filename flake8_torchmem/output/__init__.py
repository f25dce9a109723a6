"""The reports: each module turns one `Report` into text, and prints nothing itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flake8_torchmem.model import FileError, Finding

FORMATS = ("text", "json")


@dataclass(frozen=True)
class Located:
    """A finding with the text of the line that it starts on."""

    finding: Finding
    line: str


@dataclass(frozen=True)
class Report:
    """What one run found."""

    findings: Sequence[Located]
    errors: Sequence[FileError]
    files_checked: int
