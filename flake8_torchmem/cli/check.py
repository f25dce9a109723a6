"""`torchmem check`: check files and folders, report, and say in the exit code what came of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager

import click

from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, selection, settings_of
from flake8_torchmem.cli.options import jobs as jobs_option
from flake8_torchmem.cli.progress import with_progress
from flake8_torchmem.cli.streams import wants_colour, write_lines
from flake8_torchmem.files import Sources, find_files
from flake8_torchmem.output import Located, Report, json_report, text
from flake8_torchmem.output.text import printable
from flake8_torchmem.rules.internal import UNREADABLE_FILE
from flake8_torchmem.running import Task, check_files
from flake8_torchmem.running.crews import Crew, Processes, processors
from flake8_torchmem.running.task import ClusterError, program


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to report.")
@selection("Report")
@click.option("--no-imports", is_flag=True, help="Judge each file alone: do not read what it imports from the project around it.")
@click.option("--no-cache", is_flag=True, help="Check everything anew, and keep nothing for the next run.")
@click.option(
    "--cache-dir", envvar="TORCHMEM_CACHE_DIR", metavar="FOLDER", help="Where findings are kept; by default in the user's caches."
)
@jobs_option
@click.option("--dask", metavar="SCHEDULER", help="Have the workers of this Dask cluster check the files: an address or a scheduler file.")
@click.option("--isolated", is_flag=True, help="Ignore configuration files: the command line alone decides.")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings.")
@click.option("--stdin-display-name", default="stdin", show_default=True, metavar="PATH", help="What to call standard input in the report.")
def check(
    paths: tuple[str, ...],
    output_format: str,
    select: tuple[str, ...],
    ignore: tuple[str, ...],
    extend_select: tuple[str, ...],
    no_imports: bool,
    no_cache: bool,
    cache_dir: str | None,
    jobs: int | None,
    dask: str | None,
    isolated: bool,
    exit_zero: bool,
    stdin_display_name: str,
) -> int:
    """Check PATHS: Python files, folders (without what git ignores), or - for standard input.

    Exits with 0 if all is clean, 1 if there are findings, 2 if a path does not exist or, without findings, if a file
    could not be checked.
    """
    del isolated  # no configuration file is read yet, so every run is isolated
    settings = settings_of(select, ignore, extend_select)
    sources = find_files(paths)
    # Where a cluster's workers are, the folder of a user's caches may be one that all of them share, and no place for a database.
    cache = None if no_cache else cache_dir or (_users_cache() if dask is None else None)
    try:
        with _crews(jobs, dask) as crews:
            task = Task(settings, not no_imports, cache, program=None if dask is None else program())
            report = _run(sources, task, crews, stdin_display_name)
    except ClusterError as error:
        raise click.ClickException(f"--dask: {printable(str(error))}") from error
    write_lines([json_report.render(report)] if output_format == "json" else text.render(report, wants_colour()))
    return _status(report, bool(sources.missing), exit_zero)


def _users_cache() -> str | None:
    """The folder among the user's caches; None for a user without a home."""
    from platformdirs import user_cache_dir

    folder = user_cache_dir("torchmem", appauthor=False)
    return folder if os.path.isabs(folder) else None


def _status(report: Report, missing: bool, exit_zero: bool) -> int:
    if missing:
        return FAILURE
    if report.findings and not exit_zero:
        return FINDINGS
    return FAILURE if report.errors else CLEAN


@contextmanager
def _crews(jobs: int | None, dask: str | None) -> Iterator[tuple[Crew | None, Crew | None]]:
    """Who does the work from the start, if not this process, and who takes over from it where it turns out to be long."""
    if dask is not None:
        from flake8_torchmem.running.cluster import connected

        with connected(dask) as cluster:
            yield cluster, None
    elif jobs is None:
        yield None, Processes(processors()) if processors() > 1 else None
    else:
        yield Processes(jobs) if jobs > 1 else None, None


def _run(sources: Sources, task: Task, crews: tuple[Crew | None, Crew | None], stdin_name: str) -> Report:
    findings: list[Located] = []
    errors = list(sources.errors)
    checked = 0
    results = check_files(sources.files, task, *crews, stdin_name, lambda message: click.echo(f"torchmem: {message}", err=True))
    with closing(results), closing(with_progress(results, len(sources.files))) as shown:
        for result in shown:
            if result.error is not None:
                errors.append(result.error)
            else:
                checked += 1
                findings += result.findings
    list_errors = UNREADABLE_FILE.code in task.settings.enabled_codes()
    errors = [error for error in errors if list_errors or error.path in sources.missing]
    return Report(findings, errors, checked)
