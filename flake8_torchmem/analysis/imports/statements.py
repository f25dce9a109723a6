"""The import statements of a syntax tree."""

from __future__ import annotations

import ast

SUITES = ("body", "orelse", "handlers", "finalbody", "cases")
_SUITES_OF: dict[type[ast.AST], tuple[str, ...]] = {}  # most statements have none


def imports(tree: ast.Module) -> tuple[dict[str, str], dict[str, tuple[int, str]]]:
    """What imported names stand for, imports inside functions and `if`s included.

    Returns:
        local name to full dotted name, of relative imports what follows the dots; and of those the number of dots with it.
    """
    found: dict[str, str] = {}
    relative: dict[str, tuple[int, str]] = {}
    for node in _import_statements(tree):
        for alias in node.names:
            local = alias.asname or alias.name
            if isinstance(node, ast.Import):
                found[alias.asname or local.partition(".")[0]] = alias.name if alias.asname else local.partition(".")[0]
                continue
            found[local] = f"{node.module or ''}.{alias.name}".lstrip(".")
            if node.level:
                relative[local] = node.level, found[local]
    return found, relative


def _import_statements(tree: ast.Module) -> list[ast.Import | ast.ImportFrom]:
    found: list[ast.Import | ast.ImportFrom] = []
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found.append(node)
        else:
            kind = type(node)
            suites = _SUITES_OF.get(kind)
            if suites is None:
                suites = _SUITES_OF[kind] = tuple(suite for suite in SUITES if suite in kind._fields)
            for suite in suites:
                pending.extend(getattr(node, suite))
    return found
