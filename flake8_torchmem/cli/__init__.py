"""The `torchmem` command. Exit codes: 0 clean, 1 findings, 2 the tool could not do its work."""

from __future__ import annotations

import sys

import click

from flake8_torchmem import __version__
from flake8_torchmem.cli.check import FAILURE, check
from flake8_torchmem.cli.explain import explain
from flake8_torchmem.cli.rules import rules

_INTERRUPTED = 130


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="torchmem")
def torchmem() -> None:
    """Find where PyTorch training code loses memory or corrupts its accumulated gradients."""


for _command in (check, rules, explain):
    torchmem.add_command(_command)


def main() -> None:
    """Run the command line of this process. An interrupted run must not look like one with findings."""
    try:
        status = torchmem.main(prog_name="torchmem", standalone_mode=False)
    except click.Abort:
        status = _INTERRUPTED
    except click.ClickException as error:
        error.show()
        status = FAILURE
    sys.exit(status)
