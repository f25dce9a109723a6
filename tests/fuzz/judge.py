"""Oracles in a process of their own: what kills the interpreter, or never ends, is seen as well."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from tests.fuzz.oracles import PACKAGE, Problem, problem

if TYPE_CHECKING:
    from typing_extensions import Self

SECONDS = 10.0  # of processor time, for each piece of work
MEMORY = 4 << 30
FRAME = re.compile(rf'File "{re.escape(PACKAGE)}([^"]*)", line \d+ in (\w+)')


Ask = Callable[[bytes, Callable[[], None]], Problem | None]


class Judge:
    """Asks of one input after the other, each in the same process as long as that lives.

    Args:
        limit: seconds of processor time for each piece of work.
        ask: what is asked there.

    Attributes:
        seconds: of processor time that all of them took.
    """

    def __init__(self, limit: float = SECONDS, ask: Ask = problem) -> None:
        self.seconds = 0.0
        self._limit = limit
        self._ask = ask
        self._context = multiprocessing.get_context("spawn")
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None
        self._said = Path(tempfile.mkstemp(prefix="torchmem-fuzz-")[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()
        self._said.unlink()

    def __call__(self, data: bytes) -> Problem | None:
        """What is wrong with this input."""
        if self._process is None:
            mine, other = self._context.Pipe()
            self._process = self._context.Process(target=_serve, args=(other, str(self._said), self._limit, self._ask), daemon=True)
            self._process.start()
            other.close()
            self._pipe = mine
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(data)
            found, seconds = self._pipe.recv()
        except (EOFError, OSError):
            return self._death()
        self.seconds += seconds
        assert found is None or isinstance(found, Problem)
        return found

    def _death(self) -> Problem:
        assert self._process is not None
        self._process.join()
        code = self._process.exitcode
        self._end()
        said = self._said.read_text("utf-8", "replace")
        frames = FRAME.findall(said)
        place = " ".join(f"{file}:{name}" for file, name in frames[:2])
        if code == -signal.SIGPROF:
            self.seconds += self._limit
            return Problem("slow", "", f"more than {self._limit} s of processor time\n{said}")
        return Problem("dead", f"{code} {place}", said)

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._pipe is not None:
            self._pipe.close()
        self._process = self._pipe = None


def _serve(pipe: Connection, said: str, limit: float, ask: Ask) -> None:
    """Answer until nobody asks any more. The timer's signal ends the process, after it has written down where it was."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open(said, "w", encoding="utf-8") as file:
        sys.stderr = file
        os.dup2(file.fileno(), 2)
        faulthandler.enable(file)
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        faulthandler.register(signal.SIGPROF, file, all_threads=False, chain=True)
        while True:
            try:
                data = pipe.recv_bytes()
            except EOFError:
                return
            file.seek(0)
            file.truncate()
            begin = time.process_time()
            found = ask(data, lambda: signal.setitimer(signal.ITIMER_PROF, limit))  # type: ignore[arg-type]
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.send((found, time.process_time() - begin))
