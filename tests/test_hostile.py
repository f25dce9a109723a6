"""A repository under check runs no code, is read and written within its own bounds, and takes bounded time and memory.

The repositories are made by `tests/hostile`; every interpreter of a run is bounded by the system and writes down what it opens, runs and
starts. What is asserted is in `Ground.leaks`: nothing outside of the project is read or written but Python itself and the user's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.cache import open_cache
from flake8_torchmem.cache.store import FILE
from flake8_torchmem.settings import Settings
from tests.hostile import MARK, Ground, nasty, shadows, untouched
from tests.running import Result
from tests.samples import LEAK_LINE, LEAKY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="links, pipes and limits of this system")


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground.at(tmp_path)


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ground, list[str], Result]:
    ground = Ground.at(tmp_path_factory.mktemp("nasty"))
    nasty(ground)
    before = list(untouched(ground))
    return ground, before, ground.run("torchmem", "check", ".", "--jobs", "2")


def assert_contained(ground: Ground, before: list[str]) -> None:
    assert ground.recorded("read")  # there was a look at all
    assert not ground.trap.exists(), ground.trap.read_text()
    assert ground.leaks() == []
    assert list(untouched(ground)) == before


def test_the_watch_sees_what_it_is_for(ground: Ground) -> None:
    """A test of the test: code of the project that is run, and what it does, is in the record."""
    ground.write({"code.py": f"open({str(ground.trap)!r}, 'w')\nopen('/etc/passwd')\nimport os, socket\nos.system('true')\n"})
    ground.run("python", "code.py")
    assert ground.trap.exists()
    assert {kind.split()[0] for kind in ground.leaks()} == {"read", "wrote", "ran"}
    assert ("start", "os.system") in ground.recorded("start")


def test_check_is_contained(checked: tuple[Ground, list[str], Result]) -> None:
    ground, before, _ = checked
    assert_contained(ground, before)


def test_check_goes_on_and_says_what_it_left(checked: tuple[Ground, list[str], Result]) -> None:
    _, _, result = checked
    assert (result.status, result.err) == (1, "")
    assert "TM900" not in result.out
    for name in ("honest", "inside", "noqa", "brackets", "selves", "branches", "piped/honest"):
        assert f"./{name}.py:11:9: TM201" in result.out, name
    said = {
        "secret_link.py": "a link that leads out of the repository",
        "linked.py": "a link that leads out of the repository",
        "passwd.py": "a link that leads out of the repository",
        "zero.py": "a link that leads out of the repository",
        "loop_a.py": "cannot be read: Too many levels of symbolic links",
        "fifo.py": "not a regular file",
        "socket_file.py": "not a regular file",
        "sparse.py": "larger than 10,000,000 bytes",
        "sparse.ipynb": "larger than 100,000,000 bytes",
        "statements.py": "more than 1,200,000 names, numbers and brackets",
        "deep.ipynb": "not valid JSON",
        "broken.ipynb": "too many nested parentheses",
        "magics.ipynb": "too many lines that are no Python",
        "coding_utf-7.py": "ASCII is not written as ASCII",
        "coding_punycode.py": "ASCII is not written as ASCII",
        "coding_undefined.py": "undefined",
        "coding_zip.py": "not a text encoding",
    }
    for name, cause in said.items():
        (line,) = (line for line in result.out.splitlines() if line.startswith(f"./{name}:"))
        assert "TM901" in line
        assert cause in line, line
    assert result.out.count(MARK) == 2  # the other name of a file is the file itself; what links lead to is not shown
    assert f"./hard.py:11:9: TM201 [loss-accumulated] `{MARK}` keeps" in result.out


def test_fix_is_contained(ground: Ground) -> None:
    nasty(ground)
    before = list(untouched(ground))
    result = ground.run("torchmem", "fix", ".", "--unsafe-fixes")
    assert_contained(ground, before)
    assert result.status in {0, 2}
    assert (ground.project / "honest.py").read_text() != LEAKY
    assert (ground.project / "inside.py").is_symlink()
    assert (ground.project / "hard.py").read_text() != (ground.outside / "secret.py").read_text()


def test_fix_writes_through_no_link_that_is_named(ground: Ground) -> None:
    (ground.project / "link.py").symlink_to(ground.outside / "secret.py")
    (ground.project / "folder").symlink_to(ground.outside)
    before = list(untouched(ground))
    for name in ("link.py", "folder/secret.py", "folder"):
        result = ground.run("torchmem", "fix", name)
        assert result.status == 2
        assert "cannot be written: it is a link that leads out of the repository" in result.out
    assert list(untouched(ground)) == before


def test_flake8_with_the_plugin_is_contained(ground: Ground) -> None:
    """flake8 itself waits for pipes and reads files of any size: it is given others."""
    nasty(ground)
    before = list(untouched(ground))
    for name in ("statements.py", "blank.py"):
        (ground.project / name).unlink()
    names = ("honest.py", "importing.py", "noqa.py", "brackets.py", "selves.py", "branches.py", "itself.py", "stars0.py")
    result = ground.run("flake8", "--isolated", "--select=TM", *names)
    assert_contained(ground, before)
    assert result.err == ""
    assert result.out.count("TM201") == 5
    assert "TM900" not in result.out


@pytest.mark.parametrize("root", ["/usr", "..", "{outside}", "linked"])
def test_flake8s_files_lead_nowhere_else(ground: Ground, root: str) -> None:
    ground.write({"a.py": LEAKY, ".flake8": f"[flake8]\ntorchmem-project-root = {root.format(outside=ground.outside)}\n"})
    (ground.project / "linked").symlink_to(ground.outside)
    result = ground.run("flake8", "a.py")
    assert result.status == 1
    assert "leads out of the repository, which only the command line can" in result.out + result.err
    assert (
        ground.run("flake8", "--isolated", "--torchmem-project-root", root.format(outside=ground.outside), "a.py").out.count("TM201") == 1
    )


def test_the_baseline_is_contained(ground: Ground) -> None:
    ground.write({**shadows(ground), "honest.py": LEAKY})
    (ground.outside / "known.json").write_text('{\n"version": 1\n}\n')
    (ground.project / "torchmem-baseline.json").symlink_to(ground.outside / "known.json")
    before = list(untouched(ground))
    result = ground.run("torchmem", "baseline", ".")
    assert (result.status, result.err) == (
        2,
        "Error: torchmem-baseline.json: cannot be written: it is a link that leads out of the repository\n",
    )
    assert list(untouched(ground)) == before
    os.unlink(ground.project / "torchmem-baseline.json")
    os.mkfifo(ground.project / "torchmem-baseline.json")
    result = ground.run("torchmem", "check", ".", "--baseline", "torchmem-baseline.json")
    assert (result.status, result.err) == (2, "Error: torchmem-baseline.json: cannot be read: not a regular file\n")
    assert not ground.trap.exists()


def test_a_report_is_written_through_no_link_out(ground: Ground) -> None:
    ground.write({"honest.py": LEAKY})
    (ground.project / "report.json").symlink_to(ground.outside / "secret.py")
    before = list(untouched(ground))
    result = ground.run("torchmem", "check", ".", "--output-file", "report.json")
    assert "report.json: the report cannot be written: it is a link that leads out of the repository" in result.err
    assert list(untouched(ground)) == before


DEEP = "x = " + "[" * 50_000
CONFIGURATIONS = {
    'project-root = "/"': "project-root: it leads out of ",
    'project-root = "../.."': "project-root: it leads out of ",
    'project-root = "linked"': "project-root: it leads out of ",
    'baseline = "../outside/known.json"': "baseline: it leads out of ",
    'baseline = "~/known.json"': "baseline: it leads out of ",
    'cache-dir = ".cache"': "cache-dir: only the command line, its environment and a file named by --config can say it",
    'output-file = "/tmp/x"': "output-file: there is no such key",
    DEEP: "nested too deeply",
    "a" + ".a" * 100_000 + " = 1": "a key of more than 100 parts",
    "[" * 100_000: "not valid TOML",
    f"{'[' * 100_000}\nx = 1": "not valid TOML",
    f"text = '''\n{'[' * 200_000}\n'''": "text: there is no such key",
    f"{'x' * 100_000} = 1": "there is no such key",
    f'ignore = ["{"x" * 100_000}"]': "no rule has a code that starts with",
    f"api.step = {[f'n{number}' for number in range(5_000)]}": "these are 5,000 names",
    "#" * 600_000: "larger than 500,000 bytes",
}


@pytest.mark.parametrize("line", CONFIGURATIONS, ids=range(len(CONFIGURATIONS)))
def test_a_hostile_configuration_is_refused_in_one_line(ground: Ground, line: str) -> None:
    ground.write({"honest.py": LEAKY, "pyproject.toml": f"[tool.flake8_torchmem]\n{line}\n"})
    (ground.project / "linked").symlink_to(ground.outside)
    before = list(untouched(ground))
    result = ground.run("torchmem", "check", ".")
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith("Error: pyproject.toml")
    assert CONFIGURATIONS[line] in result.err
    assert_contained(ground, before)


def test_a_large_file_of_others_is_none_of_our_business(ground: Ground) -> None:
    ground.write({"honest.py": LEAKY, "pyproject.toml": "# theirs\n" * 100_000})
    assert ground.run("torchmem", "check", ".").out.count("TM201") == 1


def test_a_configuration_that_is_a_pipe_is_not_waited_for(ground: Ground) -> None:
    os.mkfifo(ground.project / "pyproject.toml")
    ground.write({"honest.py": LEAKY})
    result = ground.run("torchmem", "check", ".")
    assert (result.status, result.err) == (2, "Error: pyproject.toml: cannot be read: not a regular file\n")


def test_a_configuration_takes_bounded_work(ground: Ground) -> None:
    patterns = "".join(f'"{"*a" * 30}{number}" = ["TM2"]\n' for number in range(200))
    excluded = ", ".join(f'"{"**/a/" * 20}{number}"' for number in range(100))
    table = f"[tool.flake8_torchmem]\njobs = 100000\nextend-exclude = [{excluded}]\n[tool.flake8_torchmem.per-file-ignores]\n{patterns}"
    ground.write({"pyproject.toml": table, **{f"{'a' * 200}{number}.py": LEAKY for number in range(10)}})
    result = ground.run("torchmem", "check", ".", seconds=20)
    assert (result.status, result.out.count("TM201")) == (1, 10)


def test_the_language_server_is_contained(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygls", reason="the language server needs it")
    from tests.editor import Editor

    nasty(ground)
    before = list(untouched(ground))
    for name, value in ground.environment().items():
        monkeypatch.setenv(name, value)
    editor = Editor(ground.project, cwd=ground.project)
    uris = [editor.open(ground.project / name, (ground.project / name).read_text()) for name in ("honest.py", "importing.py")]
    assert [each.code for each in editor.diagnostics(uris[0])] == ["TM201"]
    assert editor.diagnostics(uris[1]) == []
    assert editor.actions(uris[0], LEAK_LINE - 1)
    assert editor.goodbye() == 0
    assert_contained(ground, before)


HOSTILE_GIT = """
[core]
    fsmonitor = touch {trap}
    sshCommand = touch {trap}
    hooksPath = hooks
    pager = touch {trap}
    alternateRefsCommand = touch {trap}
[remote "origin"]
    url = ext::sh -c "touch {trap}"
    promisor = true
    partialclonefilter = blob:none
    uploadpack = touch {trap}
[extensions]
    partialClone = origin
[protocol]
    allow = always
[protocol "ext"]
    allow = always
[diff]
    external = touch {trap}
[filter "evil"]
    clean = touch {trap}
    smudge = touch {trap}
    required = true
[diff "evil"]
    command = touch {trap}
    textconv = touch {trap}
"""


def test_git_runs_nothing_that_the_repository_configures(ground: Ground) -> None:
    """Objects are missing, too: git must not fetch them by a program that the repository names."""
    shutil.rmtree(ground.project / ".git")
    ground.write({"a.py": LEAKY, "b.py": LEAKY, ".gitattributes": "*.py filter=evil diff=evil\n"})
    for arguments in ("init -q -b main", "config extensions.partialClone origin", "add .", "commit -q -m x"):
        git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments.split()]
        subprocess.run(git, cwd=ground.project, check=True)
    hooks = ground.project / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-index-change", "pre-auto-gc", "post-checkout", "reference-transaction"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {ground.trap}\n")
        (hooks / name).chmod(0o755)
    with open(ground.project / ".git" / "config", "a") as file:
        file.write(HOSTILE_GIT.format(trap=ground.trap))
    (ground.project / "a.py").write_text(LEAKY.replace("total += loss", "total  += loss"))
    result = ground.run("torchmem", "check", ".", "--diff-base", "main")
    assert (result.status, result.out.count("TM201"), result.err) == (1, 1, "")
    for path in (ground.project / ".git" / "objects").glob("??/*"):
        path.chmod(0o644)
        if b"import torch" in zlib.decompress(path.read_bytes()):
            path.unlink()
    result = ground.run("torchmem", "check", ".", "--diff-base", "main")
    assert result.status == 2
    assert result.err.startswith("Error: --diff-base: ")
    assert not ground.trap.exists()


def forged(folder: Path, text: str, place: Path) -> None:
    """A cache that says of a file that there is nothing in it."""
    with open_cache(str(folder), Settings(), Project(), lambda said: None) as kept:  # type: ignore[union-attr]
        root = kept.project.root(str(place.parent))  # type: ignore[union-attr]
        entry: dict[str, object] = {"asked": [], "answers": kept.disk.answers([], root).hex(), "findings": []}
        kept.store.put(kept._key(text, str(place), root), json.dumps(entry).encode())


def test_a_cache_that_the_repository_brings_along_is_not_believed(ground: Ground) -> None:
    ground.write({"a.py": LEAKY})
    forged(ground.project / "cache", LEAKY, ground.project / "a.py")
    command = ("torchmem", "check", "a.py", "--cache-dir", "cache")
    assert "TM201" not in ground.run(*command).out  # whoever may write a cache is believed
    index = b"DIRC\0\0\0\2\0\0\0\1" + b"\0" * 62 + f"cache/{FILE}".encode()
    (ground.project / ".git" / "index").write_bytes(index)
    result = ground.run(*command)
    assert "TM201" in result.out
    assert result.err == f"torchmem: the cache in {ground.project / 'cache'} may be part of the repository, and is not used\n"


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n)"


@pytest.mark.parametrize("kind", ["view", "trigger", "link", "link to a folder", "journal", "pipe", "large", "nonsense"])
def test_a_cache_that_is_a_trap_is_done_without(ground: Ground, kind: str) -> None:
    ground.write({"a.py": LEAKY})
    kept = ground.project / "cache"
    with open_cache(str(kept), Settings(), None, lambda said: None) as cache:  # type: ignore[union-attr]
        cache.store.put(b"key", b"value")
    (ground.outside / "theirs.sqlite3").write_bytes((kept / FILE).read_bytes())
    connection = sqlite3.connect(kept / FILE)
    if kind == "view":
        connection.execute("DROP TABLE entries")
        endless = (
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS number, x AS key, x AS value, x AS used FROM n"
        )
        connection.execute(f"CREATE VIEW entries AS {endless}")
    elif kind == "trigger":
        connection.execute(f"CREATE TRIGGER t AFTER INSERT ON entries BEGIN {ENDLESS} SELECT count(*) FROM n; END")
    connection.commit()
    connection.close()
    if kind == "link to a folder":
        shutil.rmtree(kept)
        kept.symlink_to(ground.outside)
    elif kind in {"link", "pipe"}:
        (kept / FILE).unlink()
        (kept / FILE).symlink_to(ground.outside / "theirs.sqlite3") if kind == "link" else os.mkfifo(kept / FILE)
    elif kind == "journal":
        (kept / f"{FILE}-journal").symlink_to(ground.outside / "secret.py")
    elif kind == "large":
        with open(kept / FILE, "r+b") as file:
            file.truncate(10_000_000_000)
    elif kind == "nonsense":
        (kept / FILE).write_bytes(b"no table")
    names, before = sorted(ground.outside.iterdir()), [path.read_bytes() for path in sorted(ground.outside.iterdir())]
    result = ground.run("torchmem", "check", "a.py", "--cache-dir", "cache")
    assert "TM201" in result.out
    assert (result.status, result.err.count("\n"), "cache" in result.err) == (1, 1, True)
    assert [path.read_bytes() for path in names] == before
    assert sorted(ground.outside.iterdir()) == names


PUMP = """
import importlib, pkgutil, re, sys, time
import flake8_torchmem
def spent(ask, pump, length):
    text = (pump * length)[:length] + "!"
    began = time.process_time()
    ask(text)
    return time.process_time() - began
names = [module.name for module in pkgutil.walk_packages(flake8_torchmem.__path__, "flake8_torchmem.")]
found = {}
for name in names:
    if not re.search(r"[.](verify|lsp|codemods)([.]|$)|__main__|cluster", name):
        for key, value in vars(importlib.import_module(name)).items():
            if key.isupper() or key.startswith("_"):
                pattern, flags = getattr(value, "pattern", None), getattr(value, "flags", 0)
                if isinstance(pattern, str) and isinstance(flags, int):
                    found.setdefault((pattern, flags & ~re.UNICODE), f"{name}.{key}")
assert len(found) > 150, len(found)
for (pattern, flags), name in sorted(found.items(), key=lambda each: each[1]):
    searched = not name.endswith(MATCHED)
    compiled = re.compile(pattern, flags)
    words = sorted(set(re.findall("[A-Za-z_]{2,}", pattern)))[:8]
    for pump in [" ", "\\n", "a", "_", "[", "(", "{", "=", "a ", "a.", "# noqa: A1,", "self.a ", *words, *(word + "_" for word in words)]:
        print(name, repr(pump), file=sys.stderr)
        ask = compiled.search if searched else compiled.match
        took = spent(ask, pump, LENGTH)
        assert took < SUSPECT or took < 8 * spent(ask, pump, LENGTH // 4), took  # four times as much, or sixteen times
"""
LENGTH, SUSPECT = 40_000, 0.1  # seconds: most take some milliseconds
# Patterns that are asked at the beginning of a text alone.
MATCHED = ("baseline._ENTRY", "expressions.ENDS", "later_uses.ITEM", "magics._ASSIGNED", "magics._LOOKS_SO", "magics._TIMED")


def test_no_regular_expression_goes_back_over_all_of_a_long_text(ground: Ground) -> None:
    """The last line of the complaint names the one that took longer than this process was given."""
    result = ground.run("python", "-c", f"MATCHED, LENGTH, SUSPECT = {MATCHED!r}, {LENGTH}, {SUSPECT}\n{PUMP}", seconds=60)
    assert result.status == 0, result.err[-500:]
