"""The checkers of this project's own code, so that one command runs them all."""

from __future__ import annotations

import pytest

from tests.running import REPOSITORY, SCRIPTS, run

COMMANDS = {
    "ruff": ["ruff", "check", "."],
    "ruff-format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_clean(name: str) -> None:
    program, *arguments = COMMANDS[name]
    result = run([str(SCRIPTS / program), *arguments], REPOSITORY)
    assert result.status == 0, f"{result.out}{result.err}"
