"""A check leaves nothing to the cycle collector: what it made goes at once, and flake8's own collections stay as short as they were."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.imports.project import FLAKE8_LIMITS, Limits, Project
from flake8_torchmem.rules import rule_codes
from flake8_torchmem.source import decode
from tests.samples import BOTH

FIXTURES = sorted((Path(__file__).parent.parent / "fixtures").glob("TM*/**/*.py"))
CODES = rule_codes()


@contextmanager
def uncollected() -> Iterator[list[object]]:
    """Gets the objects of this package that nothing but themselves keeps alive when the block ends."""
    found: list[object] = []
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        found += [thing for thing in gc.garbage if type(thing).__module__.startswith("flake8_torchmem.")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("fixing", [False, True])
def test_fixtures_leave_nothing(fixing: bool) -> None:
    texts = [(str(path), decode(path.read_bytes())) for path in FIXTURES]
    with uncollected() as left:
        for path, text in texts:
            check_text(text, path, CODES, whole=fixing)
    assert left == []
    assert len(texts) > 80


def test_callers_in_other_files_leave_nothing(tmp_path: Path) -> None:
    """What is read of them is no part of the project's memory, as definitions are that the file imports."""
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "engine.py").write_text(BOTH + "\n\nclass Engine:\n    def run(self, *given):\n        return train(*given)\n")
    user = "import torch\nimport engine\n\n\ndef main(model, loader, criterion, optimizer):\n    for _ in range(9):\n"
    (tmp_path / "main.py").write_text(user + "        engine.train(model, loader, criterion, optimizer)\n")
    project, path = Project(), tmp_path / "engine.py"
    found = check_text(path.read_text(), str(path), CODES, project=project)
    with uncollected() as left:
        assert check_text(path.read_text(), str(path), CODES, project=project) == found
    assert {finding.code for finding in found} >= {"TM101", "TM201"}
    assert left == []


def test_as_many_lowered_definitions_are_kept_as_the_limit_says(tmp_path: Path) -> None:
    names = [f"f{index}" for index in range(9)]
    (tmp_path / "pyproject.toml").write_text("")
    (tmp_path / "lib.py").write_text("\n\n".join(f"def {name}(x):\n    return x.detach()\n" for name in names))
    path = tmp_path / "train.py"
    header = f"import torch\nfrom lib import {', '.join(names)}"
    calls = "".join(f"        loss = {name}(loss)\n" for name in names)
    path.write_text(BOTH.replace("import torch", header).replace("        total += loss\n", calls))
    for limit, kept in ((4, 4), (FLAKE8_LIMITS.lowered, 9)):
        project = Project(Limits(lowered=limit))
        check_text(path.read_text(), str(path), CODES, project=project)
        assert len(project._definitions) == kept
