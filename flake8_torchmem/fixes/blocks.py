"""Blocks that go under a guard, functions that get a decorator, and recovery that leaves its `except`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import libcst as cst

from flake8_torchmem.fixes.names import is_imported_later
from flake8_torchmem.fixes.statements import comments_above, first_line, has_own_lines, indented, strings
from flake8_torchmem.fixes.syntax import COMPOUND, STATEMENTS, Refused, Syntax, children
from flake8_torchmem.model import Edit, Span

SCOPES = (cst.FunctionDef, cst.Lambda, cst.ClassDef)
LEAVES = (cst.Return, cst.Raise, cst.Continue, cst.Break)
FREES = re.compile(r"(?:^|\.)(?:collect|empty_cache|synchronize|zero_grad)$")
TALKS = re.compile(r"(?:^|\.)(?:print|debug|info|warn|warning|error|log|write)$")
SPEAKS_OF_ERROR = re.compile(r"^(?:traceback|exc_info|exception|format_exc|print_exc)$")
FLAGS = ("failed", "out_of_memory", "failed_attempt")


def guard(syntax: Syntax, manager: str, first: Span, last: Span) -> Iterator[Edit]:
    """Statements of one block go into a `with`; the comments above the first are about all of them, and stay above."""
    begin, end = syntax.statement(first), syntax.statement(last)
    block = list(syntax.block(begin))
    if begin not in block or end not in block or not (has_own_lines(syntax, begin) and has_own_lines(syntax, end)):
        raise Refused("the statements are not in one block")
    kept = block[block.index(begin) : block.index(end) + 1]
    if isinstance(begin, COMPOUND) and (first.line, first.column) != (syntax.span(begin).line, syntax.span(begin).column):
        raise Refused("the place is in the head of another statement")
    if any(_found(node, (cst.Yield, cst.Await)) for node in kept):
        raise Refused("a `with` around a `yield` or `await` would hold for whoever runs meanwhile")
    start = first_line(syntax, begin)
    indent = syntax.indent(syntax.span(begin).line)
    stop = _last_line(syntax, end, indent)
    fixed = {line for node in kept for span in strings(syntax, node) for line in range(span.line + 1, span.end_line + 1)}
    yield Edit(Span(start, 1, start, 1), f"{indent}with {manager}:\n")
    for line in range(start, stop + 1):
        if line not in fixed and syntax.lines[line - 1].strip():
            # An insertion at the start of the block comes with the `with`, in this order.
            yield Edit(Span(line, 1, line, 1), syntax.step)


def _last_line(syntax: Syntax, statement: cst.CSTNode, indent: str) -> int:
    """The last line of a statement, with the comments that end its block."""
    last = found = syntax.span(statement).end_line
    if not isinstance(statement, COMPOUND):
        return last
    for line in range(last + 1, len(syntax.lines) + 1):
        text = syntax.lines[line - 1]
        if text.strip() and not (text.lstrip().startswith("#") and len(syntax.indent(line)) > len(indent)):
            break
        found = line if text.strip() else found
    return found


def decorate(syntax: Syntax, decorator: str, function: Span) -> Iterator[Edit]:
    """A function gets one more decorator, next to its `def`: others see what it returns."""
    node = syntax.find(function, cst.FunctionDef)
    if node.asynchronous is not None:
        raise Refused("the decorator of a coroutine function would only guard the making of the coroutine")
    line = syntax.span(node).line
    if is_imported_later(syntax, decorator, line):
        raise Refused("the module that the decorator is from is imported only later")
    yield Edit(Span(line, 1, line, 1), f"{syntax.indent(line)}@{decorator}\n")


def leave_handler(syntax: Syntax, first: Span) -> Iterator[Edit]:
    """Recovery leaves its `except` block: until the handler is left, the exception's traceback holds the failed frames' tensors."""
    handler, attempt = _handler_of(syntax, syntax.statement(first))
    begin = _whole_loop(syntax, syntax.statement(first), handler)
    if attempt.finalbody is not None:
        raise Refused("the `try` has a `finally`, which would run before the recovery")
    tail, passed = _tail(syntax, begin, handler)
    start, stop = _top(syntax, tail[0]), syntax.span(tail[-1]).end_line
    inner, outer = syntax.indent(syntax.span(tail[0]).line), syntax.indent(syntax.span(attempt).line)
    lines = [line.removeprefix(inner) for line in syntax.lines[start - 1 : stop]]
    flag = "" if _is_only_way(attempt, handler, tail) else _flag(syntax)
    left = f"{inner}{flag} = True\n" if flag else "" if len(syntax.block(tail[0])) > len(tail) else f"{inner}pass\n"
    moved = "\n".join([*([f"{outer}if {flag}:"] if flag else []), *indented(lines, outer + syntax.step if flag else outer)])
    if flag:
        line = _top(syntax, attempt)
        yield Edit(Span(line, 1, line, 1), f"{outer}{flag} = False\n")
    for branch, following in passed:
        yield from _under_flag(syntax, branch, following, flag, tail)
    end = syntax.span(attempt).end_line
    if stop == end:
        yield Edit(_whole(syntax, start, stop), f"{left}{moved}" + ("\n" if stop < len(syntax.lines) else ""))
        return
    yield Edit(_whole(syntax, start, stop), left)
    if end < len(syntax.lines):
        yield Edit(Span(end + 1, 1, end + 1, 1), f"{moved}\n")
    else:
        column = len(syntax.lines[end - 1]) + 1
        yield Edit(Span(end, column, end, column), f"\n{moved}")


def _under_flag(
    syntax: Syntax, branch: cst.CSTNode, following: Sequence[cst.CSTNode], flag: str, tail: Sequence[cst.CSTNode]
) -> Iterator[Edit]:
    """What the recovery left behind by returning runs only where there is none: in an `else` of its branch, or under a test of the flag."""
    if any(next(strings(syntax, node), None) for node in following):
        raise Refused("a string of several lines follows in the handler")
    alone = isinstance(branch, cst.If) and branch.orelse is None and tail[-1] in branch.body.body
    start, stop = _top(syntax, following[0]), syntax.span(following[-1]).end_line
    indent = syntax.indent(syntax.span(following[0]).line)
    yield Edit(Span(start, 1, start, 1), f"{indent}else:\n" if alone else f"{indent}if not {flag}:\n")
    for line in range(start, stop + 1):
        if syntax.lines[line - 1].strip():
            yield Edit(Span(line, 1, line, 1), syntax.step)


def _top(syntax: Syntax, statement: cst.CSTNode) -> int:
    """The first line of a statement, or of the comments above it."""
    return first_line(syntax, statement) - len(comments_above(syntax, statement))


def _whole(syntax: Syntax, first: int, last: int) -> Span:
    """Whole lines with their ends; at the end of the file without."""
    if last < len(syntax.lines):
        return Span(first, 1, last + 1, 1)
    return Span(first, 1, last, len(syntax.lines[last - 1]) + 1)


def _whole_loop(syntax: Syntax, statement: cst.CSTNode, handler: cst.ExceptHandler) -> cst.CSTNode:
    """The outermost loop or block of the handler that a statement is in, branches left out; else the statement."""
    found = statement
    for node in syntax.around(statement):
        if node is handler:
            break
        found = node if isinstance(node, COMPOUND) and not isinstance(node, cst.If) else found
    return found


def _handler_of(syntax: Syntax, statement: cst.CSTNode) -> tuple[cst.ExceptHandler, cst.Try]:
    for node in syntax.around(statement):
        if isinstance(node, SCOPES):
            break
        parent = syntax.parents.get(node)
        if isinstance(node, cst.ExceptHandler) and isinstance(parent, cst.Try):
            return node, parent
    raise Refused("the `except` was not found again in the syntax")


def _tail(
    syntax: Syntax, begin: cst.CSTNode, handler: cst.ExceptHandler
) -> tuple[Sequence[cst.CSTNode], list[tuple[cst.CSTNode, Sequence[cst.CSTNode]]]]:
    """What moves: the rest of the block, and what prepares it; with the branches around that something follows in the handler."""
    block = list(syntax.block(begin))
    if begin not in block or not has_own_lines(syntax, begin):
        raise Refused("the recovery shares its line with other code")
    name = _name_of(handler)
    first = block.index(begin)
    for index in range(first - 1, -1, -1):
        if _prepares(syntax, block[index], name):
            first = index
        elif not _talks(syntax, block[index], name):
            break
    tail = block[first:]
    _require_independent(tail, name)
    passed: list[tuple[cst.CSTNode, Sequence[cst.CSTNode]]] = []
    current = begin
    while current is not handler:
        parent = syntax.parents[current]
        around = list(syntax.block(current)) if isinstance(current, STATEMENTS) else []
        following = around[around.index(current) + 1 :] if current in around and current is not begin else []
        if following:
            passed.append((current, following))
        current = parent
    if passed and not _ends_in_leave(tail):
        raise Refused("the handler goes on after the branch that recovers")
    if any(next(strings(syntax, node), None) for node in tail):
        raise Refused("the recovery holds a string of several lines")
    return tail, passed


def _prepares(syntax: Syntax, statement: cst.CSTNode, name: str | None) -> bool:
    """Whether a statement before the recovery can go with it: it sets variables or frees memory, and does not speak of the error."""
    if isinstance(statement, (cst.If, cst.For)) and statement.orelse is None and isinstance(statement.body, cst.IndentedBlock):
        return not _speaks(statement, name) and all(_prepares(syntax, inner, name) for inner in statement.body.body)
    if not isinstance(statement, cst.SimpleStatementLine) or _speaks(statement, name):
        return False
    return all(
        isinstance(small, (cst.Assign, cst.AnnAssign, cst.AugAssign, cst.Del)) or _calls(syntax, small, FREES) for small in statement.body
    )


def _talks(syntax: Syntax, statement: cst.CSTNode, name: str | None) -> bool:
    """Whether a statement prints or logs something else than the error."""
    line = isinstance(statement, cst.SimpleStatementLine) and all(_calls(syntax, small, TALKS) for small in statement.body)
    return line and not _speaks(statement, name)


def _calls(syntax: Syntax, small: cst.CSTNode, callee: re.Pattern[str]) -> bool:
    return isinstance(small, cst.Expr) and isinstance(small.value, cst.Call) and bool(callee.search(syntax.source(small.value.func)))


def _speaks(node: cst.CSTNode, name: str | None) -> bool:
    """Whether the exception is named, or what tells of the one that is handled."""
    words = (found.value for found in _walk(node) if isinstance(found, cst.Name))
    return any(word == name or SPEAKS_OF_ERROR.search(word) for word in words)


def _name_of(handler: cst.ExceptHandler) -> str | None:
    return handler.name.name.value if handler.name is not None and isinstance(handler.name.name, cst.Name) else None


def _require_independent(tail: Sequence[cst.CSTNode], name: str | None) -> None:
    """What moves out may not speak of the exception."""
    if any(isinstance(found, cst.Raise) and found.exc is None for node in tail for found in _walk(node)):
        raise Refused("the recovery raises the exception again")
    if any(_speaks(node, name) for node in tail):
        raise Refused("the recovery uses the exception")


def _is_only_way(attempt: cst.Try, handler: cst.ExceptHandler, tail: Sequence[cst.CSTNode]) -> bool:
    """Whether nothing else gets to what follows the `try`: its body and the other handlers leave, and so does the rest of this one."""
    bodies = [attempt.orelse.body if attempt.orelse is not None else attempt.body]
    bodies += [other.body for other in attempt.handlers if other is not handler]
    direct = tail[-1] in getattr(handler.body, "body", ())
    return direct and all(_leaves(body) for body in bodies)


def _leaves(body: cst.BaseSuite) -> bool:
    return _ends_in_leave(body.body)


def _ends_in_leave(statements: Sequence[cst.CSTNode]) -> bool:
    last = statements[-1] if statements else None
    return isinstance(last, cst.SimpleStatementLine) and isinstance(last.body[-1], LEAVES)


def _flag(syntax: Syntax) -> str:
    """A name that the file does not use yet."""
    used = {node.value for node in syntax.parents if isinstance(node, cst.Name)}
    return next((name for name in FLAGS if name not in used), "recovery_needed")


def _found(node: cst.CSTNode, kinds: tuple[type[cst.CSTNode], ...]) -> bool:
    """Whether a node of these kinds is in this one, in the same scope."""
    return any(isinstance(found, kinds) for found in _walk(node))


def _walk(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    pending = [node]
    while pending:
        current = pending.pop()
        yield current
        pending.extend(child for child in children(current) if not isinstance(child, SCOPES))
