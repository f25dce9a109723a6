"""The hooks through the real pre-commit, from a clone of this project, on a repository of a user."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.running import REPOSITORY, SCRIPTS
from tests.samples import CLEAN, LEAKY

CONFIG = """\
repos:
  - repo: {project}
    rev: {revision}
    hooks:
      - id: torchmem-check
      - id: torchmem-fix
  - repo: local
    hooks:
      - id: flake8
        name: flake8
        entry: flake8 --select=TM
        language: python
        types: [python]
        additional_dependencies: [flake8, "{project}"]
"""
NO_INDEX = re.compile(r"No matching distribution|ConnectionError|NewConnectionError|Temporary failure in name resolution")
IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(*arguments: str, cwd: Path) -> str:
    environment = {**os.environ, **IDENTITY}
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True, env=environment)
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with this project's files as they are now."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("flake8_torchmem", "README.md", "LICENSE", "pyproject.toml", "hatch_build.py", ".pre-commit-hooks.yaml"):
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    git("init", "-q", cwd=folder)
    git("add", ".", cwd=folder)
    git("commit", "-q", "-m", "all", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pre-commit")


@pytest.fixture
def user(tmp_path: Path, project: Path) -> Path:
    (tmp_path / ".pre-commit-config.yaml").write_text(
        CONFIG.format(project=project, revision=git("rev-parse", "HEAD", cwd=project).strip())
    )
    (tmp_path / "train.py").write_text(LEAKY)
    (tmp_path / "notes.txt").write_text(LEAKY)
    git("init", "-q", cwd=tmp_path)
    git("add", ".", cwd=tmp_path)
    return tmp_path


def hook(name: str, user: Path, home: Path) -> tuple[int, str]:
    environment = {**os.environ, "PRE_COMMIT_HOME": str(home), "PRE_COMMIT_COLOR": "never"}
    command = [str(SCRIPTS / "pre-commit"), "run", name, "--all-files", "--verbose"]
    done = subprocess.run(command, cwd=user, capture_output=True, text=True, check=False, env=environment, timeout=600)
    if done.returncode and NO_INDEX.search(done.stdout + done.stderr):
        pytest.skip("there is no package index to install the hook's environment from")
    return done.returncode, done.stdout + done.stderr


def test_the_hooks_check_and_mend(user: Path, home: Path) -> None:
    status, output = hook("torchmem-check", user, home)
    assert status == 1, output
    assert "train.py:11:9: TM201" in output
    assert "notes.txt" not in output
    status, output = hook("torchmem-fix", user, home)
    assert status == 1, output
    assert "train.py:11:9: TM201 [loss-accumulated] fixed (safe)" in output
    assert "files were modified by this hook" in output
    for name in ("torchmem-check", "torchmem-fix"):
        status, output = hook(name, user, home)
        assert status == 0, output


def test_the_plugin_runs_under_a_flake8_hook(user: Path, home: Path) -> None:
    status, output = hook("flake8", user, home)
    assert status == 1, output
    assert "train.py:11:9: TM201 [loss-accumulated]" in output
    (user / "train.py").write_text(CLEAN)
    status, output = hook("flake8", user, home)
    assert status == 0, output
