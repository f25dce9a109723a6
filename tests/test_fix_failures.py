"""What fixes do where the analyzer itself fails: nothing, and say so."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from flake8_torchmem.analysis import gate
from flake8_torchmem.fixes import Document, Outcome, fix_document
from flake8_torchmem.settings import Settings
from tests.commands import command
from tests.samples import BOTH, LEAKY


def fails(*_: object, **__: object) -> NoReturn:
    raise LookupError("nothing there")


def fixed(text: str) -> Outcome:
    return fix_document(Document(text, "utf-8"), "both.py", Settings(), unsafe=True)


def test_a_look_at_the_whole_file_that_fails_leaves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found in the parts that matter is said; who edits would have to know the rest."""
    monkeypatch.setattr(gate, "everything", fails)
    outcome = fixed(BOTH)
    assert outcome.document.text == BOTH
    assert not outcome.fixed
    assert [(left.finding.code, left.reason) for left in outcome.left] == [
        ("TM101", "the rest of the file could not be checked: LookupError: nothing there"),
        ("TM201", "the rest of the file could not be checked: LookupError: nothing there"),
    ]


def test_a_look_that_fails_once_a_fix_is_made_takes_the_fix_back(monkeypatch: pytest.MonkeyPatch) -> None:
    select = gate.select
    monkeypatch.setattr(gate, "select", lambda text, *rest: fails() if ".detach()" in text else select(text, *rest))
    outcome = fixed(LEAKY)
    assert outcome.document.text == LEAKY
    assert [(left.finding.code, left.reason) for left in outcome.left] == [("TM201", "the edit would bring TM900 on line 1")]


def test_a_remedy_that_fails_hides_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flake8_torchmem.analysis.mended.Mending.summed", fails)
    outcome = fixed(BOTH)
    assert "optimizer.zero_grad()" in outcome.document.text
    assert [(left.finding.code, left.reason) for left in outcome.left] == [
        ("TM201", "what would mend it failed (LookupError('nothing there'))")
    ]


def test_the_command_says_what_failed_and_writes_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gate, "everything", fails)
    (tmp_path / "leaky.py").write_text(LEAKY)
    result = command("fix", ".")
    assert "the rest of the file could not be checked: LookupError: nothing there" in result.out + result.err
    assert (tmp_path / "leaky.py").read_text() == LEAKY
