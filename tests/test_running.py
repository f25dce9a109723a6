"""Many files: whoever checks them, the report is the same, in the same order, and nothing that dies takes a file along."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from flake8_torchmem import running
from flake8_torchmem.cache.store import FILE
from flake8_torchmem.running import FileResult, Task, check_files
from flake8_torchmem.running.crews import Here
from flake8_torchmem.running.task import Answer, Chunk
from flake8_torchmem.settings import Settings
from tests.projects import load
from tests.running import SCRIPTS, torchmem
from tests.samples import BROKEN, CLEAN, LEAKY, UNCLEARED

P = ParamSpec("P")
R = TypeVar("R")

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
# In every process of the command: workers die, or take their time, over files that say so.
TROUBLE = """
import multiprocessing, os, time
from flake8_torchmem.running import task
decode = task.decode
def trouble(data):
    if multiprocessing.parent_process() is not None:
        if b"# kills always" in data:
            os._exit(9)
        if b"# kills once" in data:
            try:
                os.close(os.open(os.environ["KILLED"], os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os._exit(9)
        if b"# sleeps" in data:
            open(os.environ["ASLEEP"], "a").close()
            time.sleep(300)
    return decode(data)
task.decode = trouble
"""


def write_many(folder: Path, count: int) -> list[str]:
    """Files with and without findings, and some that are no Python."""
    kinds = [LEAKY, UNCLEARED, CLEAN, BROKEN, "x = 1\n"]
    for number in range(count):
        (folder / f"m{number:03}.py").write_text(f"# {number}\n{kinds[number % len(kinds)]}")
    return [str(folder / f"m{number:03}.py") for number in range(count)]


def codes(results: list[FileResult]) -> list[tuple[str, list[str], bool]]:
    return [(Path(result.name).name, [located.finding.code for located in result.findings], bool(result.errors)) for result in results]


@pytest.fixture
def troubled(tmp_path: Path) -> dict[str, str]:
    """The variables under which files make trouble."""
    (tmp_path / "trouble").mkdir()
    (tmp_path / "trouble" / "sitecustomize.py").write_text(TROUBLE)
    return {"PYTHONPATH": str(tmp_path / "trouble"), "KILLED": str(tmp_path / "killed"), "ASLEEP": str(tmp_path / "asleep")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    return tmp_path / "code"


class Scripted(Executor):
    """Does what it is given when it is asked for it, the newest first; breaks as the script has it."""

    def __init__(self, crew: ScriptedCrew) -> None:
        self.crew = crew
        self.broken = False
        self.queue: list[tuple[Future[Any], Callable[[], Any], Chunk]] = []

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        if self.broken:
            raise BrokenExecutor
        future: Future[R] = Lazy(self)
        chunk: Any = args[1]
        self.queue.append((future, lambda: fn(*args, **kwargs), chunk))
        self.crew.sent.append(len(chunk))
        self.crew.most = max(self.crew.most, len(self.queue))
        return future

    def work(self) -> None:
        while self.queue:
            future, function, chunk = self.queue.pop()
            names = {Path(source.name).name for source in chunk}
            killers = (names & self.crew.poison) | set(list(names & self.crew.frail)[:1])
            self.crew.frail -= killers
            if killers:
                self.broken = True
            if self.broken:
                future.set_exception(BrokenExecutor())
            else:
                future.set_result(function())


class Lazy(Future[R]):
    def __init__(self, executor: Scripted) -> None:
        super().__init__()
        self.executor = executor

    def result(self, timeout: float | None = None) -> R:
        self.executor.work()
        return super().result(timeout)


class ScriptedCrew:
    """Makes executors that die over some files: always over `poison`, once over each of the `frail`."""

    size, window, largest_chunk = 2, 3, 4
    lost: tuple[type[Exception], ...] = (BrokenExecutor,)

    def __init__(self, poison: set[str] = frozenset(), frail: set[str] = frozenset()) -> None:  # type: ignore[assignment]
        self.poison, self.frail = set(poison), set(frail)
        self.most = self.opened = 0
        self.sent: list[int] = []

    @contextmanager
    def open(self, size: int) -> Iterator[Executor]:
        del size
        self.opened += 1
        yield Scripted(self)


@pytest.mark.parametrize("seed", range(5))
def test_the_dead_take_nothing_along(folder: Path, seed: int) -> None:
    dice = random.Random(seed)
    files = write_many(folder, 24)
    names = [Path(file).name for file in files]
    crew = ScriptedCrew(set(dice.sample(names, seed % 4)), set(dice.sample(names, dice.randrange(5))))
    expected = [
        (name, ["TM900"] if name in crew.poison else found, error and name not in crew.poison)
        for name, found, error in codes(list(check_files(files, Task(Settings()))))
    ]
    results = list(check_files(files, Task(Settings()), crew))
    assert codes(results) == expected
    assert not crew.frail
    assert crew.most <= crew.window
    for result in results:
        if Path(result.name).name in crew.poison:
            (located,) = result.findings
            assert located.line == Path(result.name).read_text().split("\n")[0]
            assert "died" in located.finding.message
    accepted = codes(list(check_files(files, Task(Settings(ignore=("TM900",))), ScriptedCrew({names[0]}))))
    assert accepted[0] == (names[0], [], False)


def test_no_more_is_read_than_is_under_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(path: str) -> bytes:
        read.append(path)
        return Path(path).read_bytes()

    monkeypatch.setattr(running, "read", noted)
    files = write_many(folder, 40)
    for crew, most in ((ScriptedCrew(), 16), (Here(), 1)):
        read.clear()
        for done, result in enumerate(check_files(files, Task(Settings()), crew)):
            assert result.name == files[done]
            assert len(read) - done <= most


def test_large_files_travel_alone(folder: Path) -> None:
    files = write_many(folder, 12)
    for file in files:
        with open(file, "a", encoding="utf-8") as text:
            text.write("#" * 300_000 + "\n")
    crew = ScriptedCrew()
    crew.window = 1
    assert len(list(check_files(files, Task(Settings()), crew))) == 12
    assert crew.sent == [1] * 12


def test_a_long_run_gets_help_and_a_short_one_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_many(folder, 10)
    expected = list(check_files(files, Task(Settings())))
    helpers = ScriptedCrew()
    assert list(check_files(files[:1], Task(Settings()), helpers=lambda: helpers)) == expected[:1]
    monkeypatch.setattr(running, "PATIENCE", -1.0)
    monkeypatch.setattr(running, "WORTH_IT", 1e9)
    assert list(check_files(files, Task(Settings()), helpers=lambda: helpers)) == expected
    assert helpers.opened == 0
    monkeypatch.setattr(running, "WORTH_IT", -1.0)
    assert list(check_files(files, Task(Settings()), helpers=lambda: helpers)) == expected
    assert helpers.opened == 1


def test_what_workers_say_is_said_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "check_chunk", lambda _task, chunk: Answer([FileResult(source.name) for source in chunk], ["no cache"]))
    said: list[str] = []
    assert len(list(check_files(write_many(folder, 9), Task(Settings()), ScriptedCrew(), complain=said.append))) == 9
    assert said == ["no cache"]


def test_processes_report_what_one_process_reports(folder: Path, tmp_path: Path) -> None:
    """On all the projects of the test cases, whose files import one another, side by side."""
    for number, case in enumerate(load()):
        (folder / f"p{number}").mkdir()
        case.write(folder / f"p{number}")
    write_many(folder, 12)
    (folder / "gone.py").symlink_to("nowhere")
    command = ["check", "--select=TM", "--output-format=json", "--stdin-display-name=in.py", "-", "."]
    one = torchmem(*command, "--no-cache", "--jobs=1", cwd=folder, stdin=LEAKY.encode())
    assert one.out.count('"TM') > 20
    kept = {"TORCHMEM_CACHE_DIR": str(tmp_path / "kept")}
    assert torchmem(*command, "--jobs=2", cwd=folder, stdin=LEAKY.encode(), env=kept) == one
    with sqlite3.connect(tmp_path / "kept" / FILE) as connection:
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
    connection.close()
    assert count > 40
    assert torchmem(*command, "--jobs=2", cwd=folder, stdin=LEAKY.encode(), env=kept) == one


def test_a_worker_that_dies_takes_nothing_along(folder: Path, troubled: dict[str, str]) -> None:
    write_many(folder, 12)
    (folder / "m003.py").write_text(f"# kills once\n{LEAKY}")
    alone = torchmem("check", "--no-cache", "--jobs=1", ".", cwd=folder, env=troubled)
    assert alone.out.count("TM2") > 3
    assert torchmem("check", "--no-cache", "--jobs=2", ".", cwd=folder, env=troubled) == alone
    assert os.path.exists(troubled["KILLED"])
    (folder / "m007.py").write_text(f"# kills always\n{LEAKY}")
    result = torchmem("check", "--no-cache", "--jobs=2", ".", cwd=folder, env=troubled)
    assert "./m007.py:1:1: TM900 [internal-error] could not be checked: the process that checked it died" in result.out
    assert [line for line in result.out.splitlines() if "TM" in line and "m007" not in line] == [
        line for line in alone.out.splitlines() if "TM" in line and "m007" not in line
    ]
    assert (result.status, result.err) == (1, "")


@posix
@pytest.mark.parametrize("number", [2, 9], ids=["interrupted", "killed"])
def test_whoever_ends_leaves_no_one_behind(folder: Path, troubled: dict[str, str], number: int) -> None:
    for name in "abcd":
        (folder / f"{name}.py").write_text("# sleeps\n")
    command = [str(SCRIPTS / "torchmem"), "check", "--no-cache", "--jobs=2", "."]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, env={**os.environ, **troubled}, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        while not os.path.exists(troubled["ASLEEP"]):
            time.sleep(0.05)
            assert process.poll() is None
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        # Whoever is left would hold the pipes open.
        out, error = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert out == ""
    assert "Traceback" not in error
    with suppress(ProcessLookupError):
        while True:
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_processes_that_is_none(tmp_path: Path, value: str) -> None:
    result = torchmem("check", f"--jobs={value}", ".", cwd=tmp_path)
    assert result.status == 2
    assert f"{int(value) if value.isdecimal() else repr(value)} is neither a number from 1 on nor 'auto'" in result.err
