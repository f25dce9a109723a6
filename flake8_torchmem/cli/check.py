"""`torchmem check`: check files and folders, report, and say in the exit code what came of it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

import click

from flake8_torchmem import check_source
from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.cli.options import CLEAN, FAILURE, FINDINGS, cannot, read, selection, settings_of
from flake8_torchmem.cli.progress import with_progress
from flake8_torchmem.cli.reports import Reporting, reporting
from flake8_torchmem.files import STDIN, Sources, find_files, unreadable
from flake8_torchmem.model import FileError
from flake8_torchmem.output import Located, Report, locate
from flake8_torchmem.output.details import detailed
from flake8_torchmem.rules.internal import UNREADABLE_FILE
from flake8_torchmem.source import SourceError, decode

if TYPE_CHECKING:
    from flake8_torchmem.cache import Check
    from flake8_torchmem.settings import Settings


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATHS...")
@reporting
@selection("Report")
@click.option("--no-imports", is_flag=True, help="Judge each file alone: do not read what it imports from the project around it.")
@click.option("--no-cache", is_flag=True, help="Check everything anew, and keep nothing for the next run.")
@click.option(
    "--cache-dir", envvar="TORCHMEM_CACHE_DIR", metavar="FOLDER", help="Where findings are kept; by default in the user's caches."
)
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
    project = None if no_imports else Project()
    with _checker(settings, project, cache_dir, no_cache) as checker:
        report = _run(sources, checker, stdin_display_name, list_errors=UNREADABLE_FILE.code in settings.enabled_codes())
    if how.detailed:
        report = detailed(report, lambda name: read(STDIN if name == stdin_display_name and STDIN in paths else name), settings, project)
    how.write(report)
    return _status(report, bool(sources.missing), exit_zero)


def _checker(settings: Settings, project: Project | None, cache_dir: str | None, no_cache: bool) -> AbstractContextManager[Check]:
    """What checks the files of this run: with a cache, if there is a place for it."""
    folder = None if no_cache else cache_dir or _users_cache()
    if folder is None:
        return nullcontext(partial(check_source, settings=settings, project=project))
    from flake8_torchmem.cache import caching

    return caching(folder, settings, project, lambda message: click.echo(f"torchmem: {message}", err=True))


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


def _run(sources: Sources, checker: Check, stdin_name: str, list_errors: bool) -> Report:
    findings: list[Located] = []
    errors = list(sources.errors)
    checked = 0
    for path in with_progress(sources.files):
        result = _check_file(path, stdin_name if path == STDIN else path, checker)
        if isinstance(result, FileError):
            errors.append(result)
        else:
            checked += 1
            findings += result
    errors = [error for error in errors if list_errors or error.path in sources.missing]
    return Report(findings, errors, checked)


def _check_file(path: str, name: str, checker: Check) -> list[Located] | FileError:
    try:
        source = decode(read(path))
        findings = checker(source, name)
    except SourceError as error:
        return unreadable(name, str(error), error.line)
    except OSError as error:
        return cannot("read", name, error)
    return locate(findings, source)
