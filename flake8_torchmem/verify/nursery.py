"""A process that has PyTorch imported, and copies itself for each run: what takes seconds is done once. Only where fork is safe.

It is told where a job is, and gives the number of the copy that does it, then how that one ended.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import socket

from flake8_torchmem.verify.lifeline import follow

MESSAGE = 65_536  # bytes


def main(channel_number: int, lifeline: int) -> str | None:
    """Wait for jobs. In each copy, the file with its job; None when no more will come.

    Args:
        channel_number: the descriptor of a socket to the runner.
        lifeline: the descriptor of a pipe that the runner holds while it lives.
    """
    channel = socket.socket(fileno=channel_number)
    importlib.import_module("torch._dynamo")
    gc.collect()
    gc.freeze()  # copies need not look through it
    while True:
        message, (*descriptors,), _, _ = socket.recv_fds(channel, MESSAGE, 1)
        if not message:
            return None
        order = json.loads(message)
        process = os.fork()
        if process == 0:
            channel.close()
            _become(order["cwd"], descriptors[0])
            follow(lifeline)  # in its own group
            return str(order["orders"])
        os.close(descriptors[0])
        channel.sendall(b"%d\n" % process)
        channel.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))


def _become(cwd: str, output: int) -> None:
    """A process of its own, in its folder, whose output goes where it is to go."""
    os.setsid()
    os.chdir(cwd)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(output)
