"""Fixtures and rule pages: bad fires where it is marked, good and fixed are silent, the pages' examples hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flake8_torchmem import fix_source
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.model import Safety
from flake8_torchmem.rules import rule_modules
from flake8_torchmem.settings import Settings
from tests.cases import expected

FIXTURES = Path(__file__).parent.parent / "fixtures"
FOLDERS = sorted(path for path in FIXTURES.iterdir() if path.is_dir() and path.name.startswith("TM"))
DEFAULT = frozenset(code for code, rule in catalogue().items() if rule.default)
MARK = re.compile(r"  # expect: [\w, ]+$", re.M)
EXAMPLE = re.compile(r"```python\n(.*?)```", re.S)


def found(source: str, code: str) -> set[tuple[int, str]]:
    """What the rules that are on by default find, and the rule that the source is about."""
    return {(finding.span.line, finding.code) for finding in check_text(source, "case.py", DEFAULT | {code})}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
@pytest.mark.parametrize("name", ["bad.py", "good.py", "fixed.py"])
def test_fixture(folder: Path, name: str) -> None:
    source = (folder / name).read_text(encoding="utf-8")
    marks = expected(source)
    assert bool(marks) == (name == "bad.py")
    assert found(source, folder.name[:5]) == marks


FIXABLE = [folder for folder in FOLDERS if catalogue()[folder.name[:5]].safety is not Safety.DISPLAY]


@pytest.mark.parametrize("folder", FIXABLE, ids=lambda path: path.name)
def test_the_fix_makes_fixed_of_bad(folder: Path) -> None:
    code = folder.name[:5]
    bad, wanted = ((folder / name).read_text(encoding="utf-8") for name in ("bad.py", "fixed.py"))
    outcome = fix_source(bad, settings=Settings(select=(code,)), unsafe=True)
    assert MARK.sub("", outcome.document.text) == wanted
    assert not outcome.left
    again = fix_source(outcome.document.text, settings=Settings(select=(code,)), unsafe=True)
    assert again.document.text == outcome.document.text


@pytest.mark.parametrize("code", rule_modules())
def test_page_example(code: str) -> None:
    """The first example of a page is what the rule finds, the second is how it should be."""
    page = rule_modules()[code].__doc__ or ""
    bad, good = EXAMPLE.findall(page)[:2]
    assert code in {finding[1] for finding in found(bad, code)}
    assert not found(good, code)
