"""What the fix of each finding alone would make of its file, for those who show fixes and make none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

from flake8_torchmem.fixes import diagnosis, finder, untouched
from flake8_torchmem.fixes.document import Document, changed_blocks, shared
from flake8_torchmem.fixes.plan import Planned, safety_of
from flake8_torchmem.fixes.rounds import SAFE_ONLY, UNSAFE_TOO, Diagnose, Rounds
from flake8_torchmem.fixes.syntax import Refused, Syntax
from flake8_torchmem.model import Finding, Safety, Span
from flake8_torchmem.rules import rule_codes

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.settings import Settings


MAX_CHECKED = 1_500_000  # characters: each fix is checked with the whole file


@dataclass(frozen=True)
class Preview:
    """One finding, and the file after its fix.

    Attributes:
        finding: as it is found in the file.
        safety: how much the fix may change.
        after: the whole file; None if the finding is not mended by an edit.
        reason: why it is not, in one clause.
    """

    finding: Finding
    safety: Safety
    after: Document | None
    reason: str = ""


def previews(
    document: Document,
    path: str,
    settings: Settings,
    project: Project | None = None,
    wanted: Callable[[Finding], bool] = lambda _finding: True,
) -> list[Preview]:
    """The selected findings of a file, each with what its fix alone comes to: checked as `torchmem fix` checks what it makes.

    Args:
        document: the file.
        path: its name, by which imports are followed.
        settings: which rules run.
        project: follows imports; None judges the file alone.
        wanted: which findings are of interest.

    Raises:
        SourceError: the file is no valid Python.
    """
    selected = settings.enabled_codes(path) & rule_codes()
    find = finder(path, settings, project)
    reason = untouched(document)
    findings = find(document.normal, whole=False) if reason else diagnosis(find)(document.normal)
    chosen = [finding for finding in findings if finding.code in selected and wanted(finding)]
    if not chosen:
        return []
    try:
        if reason:
            raise Refused(reason)
        syntax = Syntax(document.normal)
    except Refused as refusal:
        return [Preview(finding, safety_of(finding), None, str(refusal)) for finding in chosen]

    def mended(finding: Finding, safety: Safety, diagnose: Diagnose) -> Preview:
        allowed = SAFE_ONLY if safety is Safety.SAFE else UNSAFE_TOO
        try:
            return Preview(finding, safety, Rounds(diagnose, selected, allowed, _all).alone(document, findings, finding, syntax))
        except Refused as refusal:
            return Preview(finding, safety, None, str(refusal))

    def preview(finding: Finding) -> Preview:
        # What mends the findings that a fix brings is seldom needed, and costs more than the findings.
        cheap = mended(finding, safety_of(finding), partial(find, whole=False))
        return cheap if cheap.after is not None else mended(finding, safety_of(finding), diagnosis(find))

    most = max(1, MAX_CHECKED // (len(document.text) + 1))
    many = [Preview(finding, safety_of(finding), None, f"{most} fixes are planned in a file of this size") for finding in chosen[most:]]
    return [preview(finding) for finding in chosen[:most]] + many


def _all(_planned: Planned, _document: Document) -> bool:
    return True


@dataclass(frozen=True)
class Replacement:
    """A part of a file that becomes another text.

    Attributes:
        span: what is replaced, in lines and columns; empty where text comes in.
        offset: where that begins in the file, in bytes, a byte order mark counted.
        length: how long it is, in bytes.
        text: what comes there, with the line ends of the file.
    """

    span: Span
    offset: int
    length: int
    text: str


def replacements(before: Document, after: Document) -> list[Replacement]:
    """What makes one document of another, in order of place, no longer than it has to be.

    Empty as well where the encoding has states, so that parts of the file cannot be written by themselves.
    """
    old, new = before.lines, after.lines
    starts = list(accumulate(map(len, old), initial=len(before.text) - sum(map(len, old))))
    found = []
    for begin, end, first, last in changed_blocks(old, new):
        was, now = "".join(old[begin:end]), "".join(new[first:last])
        lead, trail = _common(was, now)
        offset = starts[begin] + lead
        span = _span(was, lead, len(was) - trail, begin + 1)
        head, gone = before.text[:offset].encode(before.encoding), was[lead : len(was) - trail].encode(before.encoding)
        found.append(Replacement(span, len(head), len(gone), now[lead : len(now) - trail]))
    return found if _spliced(before, found) == after.data else []


def _common(was: str, now: str) -> tuple[int, int]:
    """How many characters are the same at both ends; a line end is taken whole."""
    lead = shared(was, now)
    lead -= was[lead - 1 : lead] == "\r"
    trail = shared(was[lead:][::-1], now[lead:][::-1])
    trail -= trail > 0 and was[len(was) - trail] == "\n" and "\r" in {was[-trail - 1 : -trail], now[-trail - 1 : -trail]}
    return lead, trail


def _span(block: str, begin: int, end: int, line: int) -> Span:
    """Lines and columns of a part of a block that begins with this line."""
    return Span(*_place(block[:begin], line), *_place(block[:end], line))


def _place(text: str, line: int) -> tuple[int, int]:
    parts = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return line + len(parts) - 1, len(parts[-1]) + 1


def _spliced(before: Document, found: Sequence[Replacement]) -> bytes:
    """The bytes that an editor comes to which makes these replacements."""
    data, pieces, done = before.data, [], 0
    for each in found:
        pieces += [data[done : each.offset], each.text.encode(before.encoding)]
        done = each.offset + each.length
    return b"".join([*pieces, data[done:]])
