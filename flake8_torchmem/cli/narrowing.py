"""What `torchmem check` leaves out of its report: what a baseline knows, and what is on lines that were not changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from flake8_torchmem.baseline import Baseline, BaselineError, Entry
from flake8_torchmem.baseline import read as read_file
from flake8_torchmem.configuration import Configuration
from flake8_torchmem.configuration.table import shown
from flake8_torchmem.output import Report
from flake8_torchmem.output.text import printable

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Narrowing:
    """What is left out.

    Attributes:
        configuration: of the run; it may name a baseline.
        folder: around the paths that are checked.
        prune: write the baseline again, without what is stale.
        diff_base: report only what is on lines that were changed since then; None for all.
    """

    configuration: Configuration
    folder: str
    prune: bool
    diff_base: str | None

    def __post_init__(self) -> None:
        if self.prune and self.configuration.baseline is None:
            raise click.UsageError("--prune is for a --baseline")

    def report(self, report: Report, checked: Collection[str], text: Callable[[str], str]) -> Report:
        """What is left of a report.

        Args:
            report: of all findings.
            checked: names of the files that were checked.
            text: gives what a file holds, by its name in the report.

        Raises:
            ClickException: the baseline cannot be read or written, or git cannot tell.
        """
        if self.configuration.baseline is not None:
            report = self._unknown(report, checked, self.configuration.baseline)
        return report if self.diff_base is None else self._changed(report, self.diff_base, text)

    def _unknown(self, report: Report, checked: Collection[str], path: str) -> Report:
        known = read_baseline(path)
        judged = known.judge(report.findings, judges(known, checked, self.configuration))
        name = shown(path)
        for (file, code), (before, now) in judged.exceeded.items():
            say(f"{file}: {now} findings of {code}, of which {name} knows {before}: a count cannot tell which are new")
        if self.prune and judged.stale:
            write_baseline(known.pruned(judged.stale))
        for (file, code), (before, now) in judged.stale.items():
            if self.prune:
                say(f"{file}: {name} knew {before} of {code}: {f'lowered to {now}' if now else 'taken out'}")
            else:
                say(f"{file}: {name} knows {before} of {code}, found {now}: --prune {'lowers it' if now else 'takes it out'}")
        if judged.known:
            say(f"{name} knows {judged.known} of the findings")
        return replace(report, findings=judged.new)

    def _changed(self, report: Report, revision: str, text: Callable[[str], str]) -> Report:
        from flake8_torchmem.changes import ChangesError, changed

        try:
            return replace(report, findings=changed(revision, self.folder, report.findings, text))
        except ChangesError as error:
            raise click.ClickException(printable(f"--diff-base: {error}")) from error


def narrowing(command: Command) -> Command:
    """`--diff-base` and `--prune`, beside the baseline, which a configuration may name as well."""
    base = "Report only what is on lines that were changed since HEAD parted from this revision, or are not committed."
    options = (
        click.option("--diff-base", metavar="REV", help=base),
        click.option("--prune", is_flag=True, help="Take out of the baseline what is not found any more."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def read_baseline(path: str) -> Baseline:
    """The baseline in a file.

    Raises:
        ClickException: it cannot be read.
    """
    try:
        return read_file(path)
    except BaselineError as error:
        raise click.ClickException(printable(str(error).replace(path, shown(path), 1))) from error


def write_baseline(baseline: Baseline) -> None:
    """Put a baseline into its file, in one piece.

    Raises:
        ClickException: it cannot be written.
    """
    from flake8_torchmem.writing import write_whole

    try:
        write_whole(baseline.path, baseline.data)
    except OSError as error:
        raise click.ClickException(printable(f"{shown(baseline.path)}: cannot be written: {error.strerror}")) from error


def judges(baseline: Baseline, checked: Collection[str], configuration: Configuration) -> Callable[[Entry], bool]:
    """Which entries a run can judge: of files that it has checked, by rules that ran on them; and of files that are gone.

    Args:
        baseline: that the entries are of.
        checked: names of the files that were checked.
        configuration: of the run.
    """
    codes = {baseline.place(name): configuration.settings.enabled_codes(name) for name in checked}
    folder = os.path.dirname(os.path.abspath(baseline.path))

    def judged(entry: Entry) -> bool:
        path, code = entry
        return code in codes[path] if path in codes else not os.path.lexists(os.path.join(folder, path))

    return judged


def say(message: str) -> None:
    """One line on standard error."""
    click.echo(f"torchmem: {printable(message)}", err=True)
