"""Statements that come, go and move: whole lines where they have lines to themselves, else within the line."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator

import libcst as cst

from flake8_torchmem.fixes.syntax import STATEMENTS, Refused, Syntax, children
from flake8_torchmem.model import Edit, Span
from flake8_torchmem.remedies import Move

LEVELS = re.compile(r"^(?: {4})+")  # of code that a remedy brings in
SUITES = (cst.For, cst.While, cst.With, cst.If, cst.Else, cst.Try, cst.TryStar, cst.FunctionDef, cst.ExceptHandler, cst.Finally)


def insert(syntax: Syntax, code: str, anchor: Span, after: bool, beside: Span | None = None) -> Iterator[Edit]:
    """New statements beside another one.

    Args:
        syntax: the file.
        code: lines without the indentation of their block; four spaces stand for one more level.
        anchor: the statement, or something in it.
        after: whether they come after it; nothing comes before a docstring.
        beside: the statement is the one around it in the innermost block that holds this place as well.
    """
    statement = _outermost_branch(syntax, raised(syntax, syntax.statement(anchor), beside))
    after = after or _is_docstring(syntax, statement)
    if not has_own_lines(syntax, statement):
        yield _within_line(syntax, statement, code, anchor, after)
        return
    span = syntax.span(statement)
    indent = syntax.indent(span.line)
    body = indented([LEVELS.sub(lambda match: syntax.step * (len(match[0]) // 4), line) for line in code.split("\n")], indent)
    if not after:
        line = first_line(syntax, statement) - len(comments_above(syntax, statement))
        yield Edit(Span(line, 1, line, 1), "".join(f"{each}\n" for each in body))
        return
    last = span.end_line
    if last < len(syntax.lines):  # at the start of the next line: an edit of the last one may take its end along
        yield Edit(Span(last + 1, 1, last + 1, 1), "".join(f"{each}\n" for each in body))
        return
    end = len(syntax.lines[last - 1]) + 1
    yield Edit(Span(last, end, last, end), "".join(f"\n{each}" for each in body))


def move(syntax: Syntax, action: Move) -> Iterator[Edit]:
    """A statement, with the comments that are about it alone, goes beside another one."""
    moved, anchor = action.statement, action.anchor
    if not (isinstance(moved, Span) and isinstance(anchor, Span) and (action.beside is None or isinstance(action.beside, Span))):
        raise Refused("the places are in another file")
    statement = syntax.statement(moved) if action.keep else _with_its_blocks(syntax, syntax.statement(moved), anchor, action.whole)
    if not has_own_lines(syntax, statement):
        small = _small(syntax, statement, moved)
        if not action.keep:
            yield from take_out(syntax, statement) if len(statement.body) == 1 else _cut(syntax, statement, small)  # type: ignore[attr-defined]
        yield from insert(syntax, syntax.source(small), anchor, action.after, action.beside)
        return
    if _has_multiline_string(syntax, statement):
        raise Refused("the statement holds a string of several lines")
    first, last = _extent(syntax, statement) if not action.keep else (first_line(syntax, statement), syntax.span(statement).end_line)
    indent = syntax.indent(syntax.span(statement).line)
    lines = [line.removeprefix(indent) for line in syntax.lines[first - 1 : last]]
    if not action.keep:
        yield from take_out(syntax, statement)
    yield from insert(syntax, "\n".join(lines), anchor, action.after, action.beside)


def _with_its_blocks(syntax: Syntax, statement: cst.CSTNode, anchor: Span | None, whole: bool) -> cst.CSTNode:
    """The statement, or the loop over parameters that clears each; `whole`: or the branch that holds nothing else."""
    while True:
        parent = _owner(syntax, statement)
        compound = _outermost_branch(syntax, syntax.parents[parent] if isinstance(parent, cst.Else) else parent)
        loop = isinstance(parent, (cst.For, cst.With)) and len(syntax.block(statement)) == 1
        if loop and _holds(syntax, parent, anchor):
            raise Refused("both are in the same loop")
        if not loop and not (whole and isinstance(compound, cst.If) and not _holds(syntax, compound, anchor)):
            return statement
        if not loop and not _is_bare(compound):
            raise Refused("other code is in the branch that it would leave")
        statement = parent if loop else compound


def _is_bare(branch: cst.CSTNode | None) -> bool:
    """Whether each arm of an `if` holds one statement."""
    while isinstance(branch, cst.If):
        if len(branch.body.body) != 1:
            return False
        branch = branch.orelse
    return branch is None or (isinstance(branch, cst.Else) and len(branch.body.body) == 1)


def raised(syntax: Syntax, statement: cst.CSTNode, beside: Span | None) -> cst.CSTNode:
    """What stands around a statement, or itself, in the innermost block that holds another place as well."""
    if beside is None:
        return statement
    holding = {syntax.parents[node] for node in syntax.around(syntax.statement(beside)) if node in syntax.parents}
    for node in syntax.around(statement):
        if isinstance(node, (*STATEMENTS, cst.SimpleStatementSuite)) and syntax.parents[node] in holding and syntax.block(node):
            return node
    raise Refused("the places have no block in common")


def remove(syntax: Syntax, place: Span, unasked: bool = False) -> Iterator[Edit]:
    """A statement goes, with the comments that are about it alone; `unasked`: no test that has only asked for it has an effect."""
    statement = _with_its_blocks(syntax, syntax.statement(place), None, whole=False)
    if has_own_lines(syntax, statement) or len(statement.body) == 1:  # type: ignore[attr-defined]
        yield from take_out(syntax, statement, unasked)
    else:
        yield from _cut(syntax, statement, _small(syntax, statement, place))


def take_out(syntax: Syntax, statement: cst.CSTNode, unasked: bool = False) -> Iterator[Edit]:
    """A statement goes, with the branch or clause that would be empty where that can go too; any other block gets `pass`.

    Args:
        syntax: the file.
        statement: with nothing else on its lines but the head of its block.
        unasked: asking the test of a branch has no effect.
    """
    owner = _owner(syntax, statement)
    if not _is_all(syntax, statement):
        yield _without(syntax, *_extent(syntax, statement))
    elif isinstance(owner, cst.If) and _can_go(syntax, owner, unasked):
        if isinstance(owner.orelse, cst.Else):
            yield from _keep_else(syntax, owner)
        elif isinstance(syntax.parents.get(owner), cst.If):
            yield Edit(_lines(syntax, syntax.span(owner).line, syntax.span(owner).end_line), "")
        else:
            yield from take_out(syntax, owner, unasked)
    elif isinstance(owner, (cst.Else, cst.Finally)) and not _has_comment(statement):
        attempt = syntax.parents.get(owner)
        if isinstance(owner, cst.Finally) and not (isinstance(attempt, cst.Try) and attempt.handlers):
            raise Refused("it is all that the `finally` of its `try` does")
        yield _without(syntax, syntax.span(owner).line, syntax.span(statement).end_line)
    else:
        yield Edit(syntax.span(statement), "pass")


def _is_all(syntax: Syntax, statement: cst.CSTNode) -> bool:
    """Whether a statement is all that its block does."""
    return isinstance(statement, cst.SimpleStatementSuite) or len(syntax.block(statement)) == 1


def _has_comment(statement: cst.CSTNode) -> bool:
    """Whether a comment ends the line of a block that is one."""
    return isinstance(statement, cst.SimpleStatementSuite) and statement.trailing_whitespace.comment is not None


def _can_go(syntax: Syntax, owner: cst.If, unasked: bool) -> bool:
    """Whether an emptied `if` can go, or its `else` can take its place: no `elif` follows, and asking its test has no effect."""
    if isinstance(owner.orelse, cst.If) or _has_comment(owner.body):
        return False
    if isinstance(owner.orelse, cst.Else) and _outermost_branch(syntax, owner) is not owner:
        return False
    pending: list[cst.CSTNode] = [owner.test] if not unasked or owner.orelse is not None else []
    while pending:
        node = pending.pop()
        if isinstance(node, (cst.NamedExpr, cst.Await)) or (owner.orelse is None and isinstance(node, cst.Call)):
            return False
        pending.extend(children(node))
    return True


def _without(syntax: Syntax, first: int, last: int) -> Edit:
    """Whole lines go; of two blank lines around them one is enough."""
    if first > 1 and last < len(syntax.lines) and not syntax.lines[first - 2].strip() and not syntax.lines[last].strip():
        first -= 1
    return Edit(_lines(syntax, first, last), "")


def _is_docstring(syntax: Syntax, statement: cst.CSTNode) -> bool:
    """Whether a statement is the text that a function, class or module begins with."""
    small = statement.body[0] if isinstance(statement, cst.SimpleStatementLine) else None
    text = isinstance(small, cst.Expr) and isinstance(small.value, (cst.SimpleString, cst.ConcatenatedString))
    owner = _owner(syntax, statement)
    return text and isinstance(owner, (cst.FunctionDef, cst.ClassDef, cst.Module)) and syntax.block(statement)[0] is statement


def _keep_else(syntax: Syntax, owner: cst.If) -> Iterator[Edit]:
    """`if c: <nothing> else: rest` becomes `if not c: rest`."""
    test, begin = syntax.span(owner.test), syntax.span(owner)
    text = syntax.between(Span(begin.line, begin.column + len("if"), test.line, test.column))
    end = syntax.span(owner.test)
    if owner.test.lpar:
        closing = syntax.span(owner.test.rpar[-1])
        end = Span(closing.line, closing.column, closing.end_line, closing.end_column)
    if text.strip(" (") or end.end_line != begin.line or owner.orelse is None:
        raise Refused("the branch that it would leave empty has a test of several lines")
    clause = syntax.span(owner.orelse)
    if isinstance(owner.body, cst.IndentedBlock) and isinstance(owner.orelse.body, cst.IndentedBlock):
        yield Edit(Span(begin.line, begin.column + len("if"), end.end_line, end.end_column), f" {negated(syntax, owner.test)}")
        yield Edit(_lines(syntax, begin.line + 1, clause.line), "")
        return
    yield Edit(Span(begin.line, begin.column + len("if"), clause.line, clause.column + len("else")), f" {negated(syntax, owner.test)}")


# `<` is not the opposite of `>=` where a loss is no number.
NEGATED: dict[type[cst.BaseCompOp], str] = {
    cst.Equal: "!=", cst.NotEqual: "==", cst.Is: "is not", cst.IsNot: "is", cst.In: "not in", cst.NotIn: "in",
}  # fmt: skip


def negated(syntax: Syntax, test: cst.BaseExpression) -> str:
    """The opposite of a condition."""
    if isinstance(test, cst.UnaryOperation) and isinstance(test.operator, cst.Not):
        return syntax.source(test.expression)
    target = test.comparisons[0] if isinstance(test, cst.Comparison) and len(test.comparisons) == 1 else None
    if isinstance(test, cst.Comparison) and target is not None and type(target.operator) in NEGATED:
        left, right = syntax.whole(test.left), syntax.whole(target.comparator)
        return f"{left} {NEGATED[type(target.operator)]} {right}"
    source = syntax.source(test)
    return f"not ({source})" if isinstance(test, (cst.BooleanOperation, cst.IfExp, cst.Lambda, cst.Comparison)) else f"not {source}"


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


def _holds(syntax: Syntax, outer: cst.CSTNode, place: Span | None) -> bool:
    return place is not None and outer in syntax.around(syntax.statement(place))


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
    if any(token.type == tokenize.COMMENT for token in tokenize.generate_tokens(io.StringIO(code).readline)):
        raise Refused("its comment would hide what follows in a line of several statements")
    span = syntax.span(_small(syntax, line, place))
    if after:
        return Edit(Span(span.end_line, span.end_column, span.end_line, span.end_column), f"; {code}")
    return Edit(Span(span.line, span.column, span.line, span.column), f"{code}; ")


def _cut(syntax: Syntax, line: cst.CSTNode, small: cst.BaseSmallStatement) -> Iterator[Edit]:
    """One of several statements goes, with the semicolon."""
    body = list(line.body)  # type: ignore[attr-defined]
    span, index = syntax.span(small), body.index(small)
    if index + 1 < len(body):
        following = syntax.span(body[index + 1])
        yield Edit(Span(span.line, span.column, following.line, following.column), "")
    else:
        before = syntax.span(body[index - 1])
        yield Edit(Span(before.end_line, before.end_column, span.end_line, span.end_column), "")
