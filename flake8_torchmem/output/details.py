"""The code behind a report, for the formats that show it: files with findings are read once more, and their fixes planned."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

from flake8_torchmem.output import Located, Report
from flake8_torchmem.source import SourceError

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.settings import Settings


def detailed(report: Report, read: Callable[[str], bytes], settings: Settings, project: Project | None) -> Report:
    """The report with documents and previews of fixes, of the files that are still what was checked.

    Args:
        report: what was found, the findings of each file next to one another.
        read: gives the bytes of a file by the name that findings have.
        settings: which rules ran.
        project: where imports are followed; None judges each file alone.
    """
    groups = groupby(report.findings, key=lambda located: located.finding.path)
    found = [each for path, group in groups for each in _of_file(path, list(group), read, settings, project)]
    return replace(report, findings=found)


def _of_file(
    path: str, findings: Sequence[Located], read: Callable[[str], bytes], settings: Settings, project: Project | None
) -> Iterator[Located]:
    from flake8_torchmem.fixes import Document
    from flake8_torchmem.fixes.preview import previews

    try:
        document = Document.of(read(path))
        planned = {preview.finding: preview for preview in previews(document, path, settings, project)}
    except (SourceError, OSError):
        planned = {}
    for located in findings:
        preview = planned.get(located.finding)
        yield located if preview is None else replace(located, document=document, preview=preview)
