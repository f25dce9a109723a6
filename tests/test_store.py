"""The table on disk: shared, bounded, and no one's problem when it is damaged."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flake8_torchmem.cache.store import DAY, FILE, Store
from tests.running import REPOSITORY, SCRIPTS, torchmem
from tests.samples import LEAKY, UNCLEARED

WRITER = """
import sys
from flake8_torchmem.cache import store
store.FLUSH_AFTER = 0.0
with store.Store(sys.argv[1], print) as table:
    for number in range(10_000_000):
        table.put(b"%d" % number, b"value of %d" % number)
"""


@pytest.fixture
def complaints() -> list[str]:
    return []


def test_what_is_put_is_there_in_the_next_run(tmp_path: Path, complaints: list[str]) -> None:
    with Store(str(tmp_path / "new" / "folder"), complaints.append) as store:
        assert store.get(b"a") is None
        store.put(b"a", b"1")
        store.put(b"b", b"")
        store.put(b"a", b"2")
    with Store(str(tmp_path / "new" / "folder"), complaints.append) as store:
        assert (store.get(b"a"), store.get(b"b"), store.get(b"c")) == (b"2", b"", None)
    assert (tmp_path / "new" / "folder" / ".gitignore").read_text() == "*\n"
    assert complaints == []


def test_it_stays_small_and_keeps_what_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaints: list[str]) -> None:
    now = time.time()
    for day in range(8):
        monkeypatch.setattr(time, "time", lambda day=day: now + 2 * day * DAY)
        with Store(str(tmp_path), complaints.append, max_bytes=300_000) as store:
            assert store.get(b"old") == (b"friend" if day else None)
            store.put(b"old", b"friend") if not day else None
            for number in range(100):
                store.put(b"%d of day %d" % (number, day), bytes(1_000))
    with Store(str(tmp_path), complaints.append) as store:
        assert store.get(b"0 of day 0") is None
        assert store.get(b"0 of day 7") is not None
    assert (tmp_path / FILE).stat().st_size < 600_000
    assert complaints == []


def test_a_run_that_is_killed_harms_no_one(tmp_path: Path, complaints: list[str]) -> None:
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], cwd=REPOSITORY) as process:
            while not (tmp_path / FILE).exists():
                time.sleep(0.01)
            time.sleep(0.3)
            process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
    with Store(str(tmp_path), complaints.append) as store:
        found = [store.get(b"%d" % number) for number in range(20)]
        store.put(b"after", b"all")
    assert found == [b"value of %d" % number for number in range(20)]
    with Store(str(tmp_path), complaints.append) as store:
        assert store.get(b"after") == b"all"
    assert complaints == []


def test_runs_side_by_side_agree(tmp_path: Path) -> None:
    for number in range(30):
        (tmp_path / f"m{number}.py").write_text(f"# {number}\n{LEAKY if number % 2 else UNCLEARED}")
    expected = torchmem("check", "--no-cache", ".", cwd=tmp_path).out
    command = [str(SCRIPTS / "torchmem"), "check", "."]
    started = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    assert [process.communicate() for process in started] == [(expected, "")] * 4


@pytest.mark.parametrize("seed", range(16))
def test_no_damage_gives_a_wrong_answer(tmp_path: Path, complaints: list[str], seed: int) -> None:
    dice = random.Random(seed)
    with Store(str(tmp_path), complaints.append) as store:
        for number in range(200):
            store.put(b"%d" % number, b"value of %d" % number * 20)
    data = bytearray((tmp_path / FILE).read_bytes())
    for _ in range(4 ** (seed % 6)):
        data[dice.randrange(len(data))] = dice.randrange(256)
    (tmp_path / FILE).write_bytes(data if seed % 4 else data[: dice.randrange(len(data))])
    for _ in range(3):
        complaints.clear()
        with Store(str(tmp_path), complaints.append) as store:
            for number in range(200):
                assert store.get(b"%d" % number) in {None, b"value of %d" % number * 20}
                store.put(b"%d" % number, b"value of %d" % number * 20)
        assert len(complaints) <= 1


def test_what_is_no_table_is_said_once_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / FILE).write_bytes(b"no table at all" * 1_000)
    expected = torchmem("check", "--no-cache", "a.py", cwd=tmp_path)
    damaged = torchmem("check", "--cache-dir", "kept", "a.py", cwd=tmp_path)
    assert (damaged.out, damaged.status) == (expected.out, expected.status)
    assert damaged.err.count("\n") == 1
    assert damaged.err.startswith(f"torchmem: the cache {tmp_path / 'kept' / FILE} cannot be used: ")
    assert torchmem("check", "--cache-dir", "kept", "a.py", cwd=tmp_path) == expected


def test_a_place_that_cannot_be_written_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    (tmp_path / "file").write_text("")
    result = torchmem("check", "a.py", cwd=tmp_path, env={"TORCHMEM_CACHE_DIR": "file"})
    assert result.out == torchmem("check", "--no-cache", "a.py", cwd=tmp_path).out
    assert result.err.count("\n") == 1


def test_a_table_that_is_held_by_another_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complaints: list[str]) -> None:
    monkeypatch.setattr("flake8_torchmem.cache.store.PATIENCE", 0.05)
    with Store(str(tmp_path), complaints.append):
        pass
    holder = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with Store(str(tmp_path), complaints.append) as store:
        assert store.get(b"a") is None
        store.put(b"a", b"1")
    holder.close()
    assert len(complaints) == 1
    assert os.listdir(tmp_path).count(FILE) == 1
