"""Which files a run checks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flake8_torchmem.files import find_files

IGNORE_FILES = {
    ".gitignore": "build/\n*.gen.py\n!kept.gen.py\n/top.py\n# comment\n\ndeep/**/skipped.py\n!\n[z-a]*.py\n",
    "sub/.gitignore": "local.py\n!back.gen.py\n/anchored.py\n",
    "sub/inner/.gitignore": "*\n!.gitignore\n!wanted.py\n",
    ".git/info/exclude": "private.py\n",
}
FILES = (
    "a.py top.py x.gen.py kept.gen.py private.py notes.txt build/b.py sub/top.py sub/local.py sub/back.gen.py sub/y.gen.py sub/anchored.py "
    "sub/inner/wanted.py sub/inner/other.py sub/more/anchored.py sub/more/local.py "
    "deep/one/two/skipped.py deep/skipped.py other/build/c.py other/build.py other/private.py"
).split()

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX file system")


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x = 1\n")


def found(monkeypatch: pytest.MonkeyPatch, root: Path, *paths: str) -> list[str]:
    monkeypatch.chdir(root)
    return [path.replace(os.sep, "/") for path in find_files(paths).files]


def test_folders_are_walked_in_sorted_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "p/b.py", "p/a/z.py", "p/a/c.py", "p/c.txt", "p/d.pyi", "p/e/f.py")
    assert found(monkeypatch, tmp_path, "p") == ["p/a/c.py", "p/a/z.py", "p/b.py", "p/e/f.py"]


def test_named_files_are_checked_whatever_they_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "script", "ignored.py", ".gitignore")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    assert found(monkeypatch, tmp_path, "script", "ignored.py", "-") == ["script", "ignored.py", "-"]


def test_each_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "p/a.py", "p/b.py")
    assert found(monkeypatch, tmp_path, "p/b.py", "p", "./p/a.py", "-", "-") == ["p/b.py", "p/a.py", "-"]


def test_environments_and_caches_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.py", "env/lib/b.py", "conda/lib/c.py", "__pycache__/d.py", ".git/e.py", "node_modules/f.py", ".tox/g.py")
    (tmp_path / "env" / "pyvenv.cfg").touch()
    (tmp_path / "conda" / "conda-meta").mkdir()
    assert found(monkeypatch, tmp_path, ".") == ["./a.py"]
    assert found(monkeypatch, tmp_path, "env") == ["env/lib/b.py"], "a folder that is asked for by name is walked"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    subprocess.run([git, "init", "-q", str(tmp_path)], check=True)
    write(tmp_path, *FILES)
    for name, patterns in IGNORE_FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(patterns)
    return tmp_path


def test_ignore_files_mean_what_git_says(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["git", "-c", "core.excludesFile=", "ls-files", "--others", "--exclude-standard", "*.py"]
    listed = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.split()
    assert sorted(found(monkeypatch, repository, ".")) == sorted(f"./{name}" for name in listed)


def test_ignore_files_above_the_folder_count(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = [path for path in found(monkeypatch, repository, ".") if path.startswith("./sub/")]
    assert [f"./{path}" for path in found(monkeypatch, repository, "sub")] == inside
    monkeypatch.chdir(repository / "sub")
    assert [f"./sub/{path[2:]}" for path in find_files(["."]).files] == inside


def test_an_ignored_folder_that_is_asked_for_is_walked(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, repository, "build", "other/build") == ["build/b.py", "other/build/c.py"]


def test_a_repository_inside_another_one_starts_anew(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(repository, "vendored/top.py", "vendored/x.gen.py", "vendored/.git/config")
    assert found(monkeypatch, repository, "vendored") == ["vendored/top.py", "vendored/x.gen.py"]
    assert {"./vendored/top.py", "./vendored/x.gen.py"} <= set(found(monkeypatch, repository, "."))


@posix_only
def test_links_and_special_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "p/a.py")
    (tmp_path / "p" / "loop").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "folder.py").symlink_to(tmp_path / "p")
    (tmp_path / "p" / "dangling.py").symlink_to("nowhere.py")
    (tmp_path / "p" / ".#lock.py").symlink_to("somebody@somewhere:1")
    (tmp_path / "p" / "self.py").symlink_to("self.py")
    (tmp_path / "p" / "link.py").symlink_to("a.py")
    os.mkfifo(tmp_path / "p" / "pipe.py")
    monkeypatch.chdir(tmp_path)
    sources = find_files(["p"])
    assert sources.files == ["p/a.py", "p/link.py"]
    assert [error.message.split("] ")[1] for error in sources.errors] == [
        "broken symbolic link",
        "not a regular file; pass - to check standard input",
        "cannot be read: Too many levels of symbolic links",
    ]


@posix_only
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "p/closed/a.py", "p/b.py")
    (tmp_path / "p" / "closed").chmod(0)
    monkeypatch.chdir(tmp_path)
    sources = find_files(["p"])
    (tmp_path / "p" / "closed").chmod(0o700)
    assert sources.files == ["p/b.py"]
    assert [error.message for error in sources.errors] == ["p/closed: TM901 [unreadable-file] cannot be read: Permission denied"]


def test_missing_paths_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = find_files(["nowhere.py", "."])
    assert sources.missing == ["nowhere.py"]
    assert [error.path for error in sources.errors] == ["nowhere.py"]


@posix_only
def test_a_tree_that_is_deeper_than_paths_are_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made step by step, as `git checkout` and `tar` make it; what cannot be named is said once, and the walk goes on."""
    write(tmp_path, "z/last.py")
    monkeypatch.chdir(tmp_path)
    try:
        for _ in range(60):
            os.mkdir("a" * 200)
            os.chdir("a" * 200)
            Path("b.py").touch()
        os.chdir(tmp_path)
        sources = find_files(["."])
        assert 10 < len(sources.files) < 60
        assert sources.files[-1] == "./z/last.py"
        (error,) = sources.errors
        assert "File name too long" in error.message
    finally:
        os.chdir(tmp_path)
        subprocess.run(["rm", "-rf", "a" * 200], check=True)
