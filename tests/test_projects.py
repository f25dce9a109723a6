"""Every small project is reported at its marked lines and nowhere else, whichever of its files is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.project import FLAKE8_LIMITS, Limits, Project
from flake8_torchmem.catalogue import catalogue
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
