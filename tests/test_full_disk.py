"""Disks that take no more: what was there stays, nothing is half-written, and one line says what failed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.running import SCRIPTS, Result, run, torchmem
from tests.samples import LEAK_LINE, LEAKY

pytestmark = pytest.mark.skipif(os.name != "posix" or shutil.which("bash") is None, reason="the size of files is limited by a shell")
PADDING = "# padding\n" * 1_000


def limited(kilobytes: int, *arguments: str, cwd: Path) -> Result:
    """A run whose files cannot grow beyond a size: writing fails as on a full disk, after some of it."""
    return run(["bash", "-c", f'ulimit -f {kilobytes}; exec "$0" "$@"', str(SCRIPTS / "torchmem"), *arguments], cwd)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (("a.py", LEAKY), ("large.py", LEAKY + PADDING), ("z.py", LEAKY)):
        (tmp_path / name).write_text(text)
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_fix_that_has_no_room_leaves_the_file_and_the_run_goes_on(folder: Path) -> None:
    result = limited(4, "fix", ".", cwd=folder)
    assert (result.status, result.err) == (2, "")
    assert "./large.py: TM901 [unreadable-file] cannot be written: File too large\n" in result.out
    assert (folder / "large.py").read_text() == LEAKY + PADDING
    assert all("loss.detach()" in (folder / name).read_text() for name in ("a.py", "z.py"))
    assert names(folder) == ["a.py", "large.py", "z.py"]


@pytest.mark.parametrize("there", [False, True], ids=["new", "old"])
@pytest.mark.parametrize("arguments", [("baseline", "."), ("check", "--no-cache", "z.py", "--output-file", "torchmem-baseline.json")])
def test_a_file_that_has_no_room_is_not_begun(folder: Path, arguments: tuple[str, ...], there: bool) -> None:
    target = folder / "torchmem-baseline.json"
    assert not there or torchmem("baseline", "z.py", cwd=folder).status == 0
    old, before = target.read_bytes() if there else None, names(folder)
    result = limited(0, *arguments, cwd=folder)
    assert result.status == 2
    *notes, last = result.err.splitlines()
    assert last.startswith("Error: torchmem-baseline.json: ")
    assert "cannot be written: File too large" in last
    assert all(note.startswith("torchmem: the cache ") for note in notes)  # for which there is no room either
    assert (target.read_bytes() if target.exists() else None) == old
    assert names(folder) == before


@pytest.mark.parametrize("kilobytes", [0, 8])
def test_a_cache_that_has_no_room_is_done_without(folder: Path, kilobytes: int) -> None:
    alone = torchmem("check", "--no-cache", ".", cwd=folder)
    assert alone.out.count(f":{LEAK_LINE}:") == 3
    for _ in range(2):
        result = limited(kilobytes, "check", "--cache-dir", "kept", ".", cwd=folder)
        assert (result.status, result.out) == (alone.status, alone.out)
        assert all(line.startswith("torchmem: the cache ") for line in result.err.splitlines())
    again = torchmem("check", "--cache-dir", "kept", ".", cwd=folder)
    assert (again.status, again.out) == (alone.status, alone.out)


def test_processes_that_cannot_be_had_are_done_without(folder: Path) -> None:
    alone = torchmem("check", "--no-cache", "--jobs=1", ".", cwd=folder)
    assert limited(0, "check", "--no-cache", "--jobs=2", ".", cwd=folder) == alone  # there is no room for their semaphores


def test_what_a_killed_run_has_left_harms_no_one(folder: Path) -> None:
    left = folder / ".torchmem-abcd.tmp"
    left.write_text("def half(")
    assert ".torchmem-abcd.tmp" not in torchmem("check", "--no-cache", ".", cwd=folder).out
    result = torchmem("fix", ".", cwd=folder)
    assert (result.status, result.err) == (0, "")
    assert names(folder) == [left.name, "a.py", "large.py", "z.py"]
