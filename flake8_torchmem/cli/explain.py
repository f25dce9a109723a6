"""`torchmem explain`: one rule's page."""

from __future__ import annotations

from collections.abc import Iterator

import click

from flake8_torchmem.catalogue import find, page
from flake8_torchmem.cli.streams import wants_colour, write_lines
from flake8_torchmem.rules.base import Rule


@click.command()
@click.argument("rule")
def explain(rule: str) -> int:
    """Print the page of RULE, a code (TM201) or a name (loss-accumulated)."""
    try:
        found = find(rule)
    except LookupError as error:
        raise click.UsageError(str(error.args[0])) from error
    write_lines(_page(found, wants_colour()))
    return 0


def _page(rule: Rule, colour: bool) -> Iterator[str]:
    title = f"{rule.code} {rule.name}"
    yield f"\x1b[1m{title}\x1b[0m" if colour else title
    yield f"{rule.summary} ({rule.severity.value}, {'on' if rule.default else 'off'} by default, since {rule.since})"
    yield ""
    yield page(rule.code)
    yield ""
    yield f"Fix: {rule.safety.value}. {rule.safety_reason}"
    yield f"Effect when run: {rule.effect}"
