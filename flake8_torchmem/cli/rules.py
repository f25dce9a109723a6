"""`torchmem rules`: the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator

import click

from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.cli.streams import write_lines
from flake8_torchmem.rules.base import Rule


@click.command(short_help="List all rules.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to list them.")
def rules(output_format: str) -> int:
    """List all rules: code, name, whether on by default, severity, class of the fix, and what each reports."""
    every = list(catalogue().values())
    if output_format == "json":
        write_lines([json.dumps({"version": 1, "rules": [_row(rule) for rule in every]}, indent=2)])
    else:
        write_lines(_table(every))
    return 0


def _row(rule: Rule) -> dict[str, str | bool]:
    return {
        "code": rule.code,
        "name": rule.name,
        "summary": rule.summary,
        "severity": rule.severity.value,
        "default": rule.default,
        "since": rule.since,
        "fix": rule.safety.value,
        "fix_reason": rule.safety_reason,
        "effect": rule.effect,
    }


def _table(every: list[Rule]) -> Iterator[str]:
    head = ("CODE", "NAME", "DEFAULT", "SEVERITY", "FIX", "REPORTS")
    rows = [(rule.code, rule.name, "on" if rule.default else "off", rule.severity.value, rule.safety.value, rule.summary) for rule in every]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
