"""What a run has started does not outlive the process that asked for it, even if that one is killed and can end nothing any more."""

from __future__ import annotations

import importlib.util
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.running import REPOSITORY, TIMEOUT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the system has no way to do it but on Linux")
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")

SLEEPER = "import time; time.sleep(600)"
CHILD = f"""
import subprocess, sys, time
from flake8_torchmem.verify.lifeline import follow
follow(int(sys.argv[1]))
subprocess.Popen([sys.executable, "-c", {SLEEPER!r}])
sys.stdout.write("ready\\n")  # in one piece, also where nothing is buffered
sys.stdout.flush()
{SLEEPER}
"""
PARENT = f"""
import os, subprocess, sys
lifeline, held = os.pipe()
subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(lifeline)], pass_fds=[lifeline], start_new_session=True).wait()
"""
# Neither the program nor what it has started closes its end of the pipe before it ends.
PROGRAM = f"""
import subprocess, sys
pipe = open({{pipe!r}}, "w")
subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], pass_fds=[pipe.fileno()])
print("ready", file=pipe, flush=True)
{SLEEPER}
"""
RUN = """
from flake8_torchmem.verify.runner import Limits, Runner
with Runner(Limits(), {device!r}) as runner:
    runner.run({{"kind": "script", "device": "virtual", "path": {path!r}, "source": {source!r}, "module": "", "arguments": [], "beats": 1,
                "snapshot": ""}})
"""


def said(descriptor: int) -> bytes:
    """The next bytes of a pipe; nothing when all who could write are gone."""
    assert select.select([descriptor], [], [], TIMEOUT)[0], "somebody holds the pipe, and says nothing"
    return os.read(descriptor, 100)


def test_a_group_ends_with_the_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        assert said(parent.stdout.fileno()) == b"ready\n"
        parent.kill()
        assert said(parent.stdout.fileno()) == b""


def test_a_parent_that_is_gone_before_the_run_begins() -> None:
    lifeline, held = os.pipe()
    os.close(held)
    command = [sys.executable, "-c", CHILD, str(lifeline)]
    done = subprocess.run(
        command, capture_output=True, cwd=REPOSITORY, pass_fds=[lifeline], start_new_session=True, timeout=TIMEOUT, check=False
    )
    os.close(lifeline)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")


@needs_torch
@pytest.mark.parametrize("device", ["virtual", "cuda"], ids=["copied", "spawned"])
def test_a_program_ends_with_verify(tmp_path: Path, device: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    source = PROGRAM.format(pipe=str(tmp_path / "pipe"))
    command = [sys.executable, "-c", RUN.format(device=device, path=str(tmp_path / "train.py"), source=source)]
    pipe = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with subprocess.Popen(command, cwd=REPOSITORY) as parent:
        while not select.select([pipe], [], [], 0.1)[0]:
            assert parent.poll() is None
        assert said(pipe) == b"ready\n"
        parent.kill()
        assert said(pipe) == b""
    os.close(pipe)
