"""`torchmem lsp`: the language server."""

from __future__ import annotations

import click

from flake8_torchmem.cli.options import selection, settings_of


@click.command()
@selection("Report")
@click.option("--no-imports", is_flag=True, help="Judge each document alone: do not read what it imports from the project around it.")
@click.option("--stdio", is_flag=True, hidden=True, help="Ignored: many editors add it, and there is no other way.")
def lsp(select: tuple[str, ...], ignore: tuple[str, ...], extend_select: tuple[str, ...], no_imports: bool, stdio: bool) -> int:
    """Speak the Language Server Protocol on standard input and output: findings, fixes and pages of rules in an editor.

    Takes the extra `lsp`. Exits with 0 after the client has said goodbye, 1 if it is gone without.
    """
    del stdio
    settings = settings_of(select, ignore, extend_select)
    try:
        from flake8_torchmem.lsp.server import serve
    except ImportError as error:
        raise click.ClickException(f"lsp needs pygls 2: pip install 'flake8-torchmem[lsp]' ({error})") from error
    return serve(settings, not no_imports)
