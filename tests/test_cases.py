"""Every snippet of the tables is reported at its marked lines and nowhere else, by no rule."""

from __future__ import annotations

import ast

import pytest

from flake8_torchmem.analysis import gate
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.rules import rule_modules
from tests.cases import Case, expected, load

CODES = frozenset(rule_modules()) | {"TM900"}
CASES = list(load())


def found(source: str) -> set[tuple[int, str]]:
    return {(finding.span.line, finding.code) for finding in check_text(source, "case.py", CODES)}


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(case: Case) -> None:
    marks = expected(case.source)
    assert case.fires == bool(marks), "the header and the marks disagree"
    assert found(case.source) == marks


@pytest.mark.parametrize("table", sorted({case.table for case in CASES}))
def test_gates_lose_no_finding(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in whole files is found in the slices that the gates let through."""
    sources = [case.source for case in CASES if case.table == table]
    through = [found(source) for source in sources]
    monkeypatch.setattr(gate, "select", everything)
    assert through == [found(source) for source in sources]


def everything(text: str, tree: ast.Module) -> gate.Selection:
    """A selection of all lines."""
    bases = {node.name: tuple(map(ast.unparse, node.bases)) for node in tree.body if isinstance(node, ast.ClassDef)}
    return gate.Selection([(1, text.count("\n") + 2)], tree.body, gate.imports(tree), bases)


def test_findings_do_not_depend_on_what_stands_around() -> None:
    """All cases of a table in one file: each function is judged alone, gates and slices in between."""
    for case in (case for case in CASES if case.fires and case.source.count("\ndef ") <= 1):
        padding = "\n".join(f"TABLE_{number} = [{', '.join(map(str, range(40)))}]" for number in range(30))
        moved = f"{padding}\n\n\ndef unrelated(values):\n    return [value for value in values]\n\n\n{case.source}"
        assert found(moved) == expected(moved), case.id
