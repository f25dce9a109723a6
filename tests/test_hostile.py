"""A repository under check runs no code, is read and written within its own bounds, and takes bounded time and memory.

The repositories are made by `tests/hostile`; every interpreter of a run is bounded by the system and writes down what it opens, runs and
starts. What is asserted is in `Ground.leaks`: nothing outside of the project is read or written but Python itself and the user's cache.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.hostile import MARK, Ground, nasty, shadows, untouched
from tests.running import Result
from tests.samples import LEAKY

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


def test_a_configuration_that_is_a_pipe_is_not_waited_for(ground: Ground) -> None:
    os.mkfifo(ground.project / "pyproject.toml")
    ground.write({"honest.py": LEAKY})
    result = ground.run("torchmem", "check", ".")
    assert (result.status, result.err) == (2, "Error: pyproject.toml: cannot be read: not a regular file\n")


def test_a_configuration_takes_bounded_work(ground: Ground) -> None:
    patterns = "".join(f'"{"*a" * 30}{number}" = ["TM2"]\n' for number in range(1_000))
    excluded = ", ".join(f'"{"**/a/" * 20}{number}"' for number in range(500))
    table = f"[tool.flake8_torchmem]\njobs = 100000\nextend-exclude = [{excluded}]\n[tool.flake8_torchmem.per-file-ignores]\n{patterns}"
    ground.write({"pyproject.toml": table, **{f"{'a' * 200}{number}.py": LEAKY for number in range(10)}})
    result = ground.run("torchmem", "check", ".")
    assert (result.status, result.out.count("TM201")) == (1, 10)
