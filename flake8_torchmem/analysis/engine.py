"""Gate, parse once, lower, run the rules. No printing, no arguments, no writing."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import gate, ir
from flake8_torchmem.model import Finding, Span
from flake8_torchmem.rules.internal import INTERNAL_ERROR, internal_error
from flake8_torchmem.source import Slices, parse

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.rules.base import RuleModule


def check_text(text: str, path: str, codes: frozenset[str], tree: ast.Module | None = None) -> list[Finding]:
    """The findings of one file, sorted by place.

    Args:
        text: decoded source with LF line ends.
        path: the file as it is to be named in findings.
        codes: rules to run.
        tree: the ast of `text`, where the caller has it already.

    Raises:
        SourceError: `tree` is None and the text is no valid Python.
    """
    if tree is None:
        tree = parse(text)
    if not gate.candidate(text):
        return []
    try:
        selection = gate.select(text, tree, codes)
        if selection is None:
            return []
        with collector_paused():
            return sorted(_check(text, path, codes, selection), key=lambda f: (f.span, f.code))
    except Exception as error:  # noqa: BLE001 - one file must never end the run
        return [internal_error(path, error)] if INTERNAL_ERROR.code in codes else []


@contextmanager
def collector_paused() -> Iterator[None]:
    """No cycle collection while a file's trees are built: they hold no garbage yet, and are let go without it."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _check(text: str, path: str, codes: frozenset[str], selection: gate.Selection) -> Iterator[Finding]:
    """Findings of a file that passed the gate. What needs libcst is imported only here."""
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.lower import lower
    from flake8_torchmem.rules import rule_modules

    slices = Slices(text, selection)
    program = lower(slices.modules(), ir.File(path, selection.imports))
    facts = FileFacts(program, selection.bases, selection.guarded)
    failure: Finding | None = None
    try:
        for code, module in rule_modules().items():
            if code not in codes:
                continue
            try:
                yield from list(_reports(module, code, path, facts, slices))
            except Exception as error:  # noqa: BLE001 - a rule that fails must not take the others along
                failure = failure or internal_error(path, error)
        if failure is not None and INTERNAL_ERROR.code in codes:
            yield failure
    finally:
        program.release()


def _reports(module: RuleModule, code: str, path: str, facts: FileFacts, slices: Slices) -> Iterator[Finding]:
    """The findings of one rule."""
    reported: set[Span] = set()
    for report in module.check(facts):
        span = slices.locate(report.site) or Span(1, 1, 1, 1)
        if span in reported:
            continue
        reported.add(span)
        lines = [str(other.line) if (other := slices.locate(site)) else "?" for site in report.mentions]
        message = report.message.format(*lines) if lines else report.message
        yield Finding(code, module.RULE.name, path, span, report.severity or module.RULE.severity, message, report.help)
