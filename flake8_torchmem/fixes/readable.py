"""What libcst can be given: it crashes or takes quadratic time on what is deep, and exponential time on patterns within patterns."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Sequence

MAX_DEPTH = 120
# `a + a + ...` nests to the left only, which costs less.
CHAIN = 400
# Of brackets in a pattern: each more takes four times as long.
MAX_PATTERN_DEPTH = 5
STRINGS = frozenset(
    {tokenize.STRING, getattr(tokenize, "FSTRING_START", tokenize.STRING), getattr(tokenize, "TSTRING_START", tokenize.STRING)}
)
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
            elif _is_long(child) and _is_deep(child, lines):
                return False
    return True


def _is_refused(node: ast.AST) -> bool:
    """`import a.b.c`, and so on without an end."""
    return isinstance(node, ast.alias) and node.name.count(".") > MAX_DEPTH


def _is_long(node: ast.expr) -> bool:
    return node.end_lineno != node.lineno or (node.end_col_offset or 0) - node.col_offset > MAX_DEPTH


def _is_deep(expression: ast.expr, lines: Sequence[str]) -> bool:
    """Whether an expression is, as libcst nests it: strings in a row and the loops of a comprehension as well."""
    pending: list[tuple[ast.AST, int, int]] = [(expression, 0, 0)]
    while pending:
        current, depth, chain = pending.pop()
        if depth + _in_a_row(current, lines) > MAX_DEPTH or chain > CHAIN:
            return True
        if isinstance(current, ast.BinOp):
            pending += [(current.left, depth, chain + 1), (current.right, depth + 1, 0)]
        elif isinstance(current, ast.BoolOp):
            pending.extend((value, depth + 1, len(current.values)) for value in current.values)
        else:
            pending.extend((child, depth + 1, 0) for child in ast.iter_child_nodes(current))
    return False


def _in_a_row(node: ast.AST, lines: Sequence[str]) -> int:
    """How many parts libcst nests where the syntax tree has them side by side."""
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return len(node.generators)
    return _strings(node, lines) if isinstance(node, (ast.Constant, ast.JoinedStr)) and _is_long(node) else 0


def _strings(node: ast.expr, lines: Sequence[str]) -> int:
    """How many strings in a row a constant is written as, at most; they are counted where it may be many."""
    kept = [line.encode() for line in lines[node.lineno - 1 : node.end_lineno]]
    kept[-1] = kept[-1][: node.end_col_offset]
    kept[0] = kept[0][node.col_offset :]
    text = b"\n".join(kept).decode()
    if text.count('"') + text.count("'") <= 2 * MAX_DEPTH:
        return 0
    tokens = tokenize.generate_tokens(io.StringIO(f"(\n{text}\n)").readline)
    return sum(token.type in STRINGS for token in tokens)


def _has_deep_patterns(match: ast.Match, lines: Sequence[str]) -> bool:
    """Whether brackets in the head of a case are nested deeply, those that the syntax tree does not have among them."""
    last = match.subject.end_lineno or match.subject.lineno
    for case in match.cases:
        depth, first = 0, case.body[0]
        head = [*lines[last : first.lineno - 1], lines[first.lineno - 1].encode()[: first.col_offset].decode()]
        for bracket in BRACKET.findall("\n".join(head)):
            depth += 1 if bracket in "([{" else -1
            if depth > MAX_PATTERN_DEPTH:
                return True
        last = case.body[-1].end_lineno or case.body[-1].lineno
    return False
