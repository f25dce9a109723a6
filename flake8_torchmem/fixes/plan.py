"""From a finding to the edits that mend it: the remedy says what, the syntax of the file says where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flake8_torchmem import remedies
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.fixes import blocks, expressions, statements
from flake8_torchmem.fixes.document import overlap
from flake8_torchmem.fixes.names import spelled
from flake8_torchmem.fixes.syntax import Refused, Syntax
from flake8_torchmem.model import Edit, Finding, Fix, Safety, Span
from flake8_torchmem.remedies import NoRemedy, Remedy

NOQA = re.compile(r"#\s*noqa", re.IGNORECASE)
BY_HAND = "it is for people to mend"


@dataclass(frozen=True)
class Planned:
    """A finding and its fix."""

    finding: Finding
    fix: Fix


def safety_of(finding: Finding) -> Safety:
    """How much the fix of a finding may change."""
    own = finding.remedy.safety if isinstance(finding.remedy, Remedy) else None
    return own or catalogue()[finding.code].safety


def plan(finding: Finding, syntax: Syntax) -> Planned:
    """The edits for one finding.

    Args:
        finding: with its remedy.
        syntax: of the very text that it was found in.

    Raises:
        Refused: there are none, and why.
    """
    if not isinstance(finding.remedy, Remedy):
        raise Refused(finding.remedy.reason if isinstance(finding.remedy, NoRemedy) else BY_HAND)
    edits = [edit for action in finding.remedy.actions for edit in _edits(action, syntax)]
    merged = tuple(_merged(edits))
    for edit in merged:
        _require_no_noqa(edit.span, syntax)
    return Planned(finding, Fix(merged, safety_of(finding)))


def _edits(action: remedies.Action, syntax: Syntax) -> Iterator[Edit]:
    yield from ACTIONS[type(action)](action, syntax)


def _named(code: str, syntax: Syntax, make: Callable[[str], Iterator[Edit]]) -> Iterator[Edit]:
    """Edits that bring in code, and the imports that the code needs."""
    text, imports = spelled(syntax, code)
    yield from imports
    yield from make(text)


ACTIONS: dict[type, Callable[[Any, Syntax], Iterator[Edit]]] = {
    remedies.Insert: lambda a, syntax: _named(a.code, syntax, lambda text: statements.insert(syntax, text, a.anchor, a.after, a.beside)),
    remedies.Move: lambda a, syntax: statements.move(syntax, a),
    remedies.Remove: lambda a, syntax: statements.remove(syntax, a.statement, a.unasked),
    remedies.Rewrite: lambda a, syntax: _named(a.template, syntax, lambda text: expressions.rewrite(syntax, a.place, a.role, text, a.path)),
    remedies.SetArgument: lambda a, syntax: _named(a.value, syntax, lambda text: expressions.set_argument(syntax, a.call, a.name, text)),
    remedies.DropArgument: lambda a, syntax: expressions.drop_argument(syntax, a.call, a.name, a.position),
    remedies.Guard: lambda a, syntax: _named(a.manager, syntax, lambda text: blocks.guard(syntax, text, a.first, a.last)),
    remedies.Decorate: lambda a, syntax: _named(a.decorator, syntax, lambda text: blocks.decorate(syntax, text, a.function)),
    remedies.MakeThere: lambda a, syntax: expressions.make_there(syntax, a.transfer, a.factory),
    remedies.LeaveHandler: lambda a, syntax: blocks.leave_handler(syntax, a.first),
}


def _merged(edits: Sequence[Edit]) -> list[Edit]:
    """The edits in order of place: insertions at one place in the order in which they were asked for, before what is replaced there."""
    found: list[Edit] = []
    for edit in sorted(edits, key=lambda edit: (edit.span.line, edit.span.column, not _is_empty(edit.span))):
        last = found[-1] if found else None
        if last is not None and _is_empty(last.span) and (last.span.line, last.span.column) == (edit.span.line, edit.span.column):
            found[-1] = Edit(edit.span, last.text + edit.text)
        elif last is not None and overlap(last.span, edit.span):
            raise Refused("its edits overlap")
        else:
            found.append(edit)
    return found


def _is_empty(span: Span) -> bool:
    return (span.line, span.column) == (span.end_line, span.end_column)


def _require_no_noqa(span: Span, syntax: Syntax) -> None:
    """Lines with a `# noqa` stay as they are; nothing of a line is touched by what comes in before it."""
    if _is_empty(span) and span.column == 1:
        return
    last = span.end_line if span.end_column > 1 or _is_empty(span) else span.end_line - 1
    if any(NOQA.search(line) for line in syntax.lines[span.line - 1 : last]):
        raise Refused("a line that it would change has a `# noqa` comment")
