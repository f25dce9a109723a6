"""Runs jobs in processes of their own: bounded in time and memory, without the secrets of this one, and ended with all they started."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flake8_torchmem.reach import read_regular
from flake8_torchmem.verify.processes import CAN_COPY, Nursery, Process, Spawned

# What a program needs of the environment to find Python, libraries, devices and folders. Nothing else goes along: no tokens, no keys.
KEPT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH",
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PYTHONPATH", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
    "XDG_CACHE_HOME", "USER",
)  # fmt: skip
FIXED = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
INTERRUPTED = "interrupted"
MOST_TOLD = 200_000_000  # bytes that a job may write of what it has measured
TAIL = 4_096  # bytes of what a program prints that are kept
PIECE = 65_536  # bytes that are read at once
PATIENCE = 5.0  # seconds for the last of its output


@dataclass(frozen=True)
class Limits:
    """Bounds of one process: seconds on the clock, and bytes of host memory (None: no bound)."""

    seconds: float = 300.0
    memory: int | None = 16 << 30


@dataclass(frozen=True)
class Outcome:
    """What came of a job.

    Attributes:
        lines: what it wrote, line by line.
        failure: how its process ended if not well, in one line.
        printed: the end of what the program printed, on both of its streams.
        dropped: bytes that it printed before that.
    """

    lines: list[dict[str, Any]]
    failure: str = ""
    printed: str = ""
    dropped: int = 0

    def last_words(self) -> str:
        """How the process ended, with the last line that it printed, and how much of what it printed was not kept."""
        said = self.printed.strip().rpartition("\n")[2].strip()[-300:]
        note = f"{self.dropped:,} bytes of output before it were dropped" if self.dropped and said else ""
        detail = "; ".join(filter(None, [said, note]))
        return self.failure + (f" ({detail})" if detail else "") if self.failure else ""


class Runner:
    """Runs jobs, from as many threads as there are, within limits. It is to be left as a context.

    Attributes:
        limits: of each process.
        stopped: whether `stop` was called.

    Args:
        limits: see above.
        device: on which programs run. Processes that use a real one cannot be copies of another.
        own_environment: programs get all of this process's environment, as a user's own script needs.
    """

    def __init__(self, limits: Limits, device: str, own_environment: bool = False) -> None:
        self.limits = limits
        self.stopped = False
        self._copies = device == "virtual" and CAN_COPY
        self._environment = {name: value for name, value in os.environ.items() if own_environment or name in KEPT} | FIXED
        self._running: dict[int, Process] = {}
        self._idle: list[Nursery] = []
        # Nothing goes through this pipe. The system closes this end of it however this process ends, which ends what it runs.
        self._lifeline, self._held = os.pipe()

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        while self._idle:
            self._idle.pop().close()
        os.close(self._held)
        os.close(self._lifeline)

    def stop(self) -> None:
        """End what runs, and run nothing more: each job that is under way, or asked for later, comes back as interrupted."""
        self.stopped = True
        for process in list(self._running.values()):
            process.kill()  # without waiting: this may be a signal's handler, in the middle of a wait

    def run(self, job: Mapping[str, Any], cwd: Path | None = None) -> Outcome:
        """Run a job to its end, or to its limits. What it wrote until then counts.

        Args:
            job: as `child` takes it, without where to write.
            cwd: where it runs; by default in an empty folder.
        """
        if self.stopped:
            return Outcome([], INTERRUPTED)
        with tempfile.TemporaryDirectory(prefix="torchmem-", ignore_cleanup_errors=True) as folder, self._nursery() as nursery:
            orders, output, inner = (Path(folder) / name for name in ("job.json", "output.jsonl", "empty"))
            inner.mkdir()
            orders.write_text(json.dumps({**job, "output": str(output), "memory": self.limits.memory}), "utf-8")
            end, start = os.pipe()
            try:
                process: Process | None = nursery.start(orders, start, cwd or inner) if nursery is not None else None
                if process is None:  # what keeps PyTorch from being imported is told by a process of its own
                    process = Spawned(orders, start, cwd or inner, self._environment, self._lifeline)
            finally:
                os.close(start)
            printed = _Tail(end)
            failure = self._wait(process)
            printed.end()
            return Outcome(list(_lines(output)), failure, printed.text(), printed.dropped)

    @contextlib.contextmanager
    def _nursery(self) -> Iterator[Nursery | None]:
        """A nursery of this thread's alone, if there are any."""
        if not self._copies:
            yield None
            return
        nursery = self._idle.pop() if self._idle else Nursery(self._environment, self._lifeline)
        try:
            yield nursery
        finally:
            if nursery.process.poll() is None:
                self._idle.append(nursery)
            else:
                nursery.close()

    def _wait(self, process: Process) -> str:
        """Why the process did not end well, in one line; empty if it did. Nothing that it started outlives it."""
        self._running[id(process)] = process
        try:
            if self.stopped:  # between the start and here
                process.kill()
            status = process.wait(self.limits.seconds)
        except TimeoutError:
            process.kill()
            process.wait(None)
            return f"stopped after {self.limits.seconds:g} seconds"
        finally:
            process.kill()
            del self._running[id(process)]
            process.end_strays()
        if self.stopped:
            return INTERRUPTED
        if status == 0:
            return ""
        return f"killed by signal {-status}" if status < 0 else f"exited with {status}"


class _Tail:
    """Reads what a program prints, so that it never waits for a reader, and keeps the end.

    Args:
        end: of the pipe that is read from, which is closed here.
    """

    def __init__(self, end: int) -> None:
        self._end = end
        self._kept = b""
        self.dropped = 0
        # A daemon: what escaped with the other end of the pipe must not keep this process alive.
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while piece := os.read(self._end, PIECE):
                self._kept += piece
                self.dropped += max(len(self._kept) - TAIL, 0)
                self._kept = self._kept[-TAIL:]

    def end(self) -> None:
        """The program has ended."""
        self._thread.join(PATIENCE)
        if not self._thread.is_alive():
            os.close(self._end)

    def text(self) -> str:
        """What was kept."""
        return self._kept.decode("utf-8", "replace")


def _lines(output: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a job's output, as far as that is what a job writes."""
    try:
        text = read_regular(str(output), MOST_TOLD).decode("utf-8", "replace")
    except OSError:
        return
    with contextlib.suppress(ValueError, RecursionError):  # the last line may be cut off in the middle
        yield from map(json.loads, filter(None, text.split("\n")))
