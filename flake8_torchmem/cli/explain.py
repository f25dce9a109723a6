"""`torchmem explain`: one rule's page."""

from __future__ import annotations

import io
import shutil

import click

from flake8_torchmem.catalogue import find, page
from flake8_torchmem.cli.streams import wants_colour, write_lines
from flake8_torchmem.rules.base import Rule


@click.command(short_help="Print a rule's page.")
@click.argument("rule")
def explain(rule: str) -> int:
    """Print the page of RULE, a code (TM201) or a name (loss-accumulated)."""
    try:
        found = find(rule)
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from error
    text = f"{page(found.code)}\n\n{_row(found)}"
    write_lines([_styled(text) if wants_colour() else text])
    return 0


def _row(rule: Rule) -> str:
    default = "on" if rule.default else "off"
    return f"Severity {rule.severity.value}, {default} by default, fix {rule.safety.value}, since {rule.since}."


def _styled(markdown: str) -> str:
    from rich.console import Console
    from rich.markdown import Markdown

    title, _, body = markdown.partition("\n")
    rendered = io.StringIO()
    # A terminal without a size reports 0 columns on Python 3.10.
    console = Console(file=rendered, force_terminal=True, width=min(shutil.get_terminal_size().columns or 80, 120))
    console.print(title, style="bold", markup=False, highlight=False)
    console.print(Markdown(body))
    return rendered.getvalue()
