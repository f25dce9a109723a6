"""Which of several fixes that do not go together may be to blame: those in the functions where something has come."""

from __future__ import annotations

import ast
from bisect import bisect
from collections.abc import Sequence

from flake8_torchmem.fixes.document import Document
from flake8_torchmem.fixes.plan import Planned
from flake8_torchmem.model import Edit, Finding

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def apart(
    document: Document, group: Sequence[Planned], made: Sequence[Planned], before: Sequence[Finding], come: Sequence[Finding]
) -> list[list[Planned]]:
    """Two parts of a group, to be tried in this order: those that seem to do no harm first; two halves where nothing tells them apart.

    Args:
        document: before the fixes.
        group: of two at least.
        made: all that were made at once, the group among them.
        before: what was found in the document.
        come: what is found in the document after them that may have come by them.
    """
    starts = sorted(node.lineno for node in ast.walk(ast.parse(document.normal)) if isinstance(node, FUNCTIONS))
    shifts = _shifts([edit for each in made for edit in each.fix.edits])
    known = {(finding.code, finding.span.line) for finding in before}
    places = [(finding.code, _line_before(finding.span.line, shifts)) for finding in come]
    blamed = {bisect(starts, line) for code, line in places if (code, line) not in known}
    guilty = [each for each in group if any(bisect(starts, edit.span.line) in blamed for edit in each.fix.edits)]
    if not guilty or len(guilty) == len(group):
        middle = len(group) // 2
        return [list(group[:middle]), list(group[middle:])]
    return [[each for each in group if each not in guilty], guilty]


def _shifts(edits: Sequence[Edit]) -> list[tuple[int, int]]:
    """Lines after which what follows has moved, in the document after the edits, with how far it has."""
    found, moved = [], 0
    for edit in sorted(edits, key=lambda edit: edit.span):
        lines = edit.text.count("\n") - (edit.span.end_line - edit.span.line)
        if lines:
            moved += lines
            found.append((edit.span.line + moved, moved))
    return found


def _line_before(line: int, shifts: Sequence[tuple[int, int]]) -> int:
    """About where a line was before."""
    at = bisect(shifts, line, key=lambda shift: shift[0])
    return line - shifts[at - 1][1] if at else line
