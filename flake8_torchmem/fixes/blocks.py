"""Blocks that go under a guard, functions that get a decorator, and recovery that leaves its `except`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import libcst as cst

from flake8_torchmem.fixes.statements import SUITES, comments_above, first_line, has_own_lines, indented, strings
from flake8_torchmem.fixes.syntax import Refused, Syntax, children
from flake8_torchmem.model import Edit, Span

SCOPES = (cst.FunctionDef, cst.Lambda, cst.ClassDef)
LEAVES = (cst.Return, cst.Raise, cst.Continue, cst.Break)
FLAGS = ("failed", "out_of_memory", "failed_attempt")


def guard(syntax: Syntax, manager: str, first: Span, last: Span) -> Iterator[Edit]:
    """Statements of one block go into a `with`, together with the comments above the first."""
    begin, end = syntax.statement(first), syntax.statement(last)
    block = list(syntax.block(begin))
    if begin not in block or end not in block or not (has_own_lines(syntax, begin) and has_own_lines(syntax, end)):
        raise Refused("the statements are not in one block")
    kept = block[block.index(begin) : block.index(end) + 1]
    if any(_found(node, (cst.Yield, cst.Await)) for node in kept):
        raise Refused("a `with` around a `yield` or `await` would hold for whoever runs meanwhile")
    start = first_line(syntax, begin) - len(comments_above(syntax, begin))
    stop = syntax.span(end).end_line
    indent = syntax.indent(syntax.span(begin).line)
    fixed = {line for node in kept for span in strings(syntax, node) for line in range(span.line + 1, span.end_line + 1)}
    yield Edit(Span(start, 1, start, 1), f"{indent}with {manager}:\n")
    for line in range(start, stop + 1):
        if line not in fixed and syntax.lines[line - 1].strip():
            # An insertion at the start of the block comes with the `with`, in this order.
            yield Edit(Span(line, 1, line, 1), syntax.step)


def decorate(syntax: Syntax, decorator: str, function: Span) -> Iterator[Edit]:
    """A function gets one more decorator, next to its `def`: others see what it returns."""
    node = syntax.find(function, cst.FunctionDef)
    line = syntax.span(node).line
    yield Edit(Span(line, 1, line, 1), f"{syntax.indent(line)}@{decorator}\n")


def leave_handler(syntax: Syntax, first: Span) -> Iterator[Edit]:
    """Recovery leaves its `except` block: until the handler is left, the exception's traceback holds the failed frames' tensors."""
    begin = syntax.statement(first)
    handler, attempt = _handler_of(syntax, begin)
    tail = _tail(syntax, begin, handler)
    _require_independent(tail, handler)
    if attempt.finalbody is not None:
        raise Refused("the `try` has a `finally`, which would run before the recovery")
    start, stop = first_line(syntax, tail[0]) - len(comments_above(syntax, tail[0])), syntax.span(tail[-1]).end_line
    inner = syntax.indent(syntax.span(tail[0]).line)
    outer = syntax.indent(syntax.span(attempt).line)
    lines = [line.removeprefix(inner) for line in syntax.lines[start - 1 : stop]]
    end = syntax.span(attempt).end_line
    needed = not _is_only_way(attempt, handler, tail)
    flag = _flag(syntax) if needed else ""
    left = f"{inner}{flag} = True\n" if needed else "" if len(syntax.block(tail[0])) > len(tail) else f"{inner}pass\n"
    head = f"{outer}if {flag}:\n" if needed else ""
    moved = "\n".join(indented(lines, outer + syntax.step if needed else outer))
    if needed:
        line = first_line(syntax, attempt) - len(comments_above(syntax, attempt))
        yield Edit(Span(line, 1, line, 1), f"{outer}{flag} = False\n")
    if stop == end:
        yield Edit(_whole(syntax, start, stop), f"{left}{head}{moved}" + ("\n" if stop < len(syntax.lines) else ""))
    else:
        yield Edit(_whole(syntax, start, stop), left)
        yield Edit(Span(end + 1, 1, end + 1, 1), f"{head}{moved}\n")


def _whole(syntax: Syntax, first: int, last: int) -> Span:
    """Whole lines with their ends; at the end of the file without."""
    if last < len(syntax.lines):
        return Span(first, 1, last + 1, 1)
    return Span(first, 1, last, len(syntax.lines[last - 1]) + 1)


def _handler_of(syntax: Syntax, statement: cst.CSTNode) -> tuple[cst.ExceptHandler, cst.Try]:
    for node in syntax.around(statement):
        if isinstance(node, SCOPES):
            break
        parent = syntax.parents.get(node)
        if isinstance(node, cst.ExceptHandler) and isinstance(parent, cst.Try):
            return node, parent
    raise Refused("the `except` was not found again in the syntax")


def _tail(syntax: Syntax, begin: cst.CSTNode, handler: cst.ExceptHandler) -> Sequence[cst.CSTNode]:
    """What follows in the block; nothing may come after it in the handler."""
    if not has_own_lines(syntax, begin):
        raise Refused("the recovery shares its line with other code")
    block = list(syntax.block(begin))
    tail = block[block.index(begin) :] if begin in block else []
    current = begin
    while current is not handler:
        parent = syntax.parents[current]
        around = syntax.block(current) if not isinstance(current, (cst.Else, cst.IndentedBlock)) else ()
        if around and current is not begin and around[-1] is not current:
            raise Refused("the handler goes on after the branch that recovers")
        if isinstance(parent, SUITES) and not isinstance(parent, (cst.If, cst.Else, cst.ExceptHandler)):
            raise Refused("the recovery is in a loop or block of its own within the handler")
        current = parent
    if not tail or any(next(strings(syntax, node), None) for node in tail):
        raise Refused("the recovery cannot be moved")
    return tail


def _require_independent(tail: Sequence[cst.CSTNode], handler: cst.ExceptHandler) -> None:
    """What moves out may not speak of the exception."""
    name = handler.name.name.value if handler.name is not None and isinstance(handler.name.name, cst.Name) else None
    for node in tail:
        for found in _walk(node):
            if isinstance(found, cst.Raise) and found.exc is None:
                raise Refused("the recovery raises the exception again")
            if name is not None and isinstance(found, cst.Name) and found.value == name:
                raise Refused("the recovery uses the exception")


def _is_only_way(attempt: cst.Try, handler: cst.ExceptHandler, tail: Sequence[cst.CSTNode]) -> bool:
    """Whether nothing else gets to what follows the `try`: its body and the other handlers leave, and so does the rest of this one."""
    bodies = [attempt.orelse.body if attempt.orelse is not None else attempt.body]
    bodies += [other.body for other in attempt.handlers if other is not handler]
    direct = tail[-1] in getattr(handler.body, "body", ())
    return direct and all(_leaves(body) for body in bodies)


def _leaves(body: cst.BaseSuite) -> bool:
    last = body.body[-1] if body.body else None
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
