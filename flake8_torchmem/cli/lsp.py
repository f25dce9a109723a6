"""`torchmem lsp`: the language server."""

from __future__ import annotations

from collections.abc import Callable

import click

from flake8_torchmem.cli.options import configured_by_file
from flake8_torchmem.configuration import Configuration


@click.command(short_help="Serve an editor (Language Server Protocol).")
@configured_by_file("Report")
@click.option("--stdio", is_flag=True, hidden=True, help="Ignored: many editors add it, and there is no other way.")
def lsp(configure: Callable[[str], Configuration], stdio: bool) -> int:
    """Speak the Language Server Protocol on standard input and output: findings, fixes and pages of rules in an editor.

    Takes the extra `lsp`. Exits with 0 after the client has said goodbye, 1 if it is gone without.
    """
    del stdio
    try:
        from flake8_torchmem.lsp.server import serve
    except ImportError as error:
        raise click.ClickException(f"lsp needs pygls 2: pip install 'flake8-torchmem[lsp]' ({error})") from error
    return serve(configure)
