"""A real Dask cluster of two worker processes: the same report as one process, whatever becomes of the workers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import pytest

from flake8_torchmem.running import FileResult, Task, check_files
from flake8_torchmem.running.cluster import connected
from flake8_torchmem.running.task import Chunk, ClusterError, Source, check_chunk, program
from flake8_torchmem.settings import Settings
from tests.projects import load
from tests.running import torchmem
from tests.samples import LEAKY
from tests.test_running import TROUBLE, write_many

pytest.importorskip("distributed", reason="distributed is not installed (extra dask)")

PATIENCE = 60  # seconds for a scheduler, and for a worker, to be there
QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical", "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}


@contextmanager
def cluster(folder: Path, env: dict[str, str], workers: int = 2) -> Iterator[str]:
    """A scheduler and workers, each a process that its nanny starts again when it dies; yields the scheduler's address."""
    where = folder / "scheduler.json"
    here = {**os.environ, **QUIET, **env}
    local = ["--host=127.0.0.1", "--no-dashboard"]
    with ExitStack() as stack:

        def start(*arguments: str) -> None:
            process = subprocess.Popen([sys.executable, "-m", "distributed.cli.dask_" + arguments[0], *arguments[1:]], cwd=folder, env=here)
            stack.callback(process.wait, PATIENCE)
            stack.callback(process.terminate)

        start("scheduler", *local, "--port=0", f"--scheduler-file={where}")
        start("worker", *local, f"--scheduler-file={where}", f"--nworkers={workers}", "--nthreads=2")
        yield str(where)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "trouble").mkdir()
    (folder / "trouble" / "sitecustomize.py").write_text(TROUBLE)
    env = {"PYTHONPATH": str(folder / "trouble"), "KILLED": str(folder / "killed"), "ASLEEP": str(folder / "asleep")}
    with cluster(folder, env) as address:
        yield address, env


def test_workers_report_what_one_process_reports(scheduler: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    for number, case in enumerate(islice(load(), 20)):
        (tmp_path / f"p{number}").mkdir()
        case.write(tmp_path / f"p{number}")
    write_many(tmp_path, 12)
    command = ["check", "--no-cache", "--select=TM", "--output-format=json", "--stdin-display-name=in.py", "-", "."]
    one = torchmem(*command, "--jobs=1", cwd=tmp_path, stdin=LEAKY.encode())
    assert one.out.count('"TM') > 15
    assert torchmem(*command, f"--dask={scheduler[0]}", cwd=tmp_path, stdin=LEAKY.encode()) == one


def test_a_worker_that_is_killed_takes_nothing_along(scheduler: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    write_many(tmp_path, 12)
    (tmp_path / "m003.py").write_text(f"# kills once\n{LEAKY}")  # the nanny starts another one
    command = ["check", "--no-cache", "."]
    one = torchmem(*command, "--jobs=1", cwd=tmp_path)
    assert torchmem(*command, f"--dask={scheduler[0]}", cwd=tmp_path) == one
    assert os.path.exists(scheduler[1]["KILLED"])
    (tmp_path / "m007.py").write_text(f"# kills always\n{LEAKY}")
    result = torchmem(*command, f"--dask={scheduler[0]}", cwd=tmp_path)
    assert "./m007.py:1:1: TM900 [internal-error] could not be checked: the process that checked it died" in result.out
    assert [line for line in result.out.splitlines() if "TM" in line and "m007" not in line] == [
        line for line in one.out.splitlines() if "TM" in line and "m007" not in line
    ]
    assert (result.status, result.err) == (1, "")


def test_workers_that_would_find_something_else_are_not_asked(scheduler: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    path = str(tmp_path / "a.py")

    def check(task: Task) -> list[FileResult]:
        with connected(scheduler[0]) as cluster:
            return list(check_files([path], task, cluster))

    with pytest.raises(ClusterError, match=r"^the worker on \S+ has flake8-torchmem \S+ with libcst .+, and here is another$"):
        check(Task(Settings(), program="another"))
    (result,) = check(Task(Settings(), program=program()))
    assert [located.finding.code for located in result.findings] == ["TM201"]
    chunk: Chunk = [Source("b.py", LEAKY.encode())]
    gone = Task(Settings(), folder=str(tmp_path), program=program())
    with pytest.raises(ClusterError, match=r"b\.py cannot be read on .+: No such file"):
        check_chunk(gone, chunk)
    (tmp_path / "b.py").write_text("x = 1\n")
    with pytest.raises(ClusterError, match=r"b\.py is another file on "):
        check_chunk(gone, chunk)
    assert check_chunk(Task(Settings(), imports=False, folder=str(tmp_path), program=program()), chunk).results[0].findings


def test_a_scheduler_that_does_not_answer(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = torchmem("check", "--dask", address, ".", cwd=tmp_path)
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert result.err.startswith(f"Error: --dask: no scheduler answers at {address}: ")


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dask.py").write_text("raise ImportError('no dask')\n")
    result = torchmem("check", "--dask", "host:8786", ".", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)})
    assert (result.status, result.out, result.err.count("\n")) == (2, "", 1)
    assert "flake8-torchmem[dask]" in result.err
