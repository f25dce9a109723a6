"""Real processes for end-to-end tests."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = Path(sysconfig.get_path("scripts"))  # not `python -m`: that would import from the folder under test
TIMEOUT = 120


@dataclass(frozen=True)
class Result:
    """What a process left behind."""

    status: int
    out: str
    err: str


def run(command: list[str], cwd: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None, timeout: float = TIMEOUT) -> Result:
    done = subprocess.run(
        command, cwd=cwd, input=stdin, env={**os.environ, **(env or {})}, capture_output=True, timeout=timeout, check=False
    )
    return Result(done.returncode, done.stdout.decode("utf-8"), done.stderr.decode("utf-8"))


def torchmem(*arguments: str, cwd: Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Result:
    return run([str(SCRIPTS / "torchmem"), *arguments], cwd, stdin, env)


def flake8(*arguments: str, cwd: Path, stdin: bytes = b"") -> Result:
    return run([str(SCRIPTS / "flake8"), "--isolated", *arguments], cwd, stdin)
