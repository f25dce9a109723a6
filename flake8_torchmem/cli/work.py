"""How `torchmem check` goes about its work: the options, and who does it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flake8_torchmem.cli.progress import with_progress
from flake8_torchmem.files import Sources
from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.text import printable
from flake8_torchmem.rules.internal import UNREADABLE_FILE
from flake8_torchmem.running import FileResult, Task, check_files
from flake8_torchmem.running.task import ClusterError, program

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.configuration import Configuration
    from flake8_torchmem.running.crews import Crew
    from flake8_torchmem.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Work:
    """How the files of a run are checked.

    Attributes:
        imports: follow what they import.
        root: the folder in which imports are looked for; empty to look for it around each file.
        cache: the folder in which findings are kept; None keeps none.
        jobs: processes at once; None for as many as are worth it.
        dask: the scheduler of a cluster that does the work.
    """

    imports: bool
    root: str
    cache: str | None
    jobs: int | None
    dask: str | None

    @classmethod
    def of(cls, configuration: Configuration, no_cache: bool, dask: str | None) -> Work:
        """What is asked for."""
        # Where a cluster's workers are, the folder of a user's caches may be one that all of them share: no place for a database.
        cache = None if no_cache else configuration.cache_dir or (_users_cache() if dask is None else None)
        if cache is not None and configuration.cache_dir and _may_be_shipped(cache):
            _complain(f"the cache in {printable(cache)} may be part of the repository, and is not used")
            cache = None
        return cls(configuration.follow_imports, configuration.project_root, cache, configuration.jobs, dask)

    def results(self, files: Sequence[str], settings: Settings, stdin_name: str) -> Generator[FileResult, None, None]:
        """What comes of the files, in their order.

        Args:
            files: paths; `-` is standard input.
            settings: which rules to run.
            stdin_name: what standard input is called.

        Raises:
            ClickException: the cluster cannot do the work.
        """
        task = Task(settings, self.imports, self.root, self.cache, program=None if self.dask is None else program())
        try:
            with self._crews() as (crew, helpers), closing(check_files(files, task, crew, helpers, stdin_name, _complain)) as results:
                yield from results
        except ClusterError as error:
            raise click.ClickException(f"--dask: {printable(str(error))}") from error

    def report(self, sources: Sources, settings: Settings, stdin_name: str) -> tuple[Report, list[str]]:
        """What comes of all files, and the names of those that were checked, all of them. Arguments and errors are as for `results`."""
        findings: list[Located] = []
        errors = list(sources.errors)
        checked: list[str] = []
        results = self.results(sources.files, settings, stdin_name)
        with closing(results), closing(with_progress(results, len(sources.files))) as shown:
            for result in shown:
                errors += result.errors
                findings += result.findings
                if not result.errors:
                    checked.append(result.name)
        listed = [one for one in errors if one.path in sources.missing or UNREADABLE_FILE.code in settings.enabled_codes(one.path)]
        return Report(findings, listed, len(checked)), checked

    def project(self) -> Project | None:
        """Follows imports anew, in this process."""
        from flake8_torchmem.analysis.imports.project import Project

        return Project(top=self.root) if self.imports else None

    @contextmanager
    def _crews(self) -> Iterator[tuple[Crew | None, Callable[[], Crew] | None]]:
        """Who does the work from the start, if not this process, and who takes over from it if it turns out to be long."""
        if self.dask is not None:
            from flake8_torchmem.running.cluster import connected

            with connected(self.dask) as cluster:
                yield cluster, None
        elif self.jobs is None:
            yield None, partial(_processes, processors()) if processors() > 1 else None
        else:
            yield _processes(self.jobs) if self.jobs > 1 else None, None


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _processes(size: int) -> Crew:
    from flake8_torchmem.running.pool import Processes

    return Processes(size)


def working(command: Command) -> Command:
    """`--no-cache` and `--dask`, beside what a configuration may say as well."""
    options = (
        click.option("--no-cache", is_flag=True, help="Check everything anew, and keep nothing for the next run."),
        click.option("--dask", metavar="SCHEDULER", help="Have a Dask cluster's workers do the work: its address, or its scheduler file."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def _users_cache() -> str | None:
    """The folder among the user's caches; None for a user without a home."""
    from platformdirs import user_cache_dir

    folder = user_cache_dir("torchmem", appauthor=False)
    return folder if os.path.isabs(folder) else None


def _may_be_shipped(folder: str) -> bool:
    """Whether a repository may have brought the cache along, or leads it elsewhere: it would be told what is found."""
    from flake8_torchmem.reach import brings_along, leads_out

    try:
        from flake8_torchmem.cache.store import FILE
    except ImportError:  # Python can be built without SQLite: there will be no cache
        return False
    return leads_out(os.path.join(folder, FILE)) or brings_along(folder, FILE)


def _complain(message: str) -> None:
    click.echo(f"torchmem: {printable(message)}", err=True)
