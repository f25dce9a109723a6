"""What benchmarks read and how they measure: named sets of files, processes over them, pairs of measurements."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
HELP = "a folder to read, or @FILE with paths in lines; one NAME may be given several"
RUNNER = Path(__file__).resolve().with_name("flake8_runner.py")
WITH, WITHOUT = "with", "without"
SEED = 0
# An installed plugin is compiled once and for all: a variable of the developer's shell must not make every process compile it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@dataclass(frozen=True)
class Corpus:
    """A name and its files."""

    name: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """One process: seconds on the clock, seconds of processor time, peak resident memory in MB, and what it wrote."""

    wall: float
    cpu: float
    peak: float
    out: str
    err: str


def parser(description: str | None, runs: int) -> argparse.ArgumentParser:
    """The arguments that both scripts have."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("corpora", nargs="+", metavar="NAME=DIR", help=HELP)
    arguments.add_argument("--sample", type=int, default=300, help="files per corpus, by a fixed seed; 0: all (default: %(default)s)")
    arguments.add_argument("--runs", type=int, default=runs, help="repetitions, of which medians are taken (default: %(default)s)")
    return arguments


def corpora(words: Sequence[str], sample: int) -> list[Corpus]:
    """The corpora named on the command line, in that order."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, where = word.partition("=")
        if equals and where.startswith("@") and Path(where[1:]).is_file():
            found.setdefault(name, []).extend(Path(where[1:]).read_text("utf-8").splitlines())
        elif equals and Path(where).is_dir():
            found.setdefault(name, []).extend(str(path) for path in sorted(Path(where).rglob("*.py")) if path.is_file())
        else:
            raise SystemExit(f"{word}: expected NAME=DIR, with DIR a folder, or NAME=@FILE, with FILE a list of files")
    for name, files in found.items():
        if not files:
            raise SystemExit(f"{name}: no Python files")
    return [Corpus(name, _drawn(files, sample)) for name, files in found.items()]


def _drawn(files: list[str], sample: int) -> tuple[str, ...]:
    if not 0 < sample < len(files):
        return tuple(files)
    return tuple(sorted(random.Random(SEED).sample(files, sample)))


def flake8(corpus: Corpus, mode: str, jobs: int = 1, keep: bool = False) -> Measured:
    """Run flake8 in its own process and measure it; the first such run, which is to be kept, leaves compiled files behind.

    Args:
        corpus: whose files are checked.
        mode: `WITH` or `WITHOUT` the plugin.
        jobs: flake8's own number of processes.
        keep: keep what is written. Such a run is not to be timed.
    """
    return child([sys.executable, str(RUNNER), mode, "--isolated", f"-j{jobs}", *corpus.files], keep)


def child(command: Sequence[str], keep: bool = False, **environment: str) -> Measured:
    """Run a command in its own process and measure it.

    Args:
        command: with its arguments.
        keep: keep what is written. Such a run is not to be timed.
        environment: variables that it gets beside this process's.
    """
    kept = subprocess.PIPE if keep else subprocess.DEVNULL
    begin = time.perf_counter()
    given = ENVIRONMENT | environment
    with subprocess.Popen(command, stdout=kept, stderr=kept, text=True, encoding="utf-8", errors="replace", env=given) as process:
        out, err = process.communicate() if keep else ("", "")
        wall, cpu, peak = (0.0, 0.0, 0.0) if keep else _wait(process, begin)
    if process.returncode not in {0, 1}:  # 1: there is something to report
        raise SystemExit(f"{' '.join(command[:5])} ... failed with exit code {process.returncode}\n{err[-2000:]}")
    return Measured(wall, cpu, peak, out, err)


def in_pairs(first: Callable[[], T], second: Callable[[], T], runs: int) -> list[tuple[T, T]]:
    """Measurements of both, side by side in time; every other pair begins with the second, so that drift falls on both."""
    measured = []
    for turn in range(runs):
        if turn % 2 == 0:
            before = first()
            measured.append((before, second()))
        else:
            after = second()
            measured.append((first(), after))
    return measured


def _wait(process: subprocess.Popen[str], begin: float) -> tuple[float, float, float]:
    """Wait for the process and ask the system what it used, and what the processes used that it waited for."""
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 << 20 if sys.platform == "darwin" else 1 << 10
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns, the first to the left and the others to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    first = [word.ljust(widths[0]) for word in columns[0]]
    others = [[word.rjust(width) for word in column] for column, width in zip(columns[1:], widths[1:], strict=True)]
    return "".join("  ".join(line) + "\n" for line in zip(first, *others, strict=True))
