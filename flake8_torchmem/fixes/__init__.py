"""Fixes: the edits that mend findings, applied to a fixed point and checked after each round.

A rule says with its finding what mends it (`remedies`); `plan` makes edits of that on the syntax of the whole file;
`rounds` applies those that do not touch one another, parses and checks the result, and goes on until nothing is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from flake8_torchmem.fixes.document import Document
from flake8_torchmem.fixes.plan import Planned
from flake8_torchmem.fixes.rounds import SAFE_ONLY, UNSAFE_TOO, Left, Outcome, Rounds, reading
from flake8_torchmem.rules import rule_codes

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.model import Finding
    from flake8_torchmem.settings import Settings

__all__ = ["Document", "Left", "Only", "Outcome", "Planned", "fix_document", "fix_each"]

GENERATED = re.compile(r"^\s*(?:#|\"\"\"|''').*@generated\b", re.MULTILINE)
MAX_CHARACTERS = 1_000_000
HEAD = 40  # lines in which a file may say that it is generated


class Diagnosis(Protocol):
    """Finds what is in a text, suppressed findings left out."""

    def __call__(self, text: str, whole: bool = True, /) -> list[Finding]:
        """The findings, with remedies if the whole file is looked at."""


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
    selected = settings.enabled_codes() & rule_codes()
    diagnose = _diagnosis(path, settings, project)
    reason = untouched(document)
    if reason:
        return Outcome(document, left=[Left(finding, reason) for finding in diagnose(document.normal, False) if finding.code in selected])
    return Rounds(diagnose, selected, UNSAFE_TOO if unsafe else SAFE_ONLY, wanted).run(document)


def fix_each(
    document: Document, path: str, settings: Settings, project: Project | None, asked: Callable[[Finding], bool]
) -> Iterator[tuple[Finding, Outcome]]:
    """What the fix of each finding comes to when it is made alone, safe or not; nothing is fixed where there is none.

    Args:
        document: the file.
        path: its name, by which imports are followed.
        settings: whose findings are to be mended.
        project: follows imports; None judges the file alone.
        asked: which findings are of interest.

    Raises:
        SourceError: the file is no valid Python.
    """
    selected = settings.enabled_codes() & rule_codes()
    diagnose = lru_cache(maxsize=None)(_diagnosis(path, settings, project))  # all of them begin with the same text
    kept, read = bool(untouched(document)), reading()
    for finding in filter(asked, diagnose(document.normal)):
        outcome = Outcome(document) if kept else Rounds(diagnose, selected, UNSAFE_TOO, Only(finding), read).run(document)
        yield finding, outcome


class Only:
    """Wants the fix of one finding, once: what it brings along may be on the same place."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.made = False

    def __call__(self, planned: Planned, _document: Document) -> bool:
        """Whether a fix is the one."""
        wanted = not self.made and (planned.finding.code, planned.finding.span) == (self.finding.code, self.finding.span)
        self.made |= wanted
        return wanted


def _diagnosis(path: str, settings: Settings, project: Project | None) -> Diagnosis:
    """What finds all that a fix may mend or must not bring, with remedies unless the file is not looked at as a whole."""
    from flake8_torchmem.analysis.engine import check_text
    from flake8_torchmem.settings import Settings
    from flake8_torchmem.suppression import unsuppressed

    # Rules that are off may be right about code that was too wrong before to be judged: they forbid nothing.
    held = Settings().enabled_codes() | settings.enabled_codes() & rule_codes()

    def found(text: str, whole: bool) -> list[Finding]:
        return unsuppressed(text, check_text(text, path, held, project=project, whole=whole))

    def diagnose(text: str, whole: bool = True) -> list[Finding]:
        findings = found(text, whole=False)
        return found(text, whole=True) if findings and whole else findings

    return diagnose


def untouched(document: Document) -> str:
    """Why no fix is made in a file, if so.

    A comment or docstring at its head says `@generated`: an edit would be lost with the next generation. Or it is so large that
    looking at all of it, round by round, would take minutes.
    """
    if GENERATED.search("\n".join(document.normal.split("\n", HEAD)[:HEAD])):
        return "the file is generated"
    return "the file is larger than a megabyte" if len(document.text) > MAX_CHARACTERS else ""
