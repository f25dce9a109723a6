"""The `torchmem` command. Exit codes: 0 clean, 1 findings, 2 the tool could not do its work."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from flake8_torchmem import __version__
from flake8_torchmem.cli.options import FAILURE, INTERRUPTED

_COMMANDS = ("check", "fix", "baseline", "rules", "explain", "verify", "lsp")


class _Commands(click.Group):
    """The commands, each in a module of its own that is imported when it is asked for: none pays for what another needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="torchmem")
def torchmem() -> None:
    """Find where PyTorch training code loses memory or corrupts its accumulated gradients."""


def main() -> None:
    """Run the command line of this process. An interrupted run must not look like one with findings."""
    try:
        status = torchmem.main(prog_name="torchmem", standalone_mode=False)
    except click.Abort:
        status = INTERRUPTED
    except click.ClickException as error:
        error.show()
        status = FAILURE
    sys.exit(status)
