"""What a fix may do to a program: nothing outside of its edits."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from flake8_torchmem.fixes import Document, Planned
from flake8_torchmem.model import Edit, Safety
from flake8_torchmem.remedies import Action, Decorate, Guard, Insert, Remedy, Rewrite

SUITES = frozenset({"body", "orelse", "finalbody", "handlers", "cases"})
HEADED = (ast.stmt, ast.ExceptHandler, ast.match_case)
DEEP = 100_000
Position = tuple[int, int]
Header = tuple[Position, Position, str]


def compiles(data: bytes) -> bool:
    """Whether it is a program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(data, "fuzzed.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def lost_comments(before: bytes, after: bytes) -> list[str]:
    """Comments that are not there any more."""
    return sorted((Counter(_comments(before)) - Counter(_comments(after))).elements())


def _comments(data: bytes) -> Iterator[str]:
    try:
        for token in tokenize.tokenize(io.BytesIO(data).readline):
            if token.type == tokenize.COMMENT:
                yield token.string
    except (tokenize.TokenError, SyntaxError):
        return


def change_of_meaning(planned: Planned, document: Document) -> str:
    """What a fix, made alone, changes outside of its edits, or takes away although it only adds; empty if nothing.

    Args:
        planned: the fix.
        document: that it is for.
    """
    after = document.edited(planned.fix.edits)
    try:
        old, new = ast.parse(document.normal), ast.parse(after.normal)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""  # it is not made then
    edits = [edit for edit in planned.fix.edits if not _is_space(edit, document)]
    with _deep():
        kept = [dump for begin, end, dump in _headers(old, document.lines) if not _is_touched(begin, end, edits)]
        now = [dump for _, _, dump in _headers(new, after.lines)]
    missing = _not_in_order(kept, now)
    if missing is not None:
        return f"outside of the edits: {missing}"
    actions = planned.finding.remedy.actions if isinstance(planned.finding.remedy, Remedy) else ()
    if planned.fix.safety is Safety.SAFE and all(map(_keeps, actions)):
        gone = Counter(_words(document.normal)) - Counter(_words(after.normal))
        if gone:
            return f"words gone: {sorted(gone)}"
    return ""


def _keeps(action: Action) -> bool:
    """Whether every word that was there still is; what is put in place of an expression may say it in other words."""
    return isinstance(action, (Insert, Guard, Decorate)) or (isinstance(action, Rewrite) and "{}" in action.template)


def _words(text: str) -> Iterator[str]:
    """What a program is made of, without what only shapes it."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in {tokenize.NAME, tokenize.NUMBER, tokenize.STRING, tokenize.COMMENT}:
                yield token.string
    except (tokenize.TokenError, SyntaxError):
        return


def _is_space(edit: Edit, document: Document) -> bool:
    """Whether it only moves what stands there."""
    span = edit.span
    if edit.text.strip() or span.line != span.end_line:
        return False
    return not document.lines[span.line - 1][span.column - 1 : span.end_column - 1].strip() if span.line <= len(document.lines) else True


def _is_touched(begin: Position, end: Position, edits: Sequence[Edit]) -> bool:
    return any((e.span.line, e.span.column) < end and (e.span.end_line, e.span.end_column) > begin for e in edits)


def _not_in_order(wanted: Sequence[str], found: Sequence[str]) -> str | None:
    """The first of the wanted ones that is not found after those before it."""
    rest = iter(found)
    return next((one for one in wanted if not any(one == other for other in rest)), None)


def _headers(tree: ast.Module, lines: Sequence[str]) -> Iterator[Header]:
    """Statements, handlers and cases without what is in their blocks: from, to, and what they say."""
    pending: list[ast.AST] = list(reversed(tree.body))
    while pending:
        node = pending.pop()
        inner = [child for name in SUITES for child in _suite(node, name)]
        inner.sort(key=_begin)
        end = _begin(inner[0]) if inner else _end(node)
        # What decorates is said apart: another decorator leaves the function as it is.
        decorators = getattr(node, "decorator_list", [])
        bare = {name: [] if _suite(node, name) or value is decorators else value for name, value in ast.iter_fields(node)}
        begin = _word(node)
        said = [*((_begin(each), _end(each), each) for each in decorators), (begin, end, type(node)(**bare))]
        yield from ((_character(begin, lines), _character(end, lines), ast.dump(each)) for begin, end, each in said)
        pending.extend(reversed(inner))


def _suite(node: ast.AST, name: str) -> list[ast.AST]:
    value = getattr(node, name, None)
    return value if isinstance(value, list) and all(isinstance(child, HEADED) for child in value) else []


def _begin(node: ast.AST) -> Position:
    """Where the word stands, or what decorates it."""
    return min(map(_word, (node, *getattr(node, "decorator_list", ()))))


def _word(node: ast.AST) -> Position:
    place = node.pattern if isinstance(node, ast.match_case) else node
    return place.lineno, place.col_offset  # type: ignore[attr-defined]


def _end(node: ast.AST) -> Position:
    place = node.pattern if isinstance(node, ast.match_case) else node
    return place.end_lineno, place.end_col_offset  # type: ignore[attr-defined]


def _character(position: Position, lines: Sequence[str]) -> Position:
    """Line and column, both from 1, in characters."""
    line, offset = position
    return line, len(lines[line - 1].encode()[:offset].decode(errors="replace")) + 1


@contextmanager
def _deep() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(DEEP)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
