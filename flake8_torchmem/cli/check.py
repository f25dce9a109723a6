"""`torchmem check`: check files and folders, report, and say in the exit code what came of it."""

from __future__ import annotations

from contextlib import closing

import click

from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, configured
from flake8_torchmem.cli.progress import with_progress
from flake8_torchmem.cli.reports import Reporting, reporting
from flake8_torchmem.cli.work import Work, working
from flake8_torchmem.configuration import Configuration
from flake8_torchmem.files import STDIN, Sources, find_files, read
from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.details import detailed
from flake8_torchmem.rules.internal import UNREADABLE_FILE
from flake8_torchmem.settings import Settings


@click.command()
@configured("Report", checks=True)
@reporting
@working
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings.")
@click.option("--stdin-display-name", default="stdin", show_default=True, metavar="PATH", help="What to call standard input in the report.")
def check(
    paths: tuple[str, ...],
    configuration: Configuration,
    output_file: str | None,
    statistics: bool,
    no_cache: bool,
    dask: str | None,
    exit_zero: bool,
    stdin_display_name: str,
) -> int:
    """Check PATHS: Python files, folders (without what git ignores), or - for standard input.

    Exits with 0 if all is clean, 1 if there are findings, 2 if a path does not exist or, without findings, if a file
    could not be checked.
    """
    settings = configuration.settings
    how = Reporting.of(configuration.output_format, output_file, statistics)
    sources = find_files(paths, configuration.exclusions)
    work = Work.of(configuration, no_cache, dask)
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
    errors = [error for error in errors if error.path in sources.missing or UNREADABLE_FILE.code in settings.enabled_codes(error.path)]
    return Report(findings, errors, checked)
