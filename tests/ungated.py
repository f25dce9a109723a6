"""What the gates are held against: whole files."""

from __future__ import annotations

import ast

from flake8_torchmem.analysis import gate, units
from flake8_torchmem.analysis.imports.statements import imports
from flake8_torchmem.ownnames import OwnNames


def everything(text: str, tree: ast.Module, _codes: frozenset[str], _own: OwnNames) -> gate.Selection:
    """A selection of all lines, for `gate.select`."""
    names, _ = imports(tree)
    bases = {node.name: tuple(map(ast.unparse, node.bases)) for node in tree.body if isinstance(node, ast.ClassDef)}
    body = sorted(tree.body, key=lambda node: isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)))
    ranges = [(units.first_line(node), (node.end_lineno or 0) + 1) for node in body]
    return gate.Selection(ranges, body, names, bases, frozenset(), {})
