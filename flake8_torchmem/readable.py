"""What libcst can be given: it crashes or takes quadratic time on what is deep, and exponential time on patterns within patterns."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence

MAX_DEPTH = 120
# `a + a + ...` nests to the left only, which costs less.
CHAIN = 1_000
# Of brackets in a pattern: each more takes four times as long.
MAX_PATTERN_DEPTH = 5
BRACKET = re.compile(r"[()\[\]{}]")


def readable(nodes: Iterable[ast.AST], lines: Sequence[str]) -> bool:
    """Whether libcst reads these statements, and soon.

    An expression takes at least one character for a level, so what is short cannot be deep.

    Args:
        nodes: the statements.
        lines: of the file.
    """
    pending = [(node, 0) for node in nodes]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_DEPTH or _is_refused(node) or (isinstance(node, ast.Match) and _has_deep_patterns(node, lines)):
            return False
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr):
                pending.append((child, depth + isinstance(child, ast.stmt)))
            elif _is_long(child) and _is_deep(child):
                return False
    return True


def _is_refused(node: ast.AST) -> bool:
    """`(x): int = 1`, which libcst takes for no Python."""
    return isinstance(node, ast.AnnAssign) and (node.target.lineno, node.target.col_offset) != (node.lineno, node.col_offset)


def _is_long(node: ast.expr) -> bool:
    return node.end_lineno != node.lineno or (node.end_col_offset or 0) - node.col_offset > MAX_DEPTH


def _is_deep(expression: ast.expr) -> bool:
    pending: list[tuple[ast.AST, int]] = [(expression, 0)]
    while pending:
        current, depth = pending.pop()
        if depth > (CHAIN if isinstance(current, ast.BinOp) else MAX_DEPTH):
            return True
        pending.extend((child, depth + 1) for child in ast.iter_child_nodes(current))
    return False


def _has_deep_patterns(match: ast.Match, lines: Sequence[str]) -> bool:
    """Whether brackets in the head of a case are nested deeply, those that the syntax tree does not have among them."""
    last = match.subject.end_lineno or match.subject.lineno
    for case in match.cases:
        depth = 0
        for bracket in BRACKET.findall("\n".join(lines[last : case.body[0].lineno])):
            depth += 1 if bracket in "([{" else -1
            if depth > MAX_PATTERN_DEPTH:
                return True
        last = case.body[-1].end_lineno or case.body[-1].lineno
    return False
