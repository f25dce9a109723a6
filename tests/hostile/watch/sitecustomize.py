"""Put in front of every interpreter of a run, those of its workers too: bounds it, and writes down what it opens, runs and starts."""

from __future__ import annotations

import contextlib
import os
import sys

MEMORY, SECONDS = (int(number) for number in os.environ["HOSTILE_LIMITS"].split())
RECORD = os.open(os.environ["HOSTILE_RECORD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
READS = frozenset({"os.scandir", "os.listdir"})
CHANGES = frozenset({"remove", "rename", "rmdir", "mkdir", "link", "symlink", "truncate", "chmod", "chown"})
TWO_PATHS = frozenset({"rename", "link", "symlink"})
STARTS = ("subprocess.Popen", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "pty.spawn")
NETWORK = ("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.")


def told(kind: str, what: object) -> None:
    """Write a line: the kind, the working folder and the path or event. Numbers of open files and code without a file are left out."""
    if isinstance(what, (str, bytes)) and not os.fsdecode(what).startswith("<"):
        line = "\0".join([kind, os.getcwd(), os.fsdecode(what)]).replace("\n", "\\n")
        os.write(RECORD, line.encode("utf-8", "surrogateescape") + b"\n")


def hook(event: str, arguments: tuple[object, ...]) -> None:
    """The standard library calls this for all that it does."""
    name = event.rpartition(".")[2]
    if event == "open":
        told("write" if isinstance(arguments[2], int) and arguments[2] & WRITING else "read", arguments[0])
    elif event in READS:
        told("read", arguments[0])
    elif event == "sqlite3.connect" or (event.startswith("os.") and name in CHANGES):
        for path in arguments[: 1 + (name in TWO_PATHS)]:
            told("write", path)
    elif event == "exec":
        told("run", getattr(arguments[0], "co_filename", "<"))
    elif event.startswith(STARTS):
        told("start", event)
    elif event.startswith(NETWORK):
        told("network", event)


with contextlib.suppress(ImportError):
    import resource

    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
sys.addaudithook(hook)
