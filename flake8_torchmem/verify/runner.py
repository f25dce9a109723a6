"""Runs jobs in processes of their own: bounded in time and memory, without the secrets of this one, and ended with all they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a program needs of the environment to find Python, libraries, devices and folders. Nothing else goes along: no tokens, no keys.
KEPT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH",
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PYTHONPATH", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF",
    "XDG_CACHE_HOME", "USER",
)  # fmt: skip
FIXED = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
MARK = "TORCHMEM_RUN"  # in the environment of all that a run starts, so that it is found again
INTERRUPTED = "interrupted"
HERE = str(Path(__file__).resolve().parents[2])
# Neither the folder of the run nor that of `child` is where a program's modules are looked for.
CHILD = "import sys; sys.path[0] = sys.argv[1]; from flake8_torchmem.verify.child import main; del sys.path[0]; main(sys.argv[2])"
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
    """Runs jobs, from as many threads as there are, within limits.

    Attributes:
        limits: of each process.
        stopped: whether `stop` was called.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.stopped = False
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def stop(self) -> None:
        """End what runs, and run nothing more: each job that is under way, or asked for later, comes back as interrupted."""
        self.stopped = True
        for process in list(self._running.values()):
            _kill(process)  # without waiting: this may be a signal's handler, in the middle of a wait

    def run(self, job: Mapping[str, Any], cwd: Path | None = None, own_environment: bool = False) -> Outcome:
        """Run a job to its end, or to its limits. What it wrote until then counts.

        Args:
            job: as `child` takes it, without where to write.
            cwd: where it runs; by default in an empty folder.
            own_environment: it gets all of this process's environment, as a user's own script needs.
        """
        if self.stopped:
            return Outcome([], INTERRUPTED)
        with tempfile.TemporaryDirectory(prefix="torchmem-", ignore_cleanup_errors=True) as folder:
            orders, output, inner = (Path(folder) / name for name in ("job.json", "output.jsonl", "empty"))
            inner.mkdir()
            orders.write_text(json.dumps({**job, "output": str(output), "memory": self.limits.memory}), "utf-8")
            mark = uuid.uuid4().hex
            environment = {name: value for name, value in os.environ.items() if own_environment or name in KEPT}
            end, start = os.pipe()
            process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-c", CHILD, HERE, str(orders)],
                stdin=subprocess.DEVNULL,
                stdout=start,
                stderr=subprocess.STDOUT,
                cwd=cwd or inner,
                env={**environment, **FIXED, MARK: mark},
                start_new_session=True,
            )
            os.close(start)
            printed = _Tail(end)
            failure = self._wait(process, mark)
            printed.end()
            return Outcome(list(_lines(output)), failure, printed.text(), printed.dropped)

    def _wait(self, process: subprocess.Popen[bytes], mark: str) -> str:
        """Why the process did not end well, in one line; empty if it did. Nothing that it started outlives it."""
        self._running[process.pid] = process
        try:
            if not self.stopped:  # it may have been between the start and here
                process.wait(self.limits.seconds)
        except subprocess.TimeoutExpired:
            return f"stopped after {self.limits.seconds:g} seconds"
        finally:
            _kill(process)
            process.wait()
            del self._running[process.pid]
            _end_strays(mark)
        if self.stopped:
            return INTERRUPTED
        status = process.returncode
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


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its group."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _end_strays(mark: str) -> None:
    """End what left the group of its run, where the system lists processes with their environments."""
    wanted = f"{MARK}={mark}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if wanted in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)


def _lines(output: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a job's output."""
    if output.exists():
        for line in output.read_text("utf-8").split("\n"):
            if line:
                try:
                    yield json.loads(line)
                except ValueError:  # cut off in the middle
                    return
