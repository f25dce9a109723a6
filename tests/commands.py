"""The `torchmem` command in this process: many short runs cost little then."""

from __future__ import annotations

import inspect
from typing import Any

import click
from click.testing import CliRunner

from flake8_torchmem.cli import torchmem
from tests.running import Result

# click before 8.2 mixes the two streams unless it is told not to.
SEPARATE: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def command(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Result:
    """A run in the working directory, with the status that the real command has."""
    done = CliRunner(**SEPARATE).invoke(torchmem, list(arguments), stdin, env, standalone_mode=False)
    if isinstance(done.exception, click.ClickException):
        return Result(2, done.stdout, f"{done.stderr}Error: {done.exception.format_message()}\n")
    assert done.exception is None, done.output
    return Result(done.return_value, done.stdout, done.stderr)


def reported(result: Result) -> list[str]:
    """Place and code of each finding in a text report."""
    return [" ".join(line.split(" ", 2)[:2]) for line in result.out.splitlines() if " TM" in line]
