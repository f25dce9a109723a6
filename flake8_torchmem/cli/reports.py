"""How `torchmem check` reports: the options, and the report's way to where it is wanted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from flake8_torchmem.cli.streams import wants_colour, write_file, write_lines
from flake8_torchmem.output import COUNTING, DETAILED, Report, render
from flake8_torchmem.output.text import printable, summary

_STDOUT = "-"
Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Reporting:
    """How to report.

    Attributes:
        output_format: one of the formats.
        file: where to; None for standard output.
        statistics: count by rule as well.
    """

    output_format: str
    file: str | None
    statistics: bool

    @classmethod
    def of(cls, output_format: str, output_file: str | None, statistics: bool) -> Reporting:
        """What the command line asks for; what cannot be is said before the work begins.

        Raises:
            UsageError: the format has no place for statistics, or there is no folder for the file.
        """
        if statistics and output_format not in COUNTING:
            raise click.UsageError(f"--statistics has no place in the format {output_format}")
        file = None if output_file == _STDOUT else output_file
        if file is not None and not os.path.isdir(os.path.dirname(os.path.abspath(file))):
            raise click.UsageError(f"--output-file: there is no folder {os.path.dirname(file)!r}")
        return cls(output_format, file, statistics)

    @property
    def detailed(self) -> bool:
        """Whether the format shows code and fixes."""
        return self.output_format in DETAILED

    def write(self, report: Report) -> None:
        """The report to standard output; or to the file, and then its summary to standard error."""
        whole = replace(report, statistics=self.statistics)
        if self.file is None:
            write_lines(render(self.output_format, whole, wants_colour()))
        else:
            write_file(self.file, render(self.output_format, whole))
            write_lines([f"{summary(report)}; the report is in {printable(self.file)}"], sys.stderr)


def reporting(command: Command) -> Command:
    """`--output-file` and `--statistics`, beside the format, which a configuration may name as well."""
    options = (
        click.option(
            "--output-file", type=click.Path(dir_okay=False, allow_dash=True), metavar="FILE", help="Write the report there, in one piece."
        ),
        click.option("--statistics", is_flag=True, help="Count the findings of each rule as well: in text and json."),
    )
    for option in reversed(options):
        command = option(command)
    return command
