"""Statements that come, go and move: whole lines where they have lines to themselves, else within the line."""

from __future__ import annotations

import re
from collections.abc import Iterator

import libcst as cst

from flake8_torchmem.fixes.syntax import Refused, Syntax, children
from flake8_torchmem.model import Edit, Span

SUITES = (cst.For, cst.While, cst.With, cst.If, cst.Else, cst.Try, cst.TryStar, cst.FunctionDef, cst.ExceptHandler, cst.Finally)


def insert(syntax: Syntax, code: str, anchor: Span, after: bool) -> Iterator[Edit]:
    """New statements beside another one.

    Args:
        syntax: the file.
        code: lines without the indentation of their block; four spaces stand for one more level.
        anchor: the statement, or something in it.
        after: whether they come after it; nothing comes before a docstring.
    """
    statement = _outermost_branch(syntax, syntax.statement(anchor))
    after = after or _is_docstring(syntax, statement)
    code = re.sub(r"^(?: {4})+", lambda match: syntax.step * (len(match[0]) // 4), code, flags=re.MULTILINE)
    if not has_own_lines(syntax, statement):
        yield _within_line(syntax, statement, code, anchor, after)
        return
    span = syntax.span(statement)
    indent = syntax.indent(span.line)
    body = indented(code.split("\n"), indent)
    if not after:
        line = first_line(syntax, statement) - len(comments_above(syntax, statement))
        yield Edit(Span(line, 1, line, 1), "".join(f"{each}\n" for each in body))
        return
    last = span.end_line
    end = len(syntax.lines[last - 1]) + 1
    yield Edit(Span(last, end, last, end), "".join(f"\n{each}" for each in body))


def move(syntax: Syntax, moved: Span, anchor: Span, after: bool) -> Iterator[Edit]:
    """A statement, with the comments that are about it alone, goes beside another one."""
    statement = syntax.statement(moved)
    while isinstance(_owner(syntax, statement), (cst.For, cst.With)) and len(syntax.block(statement)) == 1:
        statement = _owner(syntax, statement)  # the loop over parameters that clears each
        if _holds(syntax, statement, anchor):
            raise Refused("both are in the same loop")
    if not has_own_lines(syntax, statement):
        small = _small(syntax, statement, moved)
        yield from _cut(syntax, statement, small)
        yield from insert(syntax, syntax.source(small), anchor, after)
        return
    if _has_multiline_string(syntax, statement):
        raise Refused("the statement holds a string of several lines")
    first, last = _extent(syntax, statement)
    indent = syntax.indent(syntax.span(statement).line)
    lines = [line.removeprefix(indent) for line in syntax.lines[first - 1 : last]]
    yield from remove_statement(syntax, statement)
    yield from insert(syntax, "\n".join(lines), anchor, after)


def remove(syntax: Syntax, place: Span, unasked: bool = False) -> Iterator[Edit]:
    """A statement goes, with the comments that are about it alone; `unasked`: and the `if` or `elif` that it is all of."""
    statement = syntax.statement(place)
    whole = len(getattr(statement, "body", ())) == 1 if isinstance(statement, (cst.SimpleStatementLine, cst.SimpleStatementSuite)) else True
    while unasked and whole and _is_all_of_an_if(syntax, statement):
        statement = _owner(syntax, statement)
    if isinstance(syntax.parents.get(statement), cst.If):
        yield _without_elif(syntax, statement)
    elif has_own_lines(syntax, statement):
        yield from remove_statement(syntax, statement)
    else:
        yield from _cut(syntax, statement, _small(syntax, statement, place))


def remove_statement(syntax: Syntax, statement: cst.CSTNode) -> Iterator[Edit]:
    """A statement with lines of its own goes; an `else` that would be empty goes with it, another block gets `pass`."""
    first, last = _extent(syntax, statement)
    if len(syntax.block(statement)) == 1:
        owner = _owner(syntax, statement)
        attempt = syntax.parents.get(owner)
        ends = isinstance(owner, cst.Finally) and isinstance(attempt, cst.Try) and attempt.handlers
        if isinstance(owner, cst.Finally) and not ends:
            raise Refused("it is all that the `finally` of its `try` does")
        if not isinstance(owner, (cst.Else, cst.Finally)):
            span = syntax.span(statement)
            yield Edit(Span(span.line, span.column, span.end_line, span.end_column), "pass")
            return
        first = syntax.span(owner).line
    yield Edit(_lines(syntax, first, last), "")


def _is_all_of_an_if(syntax: Syntax, statement: cst.CSTNode) -> bool:
    """Whether a statement is all that an `if` does, and nothing is done else."""
    owner = _owner(syntax, statement)
    alone = isinstance(statement, cst.SimpleStatementSuite) or len(syntax.block(statement)) == 1
    return alone and isinstance(owner, cst.If) and owner.orelse is None


def _without_elif(syntax: Syntax, branch: cst.CSTNode) -> Edit:
    """The last `elif` goes."""
    return Edit(_lines(syntax, syntax.span(branch).line, syntax.span(branch).end_line), "")


def _is_docstring(syntax: Syntax, statement: cst.CSTNode) -> bool:
    """Whether a statement is the text that a function, class or module begins with."""
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
    text = isinstance(small, cst.Expr) and isinstance(small.value, (cst.SimpleString, cst.ConcatenatedString))
    owner = _owner(syntax, statement)
    return text and isinstance(owner, (cst.FunctionDef, cst.ClassDef, cst.Module)) and syntax.block(statement)[0] is statement


def has_own_lines(syntax: Syntax, statement: cst.CSTNode) -> bool:
    """Whether nothing else stands on the lines of a statement."""
    if isinstance(statement, cst.SimpleStatementSuite):
        return False
    return not isinstance(statement, cst.SimpleStatementLine) or len(statement.body) == 1


def first_line(syntax: Syntax, statement: cst.CSTNode) -> int:
    """The line that a statement begins on, its decorators counted in."""
    decorators = getattr(statement, "decorators", ())
    return min([syntax.span(statement).line, *(syntax.span(decorator).line for decorator in decorators)])


def comments_above(syntax: Syntax, statement: cst.CSTNode) -> list[int]:
    """The lines of comments that stand right above a statement, in its column."""
    line = first_line(syntax, statement)
    indent = syntax.indent(line)
    found: list[int] = []
    while line - len(found) > 1 and syntax.lines[line - len(found) - 2].startswith(f"{indent}#"):
        found.append(line - len(found) - 1)
    return found[::-1]


def indented(lines: list[str], indent: str) -> list[str]:
    """The lines, further in; empty ones stay empty."""
    return [indent + line if line.strip() else line for line in lines]


def strings(syntax: Syntax, node: cst.CSTNode) -> Iterator[Span]:
    """Strings that go over several lines: their lines cannot be indented."""
    pending = [node]
    while pending:
        current = pending.pop()
        if isinstance(current, (cst.SimpleString, cst.FormattedString)):
            span = syntax.span(current)
            if span.end_line > span.line:
                yield span
        else:
            pending.extend(children(current))


def _has_multiline_string(syntax: Syntax, node: cst.CSTNode) -> bool:
    return next(strings(syntax, node), None) is not None


def _extent(syntax: Syntax, statement: cst.CSTNode) -> tuple[int, int]:
    """First and last line of a statement with the comments that are about it alone: what follows stands apart from it."""
    span = syntax.span(statement)
    block = syntax.block(statement)
    following = syntax.lines[span.end_line].strip() if span.end_line < len(syntax.lines) else ""
    apart = statement is block[-1] or not following or following.startswith("#")
    above = comments_above(syntax, statement) if apart else []
    return first_line(syntax, statement) - len(above), span.end_line


def _lines(syntax: Syntax, first: int, last: int) -> Span:
    """Whole lines, with the end of the last one; at the end of a file, with the end of the line before."""
    if last < len(syntax.lines):
        return Span(first, 1, last + 1, 1)
    before = max(first - 1, 1)
    return Span(before, len(syntax.lines[before - 1]) + 1, last, len(syntax.lines[last - 1]) + 1)


def _owner(syntax: Syntax, statement: cst.CSTNode) -> cst.CSTNode:
    """The statement, or clause, whose block a statement is in."""
    return next(
        (node for node in list(syntax.around(statement))[1:] if isinstance(node, (*SUITES, cst.Module, cst.ClassDef))), syntax.module
    )


def _holds(syntax: Syntax, outer: cst.CSTNode, place: Span) -> bool:
    return outer in syntax.around(syntax.statement(place))


def _outermost_branch(syntax: Syntax, statement: cst.CSTNode) -> cst.CSTNode:
    """Of an `elif` the whole `if`: nothing can stand before an `elif`."""
    while isinstance(statement, cst.If):
        parent = syntax.parents.get(statement)
        if not (isinstance(parent, cst.If) and parent.orelse is statement):
            break
        statement = parent
    return statement


def _small(syntax: Syntax, line: cst.CSTNode, place: Span) -> cst.BaseSmallStatement:
    """The one of several statements on a line that a place lies in."""
    for small in line.body:  # type: ignore[attr-defined]
        span = syntax.span(small)
        inside = (span.line, span.column) <= (place.line, place.column) < (span.end_line, span.end_column)
        if inside and isinstance(small, cst.BaseSmallStatement):
            return small
    raise Refused("the statement was not found again in its line")


def _within_line(syntax: Syntax, line: cst.CSTNode, code: str, place: Span, after: bool) -> Edit:
    if "\n" in code or code.endswith(":"):
        raise Refused("there is no room for it in a line of several statements")
    span = syntax.span(_small(syntax, line, place))
    if after:
        return Edit(Span(span.end_line, span.end_column, span.end_line, span.end_column), f"; {code}")
    return Edit(Span(span.line, span.column, span.line, span.column), f"{code}; ")


def _cut(syntax: Syntax, line: cst.CSTNode, small: cst.BaseSmallStatement) -> Iterator[Edit]:
    """One of several statements goes, with the semicolon."""
    body = list(line.body)  # type: ignore[attr-defined]
    span, index = syntax.span(small), body.index(small)
    if len(body) == 1:
        yield Edit(span, "pass")
    elif index + 1 < len(body):
        following = syntax.span(body[index + 1])
        yield Edit(Span(span.line, span.column, following.line, following.column), "")
    else:
        before = syntax.span(body[index - 1])
        yield Edit(Span(before.end_line, before.end_column, span.end_line, span.end_column), "")
