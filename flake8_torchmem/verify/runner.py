"""Runs jobs in processes of their own: bounded in time and memory, without the secrets of this one, and ended with all they started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# What a program needs of the environment to find Python, libraries, devices and folders. Nothing else goes along: no tokens, no keys.
KEPT = (
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH",
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PYTHONPATH", "PYTORCH_CUDA_ALLOC_CONF", "XDG_CACHE_HOME", "USER",
)  # fmt: skip
FIXED = {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
MARK = "TORCHMEM_RUN"  # in the environment of all that a run starts, so that it is found again
TAIL = 2_000  # characters of a program's standard error that are kept


@dataclass(frozen=True)
class Limits:
    """Bounds of one process: seconds on the clock, and bytes of host memory (None: no bound)."""

    seconds: float = 300.0
    memory: int | None = 16 << 30


@dataclass(frozen=True)
class Outcome:
    """What a job wrote, line by line, and how its process ended if not well: one line."""

    lines: list[dict[str, Any]]
    failure: str = ""
    stderr: str = ""


def run_job(job: dict[str, Any], limits: Limits, cwd: Path | None = None, own_environment: bool = False) -> Outcome:
    """Run a job to its end, or to its limits. What it wrote until then counts.

    Args:
        job: as `child` takes it, without where to write.
        limits: of its process.
        cwd: where it runs; by default in an empty folder.
        own_environment: it gets all of this process's environment, as a user's own script needs.
    """
    with tempfile.TemporaryDirectory(prefix="torchmem-") as folder:
        output = Path(folder) / "output.jsonl"
        errors = Path(folder) / "stderr"
        mark = uuid.uuid4().hex
        with errors.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "flake8_torchmem.verify.child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stream,
                cwd=cwd or folder,
                env={**_environment(own_environment), MARK: mark},
                start_new_session=True,
            )
            failure = _wait(process, json.dumps({**job, "output": str(output), "memory": limits.memory}).encode(), limits)
            _end_strays(mark)
        stderr = errors.read_text("utf-8", "replace")[-TAIL:]
        return Outcome(list(_lines(output)), failure, stderr)


def _environment(own: bool) -> dict[str, str]:
    """The child finds this package where this process has it."""
    kept = {name: value for name, value in os.environ.items() if own or name in KEPT}
    here = str(Path(__file__).resolve().parents[2])
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, [here, kept.get("PYTHONPATH", "")]))
    return {**kept, **FIXED}


def _wait(process: subprocess.Popen[bytes], job: bytes, limits: Limits) -> str:
    """Why the process did not end well, in one line; empty if it did. Nothing that it started outlives it."""
    try:
        process.communicate(job, timeout=limits.seconds)
    except subprocess.TimeoutExpired:
        return f"stopped after {limits.seconds:g} seconds"
    except BrokenPipeError:
        pass
    finally:
        _end(process)
    status = process.returncode
    if status == 0:
        return ""
    return f"killed by signal {-status}" if status < 0 else f"exited with {status}"


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and its group."""
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    elif process.poll() is None:
        process.kill()
    process.wait()


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
