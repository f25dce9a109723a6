"""A whole file in libcst, with the ways between spans and nodes that edits need."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import cache, cached_property
from importlib.metadata import version
from typing import TypeVar

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider

from flake8_torchmem.analysis.engine import collector_paused
from flake8_torchmem.fixes.readable import readable
from flake8_torchmem.model import Finding, Span
from flake8_torchmem.source import parse

Node = TypeVar("Node", bound=cst.CSTNode)
COMPOUND = (cst.For, cst.While, cst.If, cst.With, cst.Try, cst.TryStar, cst.FunctionDef, cst.ClassDef, cst.Match)
# Nodes that no place means, though they begin where one may.
BETWEEN = (
    cst.BaseParenthesizableWhitespace, cst.Newline, cst.TrailingWhitespace, cst.EmptyLine, cst.Comment, cst.LeftParen, cst.Comma,
    cst.IndentedBlock, cst.SimpleStatementSuite,
)  # fmt: skip
STATEMENTS = (cst.SimpleStatementLine, *COMPOUND)
_PLACE = re.compile(r"parser error: error at (\d+):")


class Refused(Exception):  # noqa: N818 - a decision, no error
    """An edit that cannot be made; its text is the reason, one clause.

    Args:
        reason: its text.
        come: what it has brought.
    """

    def __init__(self, reason: str, come: Sequence[Finding] = ()) -> None:
        super().__init__(reason)
        self.come = tuple(come)


class Syntax:
    """One parsed file.

    Args:
        text: LF line ends, no byte order mark.

    Raises:
        Refused: libcst cannot take it, or gives back another text.
        SourceError: it is not valid Python.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.lines = text.split("\n")
        if not readable([parse(text)], self.lines):
            raise Refused("the file is nested too deeply for libcst")
        try:
            with collector_paused():
                self.module = cst.parse_module(text)
                wrapper = MetadataWrapper(self.module, unsafe_skip_copy=True)
                self._positions: Mapping[cst.CSTNode, CodeRange] = wrapper.resolve(PositionProvider)
        except cst.ParserSyntaxError as error:
            said = _PLACE.match(error.message)  # its `raw_line` is one too many, but for the last line
            place = f"line {said[1]}" if said else "this file"
            raise Refused(f"libcst {version('libcst')} cannot parse {place}, which Python can: a newer one may") from error
        except RecursionError as error:
            raise Refused("the file is nested too deeply for libcst") from error
        if self.module.code != text:
            raise Refused("libcst would give this file back changed")

    @cached_property
    def parents(self) -> dict[cst.CSTNode, cst.CSTNode]:
        """Every node's parent."""
        found: dict[cst.CSTNode, cst.CSTNode] = {}
        pending: list[cst.CSTNode] = [self.module]
        while pending:
            node = pending.pop()
            for child in children(node):
                found[child] = node
                pending.append(child)
        return found

    @cached_property
    def _by_start(self) -> dict[tuple[int, int], list[cst.CSTNode]]:
        found: dict[tuple[int, int], list[cst.CSTNode]] = {}
        for node in self.parents:
            place = self._positions.get(node)
            if place is not None and not isinstance(node, BETWEEN):
                found.setdefault((place.start.line, place.start.column + 1), []).append(node)
        return found

    def span(self, node: cst.CSTNode) -> Span:
        """Where a node stands, parentheses around it left out."""
        place = self._positions[node]
        return Span(place.start.line, place.start.column + 1, place.end.line, place.end.column + 1)

    def source(self, node: cst.CSTNode) -> str:
        """The text of a node, as it is written, parentheses around it left out."""
        return self.between(self.span(node))

    def whole(self, node: cst.BaseExpression) -> str:
        """The text of an expression, parentheses around it counted in."""
        span = self.span(node)
        if node.lpar:
            begin, end = self.span(node.lpar[0]), self.span(node.rpar[-1])
            span = Span(begin.line, begin.column, end.end_line, end.end_column)
        return self.between(span)

    def between(self, span: Span) -> str:
        """The text of a span."""
        kept = self.lines[span.line - 1 : span.end_line]
        kept[-1] = kept[-1][: span.end_column - 1]
        kept[0] = kept[0][span.column - 1 :]
        return "\n".join(kept)

    def find(self, span: Span, *kinds: type[Node]) -> Node:
        """The outermost node of one of these kinds at a span: with its end as well, or the only one of a compound statement.

        Raises:
            Refused: there is none.
        """
        here = [node for node in self._by_start.get((span.line, span.column), ()) if isinstance(node, kinds)]
        exact = [node for node in here if self.span(node) == span]
        for node in exact or [node for node in here if isinstance(node, COMPOUND)]:
            return node
        raise Refused("the place was not found again in the syntax")

    def has(self, span: Span, *kinds: type[cst.CSTNode]) -> bool:
        """Whether a node of one of these kinds is at a span."""
        return any(isinstance(node, kinds) and self.span(node) == span for node in self._by_start.get((span.line, span.column), ()))

    def expression(self, span: Span) -> cst.BaseExpression:
        """The outermost expression at a span."""
        found = (node for node in self._by_start.get((span.line, span.column), ()) if self.span(node) == span)
        for node in found:
            if isinstance(node, cst.BaseExpression):
                return node
        raise Refused("the expression was not found again in the syntax")

    def statement(self, span: Span) -> cst.CSTNode:
        """The statement that a span lies in, the innermost one: a line of simple statements, or a compound one."""
        node = next((node for node in self._by_start.get((span.line, span.column), ()) if self.span(node).end_line <= span.end_line), None)
        if node is None:
            node = next(iter(self._by_start.get((span.line, span.column), ())), self.module)
        for around in self.around(node):
            if isinstance(around, (*STATEMENTS, cst.SimpleStatementSuite)):
                return around
        raise Refused("the statement was not found again in the syntax")

    def around(self, node: cst.CSTNode) -> Iterator[cst.CSTNode]:
        """The node and what it stands in, innermost first."""
        current: cst.CSTNode | None = node
        while current is not None:
            yield current
            current = self.parents.get(current)

    def block(self, statement: cst.CSTNode) -> Sequence[cst.CSTNode]:
        """The statements of the block that a statement is one of."""
        parent = self.parents[statement]
        body = getattr(parent, "body", ())
        return body if isinstance(body, Sequence) else ()

    def indent(self, line: int) -> str:
        """The white space that a line begins with."""
        text = self.lines[line - 1]
        return text[: len(text) - len(text.lstrip(" \t\f"))].replace("\f", "")

    @property
    def step(self) -> str:
        """One level of indentation."""
        return str(self.module.default_indent)


@cache
def _names(kind: type[cst.CSTNode]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


def children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """Direct children, in the order of their fields."""
    for name in _names(type(node)):
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, cst.CSTNode))
