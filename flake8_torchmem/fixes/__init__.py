"""Fixes: the edits that mend findings, applied to a fixed point and checked after each round.

A rule says with its finding what mends it (`remedies`); `plan` makes edits of that on the syntax of the whole file;
`rounds` applies those that do not touch one another, parses and checks the result, and goes on until nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from flake8_torchmem.files import SUFFIX_OF_NOTEBOOKS as SUFFIX
from flake8_torchmem.fixes.document import Document
from flake8_torchmem.fixes.plan import Planned
from flake8_torchmem.fixes.rounds import SAFE_ONLY, UNSAFE_TOO, Left, Outcome, Rounds
from flake8_torchmem.remedies import NoRemedy
from flake8_torchmem.rules import rule_codes
from flake8_torchmem.rules.internal import INTERNAL_ERROR

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.model import Finding
    from flake8_torchmem.settings import Settings

__all__ = ["Document", "Left", "Outcome", "Planned", "document_of", "fix_document"]

GENERATED = re.compile(r"^[^\S\n]*(?:#|\"\"\"|''').*@generated\b", re.MULTILINE)
MAX_CHARACTERS = 1_000_000
MAX_LINES = 50_000
HEAD = 40  # lines in which a file may say that it is generated


class Find(Protocol):
    """Finds in a text; whole: with what mends it."""

    def __call__(self, text: str, whole: bool) -> list[Finding]: ...


def fix_document(
    document: Document,
    path: str,
    settings: Settings,
    project: Project | None = None,
    unsafe: bool = False,
    wanted: Callable[[Planned, Document], bool] = lambda _planned, _document: True,
) -> Outcome:
    """Mend what the selected rules find in one file.

    Args:
        document: the file.
        path: its name, by which imports are followed.
        settings: whose findings are to be mended.
        project: follows imports; None judges the file alone.
        unsafe: make fixes that change training behaviour, or a type, as well.
        wanted: asked about each fix before it is made.

    Raises:
        SourceError: the file is no valid Python.
    """
    selected = settings.enabled_codes(path) & rule_codes()
    found = finder(path, settings, project)
    reason = untouched(document)
    if reason:
        findings = [finding for finding in found(document.normal, whole=False) if finding.code in selected]
        return Outcome(document, left=[Left(document.located(finding), reason) for finding in findings])
    return Rounds(diagnosis(found), selected, UNSAFE_TOO if unsafe else SAFE_ONLY, wanted).run(document)


def document_of(name: str, data: bytes) -> Document:
    """The document in a file, by its name: Python, or the Python of a notebook.

    Raises:
        SourceError: it is neither.
    """
    if not name.endswith(SUFFIX):
        return Document.of(data)
    from flake8_torchmem.fixes.cells import CellsDocument

    return CellsDocument.of(data)


def finder(path: str, settings: Settings, project: Project | None) -> Find:
    """What finds in a text all that a fix must be judged by."""
    from flake8_torchmem.analysis.engine import check_text
    from flake8_torchmem.settings import Settings
    from flake8_torchmem.suppression import unsuppressed

    # Rules that are off may be right about code that was too wrong before to be judged: they forbid nothing.
    held = Settings().enabled_codes() | (settings.enabled_codes(path) & rule_codes())

    def found(text: str, whole: bool) -> list[Finding]:
        findings = check_text(text, path, held, project=project, whole=whole, own=settings.own)
        return unsuppressed(text, [settings.weighed(finding) for finding in findings])

    return found


def diagnosis(found: Find) -> Callable[[str], list[Finding]]:
    """The findings of a text with their remedies, those looked for only where there is something to mend."""

    def diagnosed(text: str) -> list[Finding]:
        findings = found(text, whole=False)
        whole = found(text, whole=True) if findings else []
        failure = next((finding for finding in whole if finding.code == INTERNAL_ERROR.code), None)
        if failure is None:
            return whole
        return [replace(finding, remedy=NoRemedy(f"the rest of the file {failure.message}")) for finding in findings]

    return diagnosed


def untouched(document: Document) -> str:
    """Why no fix is made in a file, if so.

    A comment or docstring at its head says `@generated`: an edit would be lost with the next generation. Or it is so large that
    looking at all of it, round by round, would take minutes.
    """
    if GENERATED.search("\n".join(document.normal.split("\n", HEAD)[:HEAD])):
        return "the file is generated"
    if len(document.text) > MAX_CHARACTERS:
        return "the file is larger than a megabyte"
    return f"the file has more than {MAX_LINES:,} lines" if document.text.count("\n") > MAX_LINES else ""
