"""Every small project is reported at its marked lines and nowhere else, whichever of its files is checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.facts import FileFacts
from flake8_torchmem.analysis.imports.project import FLAKE8_LIMITS, Limits, Project
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.rules import rule_modules
from flake8_torchmem.rules.base import Report
from flake8_torchmem.rules.internal import INTERNAL_ERROR
from tests.cases import expected
from tests.projects import ProjectCase, load

CODES = frozenset(code for code, rule in catalogue().items() if rule.default)
CASES = list(load())


@pytest.mark.parametrize("limits", [Limits(), FLAKE8_LIMITS], ids=["torchmem", "flake8"])
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_project(case: ProjectCase, limits: Limits, tmp_path: Path) -> None:
    case.write(tmp_path)
    project = Project(limits)
    assert case.fires == any(expected(source) for source in case.files.values()), "the header and the marks disagree"
    for path, source in case.files.items():
        found = check_text(source, str(tmp_path / path), CODES, project=project)
        assert {(finding.span.line, finding.code) for finding in found} == expected(source), path


def test_a_failure_over_callers_takes_nothing_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that fails once callers in other files have joined says so, and its findings stay."""
    case = next(case for case in CASES if case.title == "one function of another file calls two that are wrong")
    case.write(tmp_path)
    rule = rule_modules()["TM101"]
    check = rule.check

    def failing(facts: FileFacts) -> Iterable[Report]:
        if facts.program.outside:
            raise ZeroDivisionError
        return check(facts)

    monkeypatch.setattr(rule, "check", failing)
    source = case.files["engine.py"]
    found = check_text(source, str(tmp_path / "engine.py"), CODES | {INTERNAL_ERROR.code}, project=Project())
    assert {(finding.span.line, finding.code) for finding in found} == expected(source) | {(1, INTERNAL_ERROR.code)}
