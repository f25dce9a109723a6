"""Every case of the tables of fixes: what comes out, that it is clean and final, and that line ends and tabs are kept."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest

from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.fixes import Document, Outcome, fix_document
from flake8_torchmem.model import Safety
from flake8_torchmem.settings import Settings
from tests.fixes import FixCase, load

CASES = list(load())
MENDED = [case for case in CASES if not case.kind.startswith("left")]
AT_LEAST = 12
SPACES = re.compile(r"^((?: {4})+)(?! )", re.MULTILINE)

cases = pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
mended = pytest.mark.parametrize("case", MENDED, ids=[case.id for case in MENDED])


def fixed(source: str, case: FixCase) -> Outcome:
    return fix_document(Document(source, "utf-8"), "case.py", Settings(select=(case.code,)), unsafe=case.unsafe)


@cases
def test_case(case: FixCase) -> None:
    outcome = fixed(case.before, case)
    if case.kind.startswith("left"):
        assert outcome.document.text == case.before
        assert [left.reason for left in outcome.left] == case.after.splitlines()
    else:
        assert outcome.document.text == case.after
        assert not outcome.left
        assert outcome.fixed
        assert {safety for _, safety in outcome.fixed} == {Safety(case.kind)}


@mended
def test_fixing_twice_changes_nothing(case: FixCase) -> None:
    outcome = fixed(case.after, case)
    assert outcome.document.text == case.after
    assert not outcome.fixed


@mended
def test_line_ends_and_tabs_are_kept(case: FixCase) -> None:
    ast.parse(case.after)
    assert fixed(case.before.replace("\n", "\r\n"), case).document.text == case.after.replace("\n", "\r\n")
    marked = fixed("\ufeff" + case.before, case).document
    assert marked.text == "\ufeff" + case.after
    if not _has_spaces_in_continuations(case.before + case.after):
        tabs = fixed(_tabbed(case.before), case).document.text
        assert tabs == _tabbed(case.after)


@mended
def test_a_noqa_comment_leaves_everything_as_it_is(case: FixCase) -> None:
    lines = [f"{line}  # noqa" if line.strip() and not line.rstrip().endswith(("\\", '"""')) else line for line in case.before.splitlines()]
    source = "\n".join(lines) + "\n"
    assert fixed(source, case).document.text == source


@pytest.mark.parametrize("code", [code for code, rule in catalogue().items() if rule.safety is not Safety.DISPLAY])
def test_there_are_cases_enough(code: str) -> None:
    assert Counter(case.code for case in MENDED)[code] >= AT_LEAST


def _tabbed(source: str) -> str:
    return SPACES.sub(lambda match: "\t" * (len(match[1]) // 4), source)


def _has_spaces_in_continuations(source: str) -> bool:
    """Whether some line is indented by something else than whole levels."""
    return bool(re.search(r"^(?: {4})* {1,3}(?! )", source, re.MULTILINE)) or '"""' in source
