"""Bytes in: decoding, parsing, libcst for the slices that matter, and the way back from syntax to positions."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from flake8_torchmem.model import Span

if TYPE_CHECKING:
    import libcst as cst

    from flake8_torchmem.analysis.gate import Selection
    from flake8_torchmem.analysis.ir import Site


class SourceError(Exception):
    """A file that is no Python source: `str()` is the cause in one line, `line` is where, if that is known."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


def decode(data: bytes) -> str:
    """Source text with LF line ends and no byte order mark.

    Raises:
        SourceError: the bytes are not text in the declared encoding, or hold a NUL.
    """
    nul = data.find(b"\0")
    if nul >= 0:
        raise SourceError("the file holds a NUL byte", data.count(b"\n", 0, nul) + 1)
    try:
        encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(f"not valid {error.encoding}, and no encoding cookie says otherwise", line) from None
    except (SyntaxError, LookupError) as error:
        raise SourceError(str(error).splitlines()[0]) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse(text: str) -> ast.Module:
    """The syntax tree of a text.

    Raises:
        SourceError: it is not valid Python for the running interpreter, or nested too deeply for it.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise SourceError(f"syntax error: {error.msg}", error.lineno) from None
    except (RecursionError, MemoryError):
        raise SourceError("nested too deeply to be parsed") from None
    except ValueError as error:
        raise SourceError(str(error)) from None


class Slices:
    """The libcst of the selected lines of a file.

    Args:
        text: the whole file.
        selection: which lines, and the ast of what is on them.
    """

    def __init__(self, text: str, selection: Selection) -> None:
        import libcst

        self._lines = text.split("\n")
        self._selection = selection
        kept = (self._lines[line - 1] for first, end in selection.ranges for line in range(first, end))
        self.module: cst.Module = libcst.parse_module("\n".join(kept) + "\n")
        self._statements: dict[int, ast.AST] | None = None

    def locate(self, site: Site) -> Span | None:
        """The position of reported syntax, None when the two trees do not pair."""
        if self._statements is None:
            self._statements = {id(a): b for a, b in _pair_bodies(self.module.body, self._selection.body)}
        statement = self._statements.get(id(site.statement))
        if statement is None:
            return None
        node = statement if site.node is site.statement else _counterpart(site.statement, site.node, statement)
        return self._span(node)

    def _span(self, node: ast.AST) -> Span:
        line, end = node.lineno, node.end_lineno or node.lineno  # type: ignore[attr-defined]
        start_column = self._column(line, node.col_offset)  # type: ignore[attr-defined]
        return Span(line, start_column, end, self._column(end, node.end_col_offset or 0))  # type: ignore[attr-defined]

    def _column(self, line: int, offset: int) -> int:
        """1-based characters from 0-based UTF-8 bytes."""
        text = self._lines[line - 1]
        return (offset if text.isascii() else len(text.encode()[:offset].decode(errors="replace"))) + 1


def _flat(body: object) -> list[cst.CSTNode]:
    """The statements of a suite, one by one."""
    statements: Iterable[cst.CSTNode] = getattr(body, "body", body)  # type: ignore[arg-type]
    flat: list[cst.CSTNode] = []
    for statement in statements:
        flat.extend(statement.body if type(statement).__name__ == "SimpleStatementLine" else (statement,))  # type: ignore[attr-defined]
    return flat


def _pair_bodies(first: object, second: Sequence[ast.AST]) -> Iterator[tuple[cst.CSTNode, ast.AST]]:
    """Statements of both trees, in step; a suite whose lengths differ is left out."""
    pending: list[tuple[object, Sequence[ast.AST]]] = [(first, second)]
    while pending:
        concrete, abstract = pending.pop()
        flat = _flat(concrete)
        if len(flat) != len(abstract):
            continue
        for node, other in zip(flat, abstract, strict=True):
            yield node, other
            pending.extend(_inner_bodies(node, other))


def _inner_bodies(node: cst.CSTNode, other: ast.AST) -> Iterator[tuple[object, Sequence[ast.AST]]]:
    """The suites of a compound statement, paired."""
    if not hasattr(other, "body") and not hasattr(other, "cases"):
        return
    if hasattr(other, "cases"):
        for case, match in zip(node.cases, other.cases, strict=False):  # type: ignore[attr-defined]
            yield case.body, match.body
        return
    yield node.body, other.body  # type: ignore[attr-defined]
    orelse = getattr(node, "orelse", None)
    if orelse is not None:
        yield ([orelse] if type(orelse).__name__ == "If" else orelse.body), other.orelse  # type: ignore[attr-defined]
    for handler, other_handler in zip(getattr(node, "handlers", ()), getattr(other, "handlers", ()), strict=False):
        yield handler.body, other_handler.body
    if getattr(node, "finalbody", None) is not None:
        yield node.finalbody.body, other.finalbody  # type: ignore[attr-defined]


def _counterpart(statement: object, node: object, other: ast.AST) -> ast.AST:
    """The ast expression at the same rank among the statement's own expressions of its kind."""
    kind = type(node).__name__
    concrete = [found for found in _own_expressions(statement) if type(found).__name__ == kind]
    abstract = [found for found in _own_ast_expressions(other) if type(found).__name__ == kind]
    rank = next((index for index, found in enumerate(concrete) if found is node), None)
    return other if rank is None or len(concrete) != len(abstract) else abstract[rank]


def _own_expressions(statement: object) -> Iterator[object]:
    """CST nodes of a statement in source order, its suites left out."""
    pending: list[object] = [statement]
    while pending:
        node = pending.pop()
        yield node
        children = [child for child in node.children if type(child).__name__ not in SUITES or node is not statement]  # type: ignore[attr-defined]
        pending.extend(reversed(children))


SUITES = frozenset(
    {"IndentedBlock", "SimpleStatementSuite", "Else", "Finally", "ExceptHandler", "ExceptStarHandler", "If", "MatchCase", "Decorator"}
)


def _own_ast_expressions(statement: ast.AST) -> Iterator[ast.AST]:
    """ast expressions of a statement in source order, its suites left out."""
    pending: list[ast.AST] = [statement]
    while pending:
        node = pending.pop()
        yield node
        children = [child for child in _ordered(node) if not isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case))]
        pending.extend(reversed(children))


def _ordered(node: ast.AST) -> list[ast.AST]:
    """Children in source order, where the fields are not."""
    if isinstance(node, ast.Call):
        arguments: list[ast.AST] = [*node.args, *node.keywords]
        return [node.func, *sorted(arguments, key=lambda arg: (getattr(arg, "lineno", 0), getattr(arg, "col_offset", 0)))]
    if isinstance(node, ast.IfExp):
        return [node.body, node.test, node.orelse]
    if isinstance(node, ast.Dict):
        return [part for pair in zip(node.keys, node.values, strict=True) for part in pair if part is not None]
    return list(ast.iter_child_nodes(node))
