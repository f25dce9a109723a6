"""Findings on changed lines alone, by what git knows, and without running anything that a repository names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flake8_torchmem import changes
from tests.commands import command, reported
from tests.samples import BOTH, CLEAN, LEAKY

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

IDENTITY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b"}
ALONE = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
ADDED = """

def more(loader, model):
    total = 0
    for x in loader:
        loss = model(x).sum()
        loss.backward()
        total += loss
"""


def git(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True, env={**os.environ, **IDENTITY, **ALONE})
    return done.stdout


def commit(message: str = "x") -> None:
    git("add", "-A")
    git("commit", "-q", "-m", message)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "src").mkdir()
    for name, source in (("src/leaky", LEAKY), ("both", BOTH), ("clean", CLEAN)):
        (tmp_path / f"{name}.py").write_text(source)
    git("init", "-q", "-b", "main")
    commit()
    return tmp_path


def found(*arguments: str, base: str = "main") -> list[str]:
    result = command("check", "--no-cache", "--diff-base", base, *(arguments or (".",)))
    assert result.status == bool(reported(result)), result.err
    return reported(result)


def test_nothing_was_changed(folder: Path) -> None:
    assert found() == []
    assert command("check", ".").status == 1


def test_lines_in_the_working_tree_in_the_index_and_in_commits(folder: Path) -> None:
    path = folder / "src" / "leaky.py"
    last = f"./src/leaky.py:{(LEAKY + ADDED).count(chr(10))}:9: TM201"
    path.write_text(LEAKY + ADDED)
    assert found() == [last]
    git("add", ".")
    assert found() == [last]
    git("checkout", "-q", "-b", "work")
    commit()
    assert found() == [last]
    assert found(base="HEAD") == []
    path.write_text("import os\n" + LEAKY + ADDED)  # what moves was not changed
    assert found(base="HEAD") == []


def test_changes_count_from_where_branches_parted(folder: Path) -> None:
    git("checkout", "-q", "-b", "work")
    (folder / "clean.py").write_text(LEAKY)
    commit()
    git("checkout", "-q", "main")
    (folder / "both.py").write_text("import os\n" * 3 + BOTH.replace("total +=", "total  +="))
    commit()
    git("checkout", "-q", "work")
    assert found() == ["./clean.py:11:9: TM201"]


def test_any_line_of_a_span_counts(folder: Path) -> None:
    path = folder / "clean.py"
    source = LEAKY.replace("total += loss", "total = (\n            total\n            + loss\n        )")
    path.write_text(source)
    commit()
    assert found(base="HEAD") == []
    path.write_text(source.replace("            + loss\n", "            + 1.0 * loss\n"))
    assert found(base="HEAD") == ["./clean.py:11:9: TM201"]


def test_new_and_renamed_files(folder: Path) -> None:
    (folder / "new.py").write_text(f"import torch\n{ADDED}")  # not known to git
    new = "./new.py:9:9: TM201"
    git("mv", "src/leaky.py", "src/moved.py")
    assert found() == [new]
    (folder / "src" / "moved.py").write_text(LEAKY.replace("total += loss", "total += 1 * loss"))
    assert found() == [new, "./src/moved.py:11:9: TM201"]
    git("checkout", "-q", "-b", "work")
    commit()
    assert found() == [new, "./src/moved.py:11:9: TM201"]


@pytest.mark.parametrize(
    "name",
    [
        "\u00fc \u202e.py",
        'q"u\\ote.py',
        "new\nline.py",
        "tab\t.py",
        "-dash.py",
        ":(top)x.py",
        b"\xff.py".decode("utf-8", "surrogateescape"),
    ],
)
def test_odd_names(folder: Path, name: str) -> None:
    path = folder / "src" / name
    try:
        path.write_text(LEAKY)
    except (OSError, UnicodeError):
        pytest.skip("the file system takes no such name")
    commit()
    assert found("src", base="HEAD") == []
    path.write_text(LEAKY + ADDED)
    assert len(found("src", base="HEAD")) == 1


def test_encodings_and_line_ends_are_no_changes(folder: Path) -> None:
    path = folder / "both.py"
    path.write_bytes(b"\xef\xbb\xbf" + BOTH.replace("\n", "\r\n").encode())
    assert found() == []
    (folder / "clean.py").write_bytes(b"\xff\xfe")
    commit()
    (folder / "clean.py").write_text(LEAKY)
    assert found(base="HEAD") == ["./clean.py:11:9: TM201"]


def test_standard_input_goes_by_its_name(folder: Path) -> None:
    arguments = ("check", "-", "--stdin-display-name", "src/leaky.py", "--diff-base", "HEAD")
    assert command(*arguments, stdin=LEAKY).status == 0
    assert reported(command(*arguments, stdin=LEAKY.replace("+= loss", "+= 1 * loss"))) == ["src/leaky.py:11:9: TM201"]


def test_from_another_folder_and_through_a_link(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (folder / "src" / "leaky.py").write_text(LEAKY + ADDED)
    outside = tmp_path_factory.mktemp("outside")
    (outside / "link").symlink_to(folder)
    monkeypatch.chdir(outside)
    assert len(found(str(folder))) == len(found("link/src")) == 1


def test_with_a_baseline(folder: Path) -> None:
    command("baseline", ".", "--baseline", "known.json")
    commit()
    (folder / "clean.py").write_text(LEAKY)
    (folder / "both.py").write_text(BOTH.replace("total +=", "total  +="))
    assert found(".", "--baseline", "known.json", base="HEAD") == ["./clean.py:11:9: TM201"]


@pytest.mark.parametrize("revision", ["nope", "--help", "-", "", "HEAD~9", "main:src"])
def test_what_is_no_revision(folder: Path, revision: str) -> None:
    result = command("check", ".", f"--diff-base={revision}")
    assert (result.status, result.out, result.err) == (2, "", f"Error: --diff-base: {revision!r} is no commit of this repository\n")


def test_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    result = command("check", ".", "--diff-base", "main")
    assert (result.status, result.err.startswith("Error: --diff-base: not a git repository")) == (2, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command("check", ".", "--diff-base", "main").err == "Error: --diff-base: git cannot be run: No such file or directory\n"


def test_a_file_of_another_place(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "a.py"
    other.write_text(LEAKY)
    (folder / "src" / "link.py").symlink_to(other)
    assert "src/link.py: TM901 [unreadable-file] a link that leads out of the repository" in command("check", "src").out
    result = command("check", "src/link.py", "--diff-base", "main")
    assert (result.status, result.err) == (2, f"Error: --diff-base: src/link.py: not in the repository {folder.resolve()}\n")


def test_a_shallow_clone(folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    git("checkout", "-q", "-b", "work")
    for text in (LEAKY, LEAKY + ADDED):
        (folder / "clean.py").write_text(text)
        commit()
    clone = tmp_path_factory.mktemp("clone")
    git("clone", "-q", "--depth=1", "--no-single-branch", f"file://{folder}", str(clone))
    monkeypatch.chdir(clone)
    result = command("check", ".", "--diff-base", "origin/main")
    assert result.err == "Error: --diff-base: 'origin/main' and HEAD have no common commit here: a shallow clone has to be deepened first\n"
    git("fetch", "-q", "--unshallow")
    assert len(found(base="origin/main")) == 2


# What git may be told to run.
COMMANDS = (
    "core.fsmonitor core.pager core.editor core.sshCommand core.askPass credential.helper gpg.program diff.external diff.evil.textconv"
    " diff.evil.command filter.evil.clean filter.evil.smudge filter.evil.process alias.rev-parse alias.diff-index"
).split()


def test_nothing_that_the_repository_names_is_run(folder: Path) -> None:
    trap = folder / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch '{folder}/sprung'\ncat\n")
    trap.chmod(0o755)
    (folder / "hooks").mkdir()
    for hook in ("post-index-change", "fsmonitor-watchman", "pre-auto-gc"):
        shutil.copy(trap, folder / "hooks" / hook)
    (folder / ".gitattributes").write_text("*.py diff=evil filter=evil\n")
    commit()
    for key in COMMANDS:
        git("config", key, f"!{trap}" if key.startswith("alias") else str(trap))
    for key in ("diff.relative", "diff.noprefix", "filter.evil.required"):
        git("config", key, "true")
    git("config", "core.hooksPath", str(folder / "hooks"))
    (folder / "src" / "leaky.py").write_text(LEAKY + ADDED)
    os.utime(folder / "both.py", (1, 1))  # git would have to read it again
    assert len(found("src", base="HEAD")) == 1
    assert not (folder / "sprung").exists()
    subprocess.run(["git", "status"], cwd=folder, capture_output=True, check=False)
    assert (folder / "sprung").exists()  # the trap works


def objects(kind: str, data: bytes) -> str:
    done = subprocess.run(["git", "hash-object", "-w", "-t", kind, "--stdin"], input=data, capture_output=True, check=True)
    return done.stdout.decode().strip()


def bomb(wide: int, deep: int) -> str:
    """A commit of a few objects that stand for any number of files: folders that hold the same folder again and again."""
    inner = b"100644 a.py\0" + bytes.fromhex(objects("blob", b"x = 1\n"))
    for _ in range(deep):
        tree = bytes.fromhex(objects("tree", inner))
        inner = b"".join(b"40000 %05d\0" % number + tree for number in range(wide))
    return git("commit-tree", "-m", "x", "-p", "HEAD", objects("tree", inner)).strip()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded there")
@pytest.mark.parametrize(("bound", "value"), [("SECONDS", 1.0), ("MEMORY", 50_000_000)])
def test_a_tree_that_is_a_bomb_ends_git_and_not_the_machine(
    folder: Path, bound: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    git("update-ref", "refs/heads/bomb", bomb(10, 10))
    git("reset", "-q", "--soft", "bomb")  # the branch is on it; the index and the files are as before
    monkeypatch.setattr(changes, bound, value)
    started = time.monotonic()
    result = command("check", ".", "--no-cache", "--diff-base", "bomb")
    assert time.monotonic() - started < changes.SECONDS + 10
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("Error: --diff-base: ")
    assert reported(command("check", ".", "--no-cache")), "without that option git is not asked"
