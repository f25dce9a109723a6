"""`torchmem baseline`: write down what is found now, so that `torchmem check` reports only what is new."""

from __future__ import annotations

import os
import shlex

import click

from flake8_torchmem.baseline import FILE, Baseline
from flake8_torchmem.cli.narrowing import judges, read_baseline, say, write_baseline
from flake8_torchmem.cli.options import CLEAN, FAILURE, configured
from flake8_torchmem.cli.streams import write_lines
from flake8_torchmem.cli.work import Work, working
from flake8_torchmem.configuration import Configuration
from flake8_torchmem.configuration.table import shown
from flake8_torchmem.files import find_files
from flake8_torchmem.output.text import count, printable


@click.command(short_help="Write down the findings that are known.")
@configured("Count", "jobs", "cache-dir", "baseline", default=(".",))
@working
@click.option("--stdin-display-name", default="stdin", hidden=True)
def baseline(paths: tuple[str, ...], configuration: Configuration, no_cache: bool, dask: str | None, stdin_display_name: str) -> int:
    """Count the findings in PATHS (the working directory) by file and rule, and write the counts to the baseline.

    That is the file that --baseline or the configuration names, else torchmem-baseline.json beside the configuration file or
    in the working directory. Entries of other files and rules stay as they are, those of files that are gone do not. Exits
    with 0 if it was written, 2 if a path does not exist or a file could not be checked.
    """
    path = configuration.baseline or os.path.join(configuration.folder, FILE)
    old = read_baseline(path) if os.path.lexists(path) else Baseline(path)
    sources = find_files(paths, configuration.exclusions)
    report, checked = Work.of(configuration, no_cache, dask).report(sources, configuration.settings, stdin_display_name)
    for error in report.errors:
        say(error.message)
    if sources.missing:
        return FAILURE
    new = old.renewed(report.findings, judges(old, checked, configuration))
    write_baseline(new)
    findings, files = sum(new.counts.values()), len({file for file, _ in new.counts})
    lines = [f"{count(findings, 'finding')} in {count(files, 'file')} written to {shown(path)}"]
    if configuration.baseline is None:
        lines.append(f"use: {shlex.join(['torchmem', 'check', *paths, '--baseline', shown(path)])}")
    write_lines(map(printable, lines))
    return FAILURE if report.errors else CLEAN
