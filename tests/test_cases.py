"""Every snippet of the tables is reported at its marked lines and nowhere else, by no rule."""

from __future__ import annotations

import ast
import re

import pytest

from flake8_torchmem.analysis import gate
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.catalogue import catalogue
from tests.cases import Case, expected, load
from tests.ungated import everything

DEFAULT = frozenset(code for code, rule in catalogue().items() if rule.default)
CASES = list(load())


def codes(case: Case) -> frozenset[str]:
    """The rules that a case is held against: those that are on by default, and its table's own."""
    return DEFAULT | ({case.table} & catalogue().keys())


def found(source: str, case: Case) -> set[tuple[int, str]]:
    return {(finding.span.line, finding.code) for finding in check_text(source, "case.py", codes(case))}


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_case(case: Case) -> None:
    marks = expected(case.source)
    assert case.fires == bool(marks), "the header and the marks disagree"
    assert found(case.source, case) == marks


@pytest.mark.parametrize("table", sorted({case.table for case in CASES}))
def test_gates_lose_no_finding(table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in whole files is found in the slices that the gates let through."""
    cases = [case for case in CASES if case.table == table]
    through = [found(case.source, case) for case in cases]
    monkeypatch.setattr(gate, "select", everything)
    assert through == [found(case.source, case) for case in cases]


def test_findings_do_not_depend_on_what_stands_around() -> None:
    """All cases of a table in one file: each function is judged alone, gates and slices in between."""
    for case in (case for case in CASES if case.fires and case.source.count("\ndef ") <= 1):
        padding = "\n".join(f"TABLE_{number} = [{', '.join(map(str, range(40)))}]" for number in range(30))
        moved = f"{padding}\n\n\ndef unrelated(values):\n    return [value for value in values]\n\n\n{case.source}"
        assert found(moved, case) == expected(moved), case.id


SPOTS = {
    "TM101": r"backward", "TM102": r"zero|grad|clear|reset", "TM103": r"step|-=|sub_|add_", "TM104": r"step|-=|sub_|add_",
    "TM105": r"zero|grad|clear|reset", "TM106": r"backward", "TM107": r"%|mod|==|rest", "TM108": r"%|mod|==|rest", "TM109": r"zero_grad",
    "TM110": r"clip", "TM201": r"\+|add_|\(", "TM202": r"append|extend|insert|\[", "TM203": r"append|extend|insert|cat|\[",
    "TM204": r"=|append|\(|return", "TM205": r"\(.*\)$", "TM206": r"backward", "TM207": r"backward", "TM208": r"\(.*\)$",
    "TM209": r"append|extend|=|register", "TM210": r"cat|stack", "TM211": r"\(|=", "TM212": r"state_dict|model", "TM213": r"append|\[|\(",
    "TM214": r"cache", "TM215": r"append|extend|\[|cat", "TM301": r"load\(", "TM302": r"^\S+\(.*\)$", "TM303": r"^\S+\(.*\)$",
    "TM304": r"cuda|to\(|device", "TM305": r"cuda|to\(|device", "TM306": r"\(.*\)$", "TM307": r"=", "TM401": r"empty_cache\(\)$",
    "TM402": r"empty_cache\(\)$", "TM403": r"^(?:async )?(?:for|while)",
}  # fmt: skip


@pytest.mark.parametrize("case", [case for case in CASES if case.fires], ids=[case.id for case in CASES if case.fires])
def test_spans_cover_the_reported_syntax(case: Case) -> None:
    """Lines and columns are those of the call or statement that the rule is about, on every kind of line."""
    lines = case.source.split("\n")
    for finding in check_text(case.source, "case.py", codes(case)):
        span = finding.span
        covered = "\n".join(lines[span.line - 1 : span.end_line])
        covered = covered[span.column - 1 : len(covered) - len(lines[span.end_line - 1]) + span.end_column - 1]
        assert re.search(SPOTS[finding.code], covered, re.S), (finding.code, covered)
        ast.parse(covered.strip())
