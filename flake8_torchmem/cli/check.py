"""`torchmem check`: check files and folders, report, and say in the exit code what came of it."""

from __future__ import annotations

from contextlib import closing

import click

from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, selection, settings_of
from flake8_torchmem.cli.progress import with_progress
from flake8_torchmem.cli.reports import Reporting, reporting
from flake8_torchmem.cli.work import Work, working
from flake8_torchmem.files import STDIN, Sources, find_files, read
from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.details import detailed
from flake8_torchmem.rules.internal import UNREADABLE_FILE
from flake8_torchmem.settings import Settings


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@reporting
@selection("Report")
@working
@click.option("--isolated", is_flag=True, help="Ignore configuration files: the command line alone decides.")
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings.")
@click.option("--stdin-display-name", default="stdin", show_default=True, metavar="PATH", help="What to call standard input in the report.")
def check(
    paths: tuple[str, ...],
    output_format: str,
    output_file: str | None,
    statistics: bool,
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
    how = Reporting.of(output_format, output_file, statistics)
    del isolated  # no configuration file is read yet, so every run is isolated
    settings = settings_of(select, ignore, extend_select)
    sources = find_files(paths)
    work = Work.of(no_imports, no_cache, cache_dir, jobs, dask)
    report = _run(sources, work, settings, stdin_display_name)
    if how.detailed:
        given = {stdin_display_name: STDIN} if STDIN in paths else {}
        report = detailed(report, lambda name: read(given.get(name, name)), settings, work.project())
    how.write(report)
    return _status(report, bool(sources.missing), exit_zero)


def _status(report: Report, missing: bool, exit_zero: bool) -> int:
    if missing:
        return FAILURE
    if report.findings and not exit_zero:
        return FINDINGS
    return FAILURE if report.errors else CLEAN


def _run(sources: Sources, work: Work, settings: Settings, stdin_name: str) -> Report:
    findings: list[Located] = []
    errors = list(sources.errors)
    checked = 0
    results = work.results(sources.files, settings, stdin_name)
    with closing(results), closing(with_progress(results, len(sources.files))) as shown:
        for result in shown:
            if result.error is not None:
                errors.append(result.error)
            else:
                checked += 1
                findings += result.findings
    list_errors = UNREADABLE_FILE.code in settings.enabled_codes()
    errors = [error for error in errors if list_errors or error.path in sources.missing]
    return Report(findings, errors, checked)
