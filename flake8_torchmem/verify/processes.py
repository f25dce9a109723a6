"""Starts the processes of runs: each as a new interpreter, or as a copy of one that has PyTorch imported."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

HERE = str(Path(__file__).resolve().parents[2])
# Neither the folder of the run nor that of these modules is where a program's own modules are looked for.
BEGIN = "import sys; sys.path[0] = sys.argv[1]; from flake8_torchmem.verify.lifeline import follow; follow(int(sys.argv[2])); "
CHILD = BEGIN + "from flake8_torchmem.verify.child import main; del sys.path[0]; main(sys.argv[3])"
NURSERY = BEGIN + (
    "from flake8_torchmem.verify import child, nursery; del sys.path[0]; "
    "orders = nursery.main(int(sys.argv[3]), int(sys.argv[2])); orders and child.main(orders)"
)
MARK = "TORCHMEM_RUN"  # in the environment of all that a run starts, so that it is found again
CAN_COPY = sys.platform == "linux"  # elsewhere, libraries do not survive a fork


class Process(Protocol):
    """A run that is under way."""

    def kill(self) -> None:
        """Kill it and its group, without waiting."""

    def wait(self, seconds: float | None) -> int:
        """How it ended: the exit status, or minus a signal.

        Raises:
            TimeoutError: it has not ended.
        """

    def end_strays(self) -> None:
        """End what it started and what left its group, where the system lists processes with their environments."""


class Spawned:
    """A new interpreter.

    Args:
        orders: the file with its job.
        output: the descriptor of what it prints to.
        cwd: where it runs.
        environment: that it gets.
        lifeline: the reading end of a pipe; when the other end is closed, this process is killed.
    """

    def __init__(self, orders: Path, output: int, cwd: Path, environment: Mapping[str, str], lifeline: int) -> None:
        self._mark = uuid.uuid4().hex
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-c", CHILD, HERE, str(lifeline), str(orders)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=cwd,
            env={**environment, MARK: self._mark},
            start_new_session=True,
            pass_fds=_passed(lifeline),
        )

    def kill(self) -> None:
        _kill(self._process.pid, self._process.returncode is not None)

    def wait(self, seconds: float | None) -> int:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def end_strays(self) -> None:
        _end_marked(self._mark, spared=0)


class Nursery:
    """An interpreter with PyTorch, which is copied for one run after the other.

    Args:
        environment: that it and its copies get.
        lifeline: as above, for it and its copies.
    """

    def __init__(self, environment: Mapping[str, str], lifeline: int) -> None:
        self.mark = uuid.uuid4().hex
        self.channel, other = socket.socketpair()
        with other:
            self.process = subprocess.Popen(  # noqa: S603 - this interpreter
                [sys.executable, "-c", NURSERY, HERE, str(lifeline), str(other.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment, MARK: self.mark},
                pass_fds=(other.fileno(), *_passed(lifeline)),
                start_new_session=True,
            )

    def start(self, orders: Path, output: int, cwd: Path) -> Copied | None:
        """A copy that does a job; None if there is none to be had.

        Args:
            orders: the file with the job.
            output: the descriptor of what it prints to.
            cwd: where it runs.
        """
        message = json.dumps({"orders": str(orders), "cwd": str(cwd.resolve())}).encode()
        with contextlib.suppress(OSError):
            socket.send_fds(self.channel, [message], [output])
            answer = self.answer(None)
            return Copied(self, answer) if answer is not None else None
        return None

    def answer(self, seconds: float | None) -> int | None:
        """The next number that it says; None if it has ended. Raises TimeoutError."""
        self.channel.settimeout(seconds)
        said = b""
        with contextlib.suppress(ConnectionError):
            while not said.endswith(b"\n"):
                piece = self.channel.recv(1)
                if not piece:
                    return None
                said += piece
            return int(said)
        return None

    def close(self) -> None:
        """End it."""
        self.channel.close()
        self.process.kill()
        self.process.wait()


class Copied:
    """A copy of a nursery.

    Args:
        nursery: whose copy it is.
        pid: its number.
    """

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery = nursery
        self._pid = pid
        self._ended = False

    def kill(self) -> None:
        _kill(self._pid, self._ended)

    def wait(self, seconds: float | None) -> int:
        status = self._nursery.answer(seconds)
        self._ended = True
        return -signal.SIGKILL if status is None else status

    def end_strays(self) -> None:
        _end_marked(self._nursery.mark, spared=self._nursery.process.pid)


def _passed(*descriptors: int) -> tuple[int, ...]:
    """Descriptors that a process gets where it can: on Windows none."""
    return descriptors if os.name == "posix" else ()


def _kill(pid: int, ended: bool) -> None:
    """Kill a process and its group, of which there may be some left when it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, AttributeError):  # it has no group yet, or the system has none
            if not ended:
                os.kill(pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)


def _end_marked(mark: str, spared: int) -> None:
    wanted = f"{MARK}={mark}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            pid = int(environment.parent.name)
            if pid != spared and wanted in environment.read_bytes().split(b"\0"):
                os.kill(pid, signal.SIGKILL)
