"""From numbered syntax back to the ast, in the order in which `analysis.lower` numbers it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flake8_torchmem.analysis.ir import Site

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
COUNTED = (ast.Call, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


class Positions:
    """Finds statements and expressions by their numbers.

    Args:
        body: the statements that were lowered, in that order.
    """

    def __init__(self, body: Sequence[ast.stmt]) -> None:
        self._statements = list(_statements(body))

    def find(self, site: Site) -> ast.AST | None:
        """The reported node: of an `if` its test; the whole statement when its expressions do not count the same in both trees."""
        if not 0 <= site.mark.number < len(self._statements):
            return None
        statement = self._statements[site.mark.number]
        if site.rank is None:
            return statement.test if isinstance(statement, ast.If) else statement
        if site.decorator:
            return statement.decorator_list[site.rank]  # type: ignore[attr-defined, no-any-return]
        found = [node for node in _expressions(statement) if isinstance(node, COUNTED)]
        return found[site.rank] if len(found) == site.mark.expressions else statement


def _statements(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements, parents first, suites in the order of lowering."""
    for node in body:
        yield node
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, FUNCTIONS):
                    yield method
                    yield from _statements(method.body)
            continue
        for suite in _suites(node):
            yield from _statements(suite)


def _suites(node: ast.stmt) -> Iterator[Sequence[ast.stmt]]:
    if isinstance(node, ast.Match):
        yield from (case.body for case in node.cases)
        return
    yield getattr(node, "body", ())
    yield getattr(node, "orelse", ())
    yield from (handler.body for handler in getattr(node, "handlers", ()))
    yield getattr(node, "finalbody", ())


def _expressions(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions of a statement or expression, parents first, in the order of lowering."""
    pending = list(reversed(_parts(node)))
    while pending:
        current = pending.pop()
        yield current
        pending.extend(reversed(_parts(current)))


def _parts(node: ast.AST) -> list[ast.AST]:
    """Direct parts in the order in which they are evaluated; what is not lowered is left out."""
    order = ORDER.get(type(node))
    if order is not None:
        return [part for field in order for part in _as_list(getattr(node, field)) if part is not None]
    if isinstance(node, ast.Call):
        plain = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg is None)]
        plain.sort(key=lambda part: (part.lineno, part.col_offset))
        return [node.func, *plain, *(keyword.value for keyword in node.keywords if keyword.arg is not None)]
    if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
        clauses = [part for clause in node.generators for part in (clause.iter, clause.target, *clause.ifs)]
        return [*clauses, *((node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,))]
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return [item.context_expr for item in node.items]
    return [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.expr)]


def _as_list(value: object) -> list[ast.AST]:
    return value if isinstance(value, list) else [value]  # type: ignore[list-item]


ORDER: dict[type[ast.AST], tuple[str, ...]] = {
    ast.Assign: ("value", "targets"), ast.AnnAssign: ("value", "target"), ast.AugAssign: ("value", "target"),
    ast.For: ("iter",), ast.AsyncFor: ("iter",), ast.Assert: ("test",), ast.Raise: ("exc",), ast.Match: ("subject",),
    ast.FunctionDef: (), ast.AsyncFunctionDef: (), ast.ClassDef: (), ast.Lambda: ("body",),
    ast.IfExp: ("test", "body", "orelse"), ast.NamedExpr: ("value", "target"), ast.FormattedValue: ("value",),
    ast.Dict: ("keys", "values"),
}  # fmt: skip
