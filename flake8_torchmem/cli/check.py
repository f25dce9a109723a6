"""`torchmem check`: check files and folders, report, and say in the exit code what came of it."""

from __future__ import annotations

import click

from flake8_torchmem.cli.narrowing import Narrowing, narrowing
from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, configured
from flake8_torchmem.cli.reports import Reporting, reporting
from flake8_torchmem.cli.work import Work, working
from flake8_torchmem.configuration import Configuration
from flake8_torchmem.configuration.table import common_folder
from flake8_torchmem.files import STDIN, find_files, read
from flake8_torchmem.output import Report
from flake8_torchmem.output.details import detailed
from flake8_torchmem.source import decode


@click.command(short_help="Report findings in files and folders.")
@configured("Report", "output-format", "jobs", "cache-dir", "baseline", default=(".",))
@reporting
@narrowing
@working
@click.option("--exit-zero", is_flag=True, help="Exit with 0 even if there are findings.")
@click.option("--stdin-display-name", default="stdin", show_default=True, metavar="PATH", help="What to call standard input in the report.")
def check(
    paths: tuple[str, ...],
    configuration: Configuration,
    output_file: str | None,
    statistics: bool,
    diff_base: str | None,
    prune: bool,
    no_cache: bool,
    dask: str | None,
    exit_zero: bool,
    stdin_display_name: str,
) -> int:
    """Check PATHS: Python files, notebooks, folders (without what git ignores), or - for standard input; by default the working folder.

    Exits with 0 if all is clean, 1 if there are findings, 2 if a path does not exist or, without findings, if a file
    could not be checked.
    """
    settings = configuration.settings
    how = Reporting.of(configuration.output_format, output_file, statistics)
    given = {stdin_display_name: STDIN} if STDIN in paths else {}
    narrowed = Narrowing(configuration, common_folder([stdin_display_name if path == STDIN else path for path in paths]), prune, diff_base)
    sources = find_files(paths, configuration.exclusions)
    work = Work.of(configuration, no_cache, dask)
    report, checked = work.report(sources, settings, stdin_display_name)
    report = narrowed.report(report, checked, lambda name: decode(read(given.get(name, name))))
    if how.detailed:
        report = detailed(report, lambda name: read(given.get(name, name)), settings, work.project())
    how.write(report)
    return _status(report, bool(sources.missing), exit_zero)


def _status(report: Report, missing: bool, exit_zero: bool) -> int:
    if missing:
        return FAILURE
    if report.findings and not exit_zero:
        return FINDINGS
    return FAILURE if report.errors else CLEAN
