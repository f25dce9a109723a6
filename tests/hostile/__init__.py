"""Repositories of an attacker's, and runs on them: bounded in memory and time, with a record of all that they open, run and start."""

from __future__ import annotations

import json
import os
import site
import socket
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.running import REPOSITORY, SCRIPTS, Result, run
from tests.samples import LEAKY

MEMORY = 1 << 30  # bytes of data of each process
SECONDS = 100  # of a processor for each process
WATCH = REPOSITORY / "tests" / "hostile" / "watch"
MARK = "SECRET_MARK"
SECRET = LEAKY.replace("total", MARK)
# Modules that a fresh interpreter, this tool or its libraries import by name. Each says that it was run.
NAMES = """
    _multiprocessing ast asyncio click codecs concurrent conftest contextlib copyreg dataclasses flake8_torchmem functools importlib io
    json libcst linecache multiprocessing os pathspec pickle platformdirs pycodestyle pyflakes pygls random re resource rich runpy
    selectors signal site sitecustomize socket sqlite3 struct subprocess tempfile threading tokenize tomllib torch types typing
    usercustomize warnings
""".split()
SEARCHED = ("pyproject.toml", "setup.cfg", "tox.ini", ".flake8")  # from the project upwards
CODINGS = "utf-7 idna punycode undefined rot13 zip bz2 hex unicode_escape raw_unicode_escape nonsense ../x".split()
IMPORTS = """\
import torch
from fifo import step
from linked import helper
from linked_folder.helper import helper as other
from ..outside.secret import train as above
from stars0 import *
from itself import itself
from blank import nothing


def work(model, loader, optimizer):
    for x in loader:
        itself(model(x))
        nothing(model)
        helper(optimizer)
        other(optimizer)
        above(model, loader, optimizer, optimizer)
        step(model, x, optimizer)
        loss = model(x).sum()
        loss.backward()
        optimizer.step()
"""


@dataclass(frozen=True)
class Ground:
    """Where a run takes place.

    Attributes:
        project: the attacker's.
        outside: what is none of its business.
        home: of the user, with the caches.
        record: what was opened, run and started.
    """

    project: Path
    outside: Path
    home: Path
    record: Path

    @classmethod
    def at(cls, folder: Path) -> Ground:
        """New folders, with something outside that must not be seen nor touched."""
        ground = cls(folder / "project", folder / "outside", folder / "home", folder / "record")
        for path in (ground.project, ground.outside, ground.home):
            path.mkdir()
        (ground.project / ".git").mkdir()
        (ground.outside / "secret.py").write_text(SECRET)
        (ground.outside / "helper.py").write_text(f"def helper(optimizer):\n    optimizer.zero_grad()  # {MARK}\n")
        return ground

    @property
    def trap(self) -> Path:
        """The file that is there when code of the project was run."""
        return self.outside / "ran"

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Files of the project."""
        for name, content in files.items():
            path = self.project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogateescape"))

    def run(self, *command: str, memory: int = MEMORY, seconds: int = SECONDS, stdin: bytes = b"") -> Result:
        """A command of this environment in the project."""
        return run([str(SCRIPTS / command[0]), *command[1:]], self.project, stdin, self.environment(memory, seconds), timeout=600)

    def environment(self, memory: int = MEMORY, seconds: int = SECONDS) -> dict[str, str]:
        """In which every interpreter is bounded and watched, and the user's folders are elsewhere."""
        self.record.touch()
        path = os.pathsep.join(filter(None, [str(WATCH), os.environ.get("PYTHONPATH", "")]))
        home = {name: str(self.home) for name in ("HOME", "USERPROFILE", "LOCALAPPDATA", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        told = {"HOSTILE_RECORD": str(self.record), "HOSTILE_LIMITS": f"{memory} {seconds}", "TORCHMEM_CACHE_DIR": str(self.home / "cache")}
        # That an editable checkout's own modules are compiled, or not yet, is not what is looked for.
        return {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", **home, **told}

    def recorded(self, *kinds: str) -> set[tuple[str, str]]:
        """What was done, by kind, paths absolute with all links followed."""
        found = set()
        for line in self.record.read_bytes().decode("utf-8", "surrogateescape").splitlines():
            kind, cwd, what = line.split("\0")
            if kind in kinds:
                found.add((kind, what if kind in {"start", "network"} else os.path.realpath(os.path.join(cwd, what))))
        return found

    def leaks(self) -> list[str]:
        """What a run read, wrote, ran or started that it must not."""
        python = (sys.prefix, sys.base_prefix, site.getusersitepackages(), *sysconfig.get_paths().values(), *sys.path)
        own = [REPOSITORY, *(Path(path) for path in python if path)]
        readable = [str(path.resolve()) for path in (*own, self.project, self.home, self.record)] + ["/dev/", "/proc/", "/etc/", "/sys/"]
        writable = [str(path.resolve()) for path in (self.project, self.home, self.record)] + ["/dev/null"]
        above = {str(folder / name) for folder in self.project.resolve().parents for name in SEARCHED}
        bad = [f"read {path}" for _, path in self.recorded("read") if not path.startswith(tuple(readable)) and path not in above]
        bad += [f"read {path}" for _, path in self.recorded("read") if path in {"/etc/passwd", "/dev/zero"}]
        bad += [f"wrote {path}" for _, path in self.recorded("write") if not path.startswith(tuple(writable))]
        bad += [f"ran {path}" for _, path in self.recorded("run") if path.startswith(str(self.project.resolve()) + os.sep)]
        bad += [f"{kind} {what}" for kind, what in self.recorded("network")]
        return bad


def shadows(ground: Ground) -> dict[str, str]:
    """Modules that stand where others are looked for."""
    return {f"{name}.py": f"open({str(ground.trap)!r}, 'a').write({name!r})\n" for name in NAMES}


def nasty(ground: Ground) -> None:
    """A tree of all that is known to be bad for who reads it, and a few honest files."""
    long = "a" * 200
    ground.write(shadows(ground))
    ground.write(
        {
            "honest.py": LEAKY,
            "importing.py": IMPORTS,
            "itself.py": "from itself import itself\n",
            "blank.py": "x = 1\n" + "\n" * 900_000,
            **{f"stars{number}.py": "".join(f"from stars{other} import *\n" for other in range(40)) for number in range(40)},
            "deep.ipynb": b'{"cells": ' + b"[" * 200_000,
            "magics.ipynb": notebook("".join(f"!ls {number}\n" for number in range(20_000))),
            "marks.ipynb": notebook("".join(f"# IPython{'_' * number}:\n" for number in range(1_000))),
            "spaces.ipynb": notebook("if x\n" + " " * 200_000 + "=\n%ls"),
            "broken.ipynb": notebook("import a\nx(\n" * 50_000),
            "noqa.py": LEAKY + "TEXT = '''" + "\n# noqa: A1, B2" * 60_000 + "'''\n",
            "brackets.py": LEAKY + f"def fill(self, out):\n    for x in loader:\n        out.append(x)\n    return '{'[' * 150_000}'\n",
            "selves.py": LEAKY + f"def fill(self, out):\n    for x in loader:\n        out.append(x)\n    return '{'self.a ' * 20_000}'\n",
            "branches.py": LEAKY + branches(60),
            "statements.py": "a\n" * 1_250_000,
            f"{long}.py": "x = 1\n",
            ".gitignore": "*a" * 40 + "*b\n" + "**/a/" * 30 + "b\n[\n\\\n" + "*\\\n",
            **{f"coding_{name}.py": f"# coding: {name}\nimport torch\n{'+AGI-' * 50_000}\n" for name in CODINGS},
        }
    )
    with open(ground.project / "sparse.py", "wb") as file:
        file.truncate(10_000_000_000)
    with open(ground.project / "sparse.ipynb", "wb") as file:
        file.truncate(10_000_000_000)
    links(ground)


def links(ground: Ground) -> None:
    """What is no file of the project's own."""
    project, outside = ground.project, ground.outside
    for name, target in {
        "linked.py": outside / "helper.py",
        "secret_link.py": outside / "secret.py",
        "passwd.py": Path("/etc/passwd"),
        "zero.py": Path("/dev/zero"),
        "loop_a.py": Path("loop_b.py"),
        "loop_b.py": Path("loop_a.py"),
        "linked_folder": outside,
        "round": Path(),
        "inside.py": Path("honest.py"),
    }.items():
        (project / name).symlink_to(target)
    os.link(outside / "secret.py", project / "hard.py")
    for name in ("fifo.py", "piped/.gitignore", "piped/pyproject.toml", "piped/fifo.py"):
        (project / name).parent.mkdir(exist_ok=True)
        os.mkfifo(project / name)
    (project / "piped" / "honest.py").write_text(LEAKY)
    (project / "folder.py").mkdir()
    here = Path.cwd()
    os.chdir(project)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket_file.py")
    finally:
        os.chdir(here)


def notebook(source: str) -> str:
    """A notebook with one cell."""
    cell: dict[str, object] = {"cell_type": "code", "source": source, "metadata": {}, "outputs": [], "execution_count": None}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


def branches(count: int) -> str:
    """A function with two to the power of so many paths to its step."""
    tests = "".join(f"        if a[{number}]:\n            loss = b[{number}]\n            loss.backward()\n" for number in range(count))
    return f"\n\ndef many(model, loader, optimizer, a, b):\n    for loss in loader:\n{tests}        optimizer.step()\n"


def untouched(ground: Ground) -> Iterator[str]:
    """What is outside, to be compared."""
    for path in sorted(ground.outside.iterdir()):
        yield f"{path.name} {path.read_text()} {path.stat().st_mtime_ns}"
