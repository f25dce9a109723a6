"""A bounded table of bytes on disk that processes share. Whatever happens to it, the run goes on without it."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from types import TracebackType

FILE = "findings.sqlite3"
COMPANIONS = ("-journal", "-wal", "-shm")  # files that SQLite obeys beside it
MAX_BYTES = 100_000_000
PATIENCE = 5.0  # seconds, while another process writes
FLUSH_AFTER = 1.0  # seconds: all that a killed run loses
DAY = 86_400
SEAL = 8

# Every use gives an entry a new number, so that those with the lowest numbers lie together and can go.
SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, key BLOB UNIQUE NOT NULL, value BLOB NOT NULL, used INTEGER NOT NULL)
"""
IS_SCHEMA = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"
FIND = "SELECT value, used < ? FROM entries WHERE key = ?"
WRITE = "INSERT OR REPLACE INTO entries (key, value, used) VALUES (?, ?, ?)"
BYTES_IN_USE = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
DROP = "DELETE FROM entries WHERE number <= (SELECT min(number) + (max(number) - min(number)) / 8 FROM entries)"


class NotOursError(OSError):
    """Something else than a table of ours is where it should be."""


class Store:
    """The table; open inside its `with` block.

    A value is sealed with a digest of its key and itself. What a crash of the machine or a stray write damaged is then
    noticed, and no write need wait for the disk.

    Args:
        folder: made if it is not there.
        complain: told once, in one line, that the table cannot be used.
        max_bytes: above which those entries go that were not used for longest.
    """

    def __init__(self, folder: str, complain: Callable[[str], None], max_bytes: int = MAX_BYTES) -> None:
        self.path = os.path.join(folder, FILE)
        self.complain = complain
        self.max_bytes = max_bytes
        self.connection: sqlite3.Connection | None = None
        self.written: dict[bytes, bytes] = {}
        self.flushed = time.monotonic()

    def __enter__(self) -> Store:
        try:
            _make_folder(os.path.dirname(self.path))
            _require_plain(self.path, 2 * self.max_bytes)
            self.connection = sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
            self.connection.execute("PRAGMA synchronous = OFF")
            if not self._made_by_us(self.connection):
                with self.connection:
                    self.connection.execute("BEGIN IMMEDIATE")
                    self.connection.execute(SCHEMA)
        except Exception as error:  # noqa: BLE001 - a damaged file fails in ways of its own
            self._give_up(error)
        return self

    def _made_by_us(self, connection: sqlite3.Connection) -> bool:
        """Whether the table is there. A view or trigger of somebody else's would be run by whoever reads or writes.

        Raises:
            NotOursError: there is something else.
        """
        found = [sql for (sql,) in connection.execute(IS_SCHEMA).fetchmany(2)]
        if found and found != [SCHEMA.strip().replace(" IF NOT EXISTS", "")]:
            raise NotOursError("it was made by something else")
        return bool(found)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.flush()
        self._close()

    def get(self, key: bytes) -> bytes | None:
        """The value of a key; None if there is none, or if it is damaged."""
        if self.connection is None:
            return None
        try:
            # All rows: a statement that is not run to its end would keep other processes from writing.
            rows = self.connection.execute(FIND, (time.time() - DAY, key)).fetchall()
        except Exception as error:  # noqa: BLE001
            self._give_up(error)
            return None
        for value, is_old in rows:
            if isinstance(value, bytes) and value == _sealed(key, value[SEAL:]):
                if is_old:
                    self.written[key] = value
                return value[SEAL:]
        return None

    def put(self, key: bytes, value: bytes) -> None:
        """Keep a value. It is written with others, after a second or at the end."""
        self.written[key] = _sealed(key, value)
        if time.monotonic() - self.flushed > FLUSH_AFTER:
            self.flush()

    def flush(self) -> None:
        """Write what was put."""
        if self.connection is None or not self.written:
            return
        now = int(time.time())
        try:
            with self.connection:
                self.connection.execute("BEGIN IMMEDIATE")
                self.connection.executemany(WRITE, [(key, value, now) for key, value in self.written.items()])
                while self.connection.execute(BYTES_IN_USE).fetchall()[0][0] > self.max_bytes:
                    if not self.connection.execute(DROP).rowcount:
                        break
        except Exception as error:  # noqa: BLE001
            self._give_up(error)
        self.written.clear()
        self.flushed = time.monotonic()

    def _give_up(self, error: Exception) -> None:
        """Go on without the table; one that is no database any more makes room for a new one."""
        self._close()
        advice = ""
        if not isinstance(error, (OSError, sqlite3.OperationalError)):
            with suppress(OSError):
                os.unlink(self.path)
                advice = "; it is removed, the next run begins a new one"
        self.complain(f"the cache {self.path} cannot be used: {' '.join(str(error).split())}{advice}")

    def _close(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


def _require_plain(path: str, most: int) -> None:
    """No link: SQLite would write where it leads. Nothing that is no file, and none of a size that ours never has."""
    for place in (path, *(path + end for end in COMPANIONS)):
        if os.path.lexists(place):
            status = os.lstat(place)
            if not stat.S_ISREG(status.st_mode) or status.st_size > most:
                raise NotOursError(f"{os.path.basename(place)} is a link, no file or too large")


def _make_folder(folder: str) -> None:
    if not os.path.isdir(folder):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, ".gitignore"), "w", encoding="ascii") as file:
            file.write("*\n")


def _sealed(key: bytes, value: bytes) -> bytes:
    return sha256(key + value).digest()[:SEAL] + value
