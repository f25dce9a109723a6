"""Reports of `torchmem fix`: what was mended, what was left and why, as text, as JSON and as a difference."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flake8_torchmem.fixes import Document, Outcome
from flake8_torchmem.model import FileError, Finding, Safety, Severity
from flake8_torchmem.output.json_report import error_entry, finding_entry, valid
from flake8_torchmem.output.text import COLOURS, count, paint, place, printable

_REMOVED, _ADDED, _HUNK = "31", "32", "36"


@dataclass(frozen=True)
class Mended:
    """One file: its name, what it was, and what became of it."""

    path: str
    before: Document
    outcome: Outcome

    @property
    def changed(self) -> bool:
        """Whether its text is another one now."""
        return self.outcome.document.text != self.before.text


@dataclass(frozen=True)
class FixReport:
    """What one run did; `written`: not only would have done."""

    mended: Sequence[Mended]
    errors: Sequence[FileError]
    written: bool

    @property
    def changed(self) -> list[Mended]:
        """The files with another text now."""
        return [mended for mended in self.mended if mended.changed]


def finding_lines(finding: Finding, safety: Safety, colour: bool) -> Iterator[str]:
    """What is about to be mended."""
    code = paint(finding.code, COLOURS[finding.severity], colour)
    yield f"{place(finding, colour)} {code} [{finding.name}] {printable(finding.message)} ({safety.value} fix)"


def difference(path: str, before: str, after: str, colour: bool) -> Iterator[str]:
    """A unified difference of two texts, nothing if they are the same."""
    old, new = (text.removesuffix("\n").split("\n") for text in (before, after))
    lines = difflib.unified_diff(old, new, path, path, lineterm="")
    for line in lines:
        style = {"-": _REMOVED, "+": _ADDED, "@": _HUNK}.get(line[:1], "")
        yield paint(printable(line.replace("\t", "\0")).replace("\\x00", "\t"), style, colour and bool(style))


def differences(path: str, before: Document, after: Document, colour: bool) -> Iterator[str]:
    """A unified difference of each part of a file that differs: of a notebook these are its cells."""
    for (name, old), (_, new) in zip(before.parts(path), after.parts(path), strict=True):
        yield from difference(name, old, new, colour)


def text_lines(report: FixReport, colour: bool) -> Iterator[str]:
    """A line for each finding that was mended or left, and a summary."""
    verb = "fixed" if report.written else "would be fixed"
    for mended in report.mended:
        for finding, safety in mended.outcome.fixed:
            yield f"{place(finding, colour)} {finding.code} [{finding.name}] {verb} ({safety.value})"
        for left in mended.outcome.left:
            code = paint(left.finding.code, COLOURS[left.finding.severity], colour)
            yield f"{place(left.finding, colour)} {code} [{left.finding.name}] left: {printable(left.reason)}"
    for error in report.errors:
        yield paint(printable(error.message), COLOURS[Severity.ERROR], colour)
    yield _summary(report, verb)


def _summary(report: FixReport, verb: str) -> str:
    safeties = Counter(safety for mended in report.mended for _, safety in mended.outcome.fixed)
    left = sum(len(mended.outcome.left) for mended in report.mended)
    kinds = ", ".join(f"{number} {safety.value}" for safety, number in sorted(safeties.items()))
    total = safeties.total()
    done = f"{count(total, 'finding')} {verb} in {count(len(report.changed), 'file')} ({kinds})" if total else f"nothing {verb}"
    unread = f"; {len(report.errors)} could not be checked" if report.errors else ""
    return f"{done}; {left} left; {count(len(report.mended), 'file')} checked{unread}"


def json_lines(report: FixReport, diff: bool) -> Iterator[str]:
    """The report as one JSON object: version 1 keeps its keys and their meaning."""
    fixed = [(finding, safety) for mended in report.mended for finding, safety in mended.outcome.fixed]
    document: dict[str, object] = {
        "version": 1,
        "written": report.written,
        "fixed": [{**finding_entry(finding), "safety": safety.value} for finding, safety in fixed],
        "left": [{**finding_entry(left.finding), "reason": left.reason} for mended in report.mended for left in mended.outcome.left],
        "files_changed": [valid(mended.path) for mended in report.changed],
        "files_checked": len(report.mended),
        "errors": [error_entry(error) for error in report.errors],
    }
    if diff:
        changed = ((mended.path, mended.before, mended.outcome.document) for mended in report.changed)
        document["diff"] = "".join(f"{line}\n" for each in changed for line in differences(*each, colour=False))
    yield json.dumps(document, indent=2)
