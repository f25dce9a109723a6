"""Moving a definition to another file of the project does not change what is reported, here or there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.catalogue import catalogue
from tests.cases import Case, load

DEFAULT = frozenset(code for code, rule in catalogue().items() if rule.default)
# Evidence that is looked for in one file: the hook and what it fills, a reduction and the window, a data set and its loader, and the
# guard around the call of what collects.
FILE_BOUND = frozenset({"TM106", "TM203", "TM209", "TM304"})


@dataclass(frozen=True)
class Move:
    """A snippet, and the two files that it becomes when one of its definitions moves out."""

    case: Case
    name: str
    files: dict[str, str]


def moves() -> Iterator[Move]:
    """Every top-level definition that needs no variable of its module and is named by another one, or names one, moved away.

    What nothing names is in sight by being in the file alone: a model that is only ever a parameter.
    """
    for case in load():
        tree = ast.parse(case.source)
        definitions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        variables = {name for node in tree.body if isinstance(node, (ast.Assign, ast.AnnAssign)) for name in _names(node)}
        for node in definitions if len(definitions) > 1 else ():
            others = {other.name for other in definitions} - {node.name}
            named = any(node.name in _names(other) for other in tree.body if other is not node)
            if not _names(node) & variables and (named or _names(node) & others):
                yield Move(case, node.name, _split(case.source, tree, node, {other.name for other in definitions}))


def _split(source: str, tree: ast.Module, node: ast.FunctionDef | ast.ClassDef, defined: set[str]) -> dict[str, str]:
    lines = source.split("\n")
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1
    imports = [ast.get_source_segment(source, other) or "" for other in tree.body if isinstance(other, (ast.Import, ast.ImportFrom))]
    back = [f"from main import {name}" for name in sorted((_names(node) & defined) - {node.name})]
    return {
        "main.py": "\n".join([*lines[:first], f"from moved import {node.name}", *lines[node.end_lineno :]]),
        "moved.py": "\n".join([*imports, *back, *lines[first : node.end_lineno], ""]),
    }


def _names(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


MOVES = list(moves())


@pytest.mark.parametrize("move", MOVES, ids=[f"{move.case.id}-{move.name}" for move in MOVES])
def test_moving(move: Move, tmp_path: Path) -> None:
    for path, source in {"pyproject.toml": "", **move.files}.items():
        (tmp_path / path).write_text(source, encoding="utf-8")
    project = Project()
    found = {
        finding.code
        for path, source in move.files.items()
        for finding in check_text(source, str(tmp_path / path), DEFAULT, project=project)
    }
    before = {finding.code for finding in check_text(move.case.source, "case.py", DEFAULT)}
    assert found <= before, "something new is reported"
    assert before - found <= FILE_BOUND, "something is lost"
