"""Gate, parse once, lower, run the rules. No printing, no arguments, no writing."""

from __future__ import annotations

import ast
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import gate, ir
from flake8_torchmem.model import Finding, Span
from flake8_torchmem.rules.internal import INTERNAL_ERROR, internal_error
from flake8_torchmem.source import Slices, parse

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.linking import Linked
    from flake8_torchmem.analysis.project import Project
    from flake8_torchmem.rules.base import RuleModule


def check_text(
    text: str, path: str, codes: frozenset[str], tree: ast.Module | None = None, project: Project | None = None
) -> list[Finding]:
    """The findings of one file, sorted by place.

    Args:
        text: decoded source with LF line ends.
        path: the file as it is to be named in findings.
        codes: rules to run.
        tree: the ast of `text`, where the caller has it already.
        project: follows imports into the files around, by the place that `path` names; None judges the file alone.

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
            return sorted(_check(text, path, codes, selection, project), key=lambda f: (f.span, f.code))
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


def _check(text: str, path: str, codes: frozenset[str], selection: gate.Selection, project: Project | None) -> Iterator[Finding]:
    """Findings of a file that passed the gate. What needs libcst is imported only here."""
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.importers import Importers
    from flake8_torchmem.analysis.linking import Linked, Linker
    from flake8_torchmem.analysis.lower import lower
    from flake8_torchmem.rules import rule_modules

    slices = Slices(text, selection)
    root = project.root(os.path.dirname(os.path.abspath(path))) if project else ""
    names = project.names(path, root, selection.imports, selection.relative) if project else selection.imports
    program = lower(slices.modules(), ir.File(path, names))
    bases = {name: tuple(torchapi.resolve(base, names) for base in found) for name, found in selection.bases.items()}
    linked = Linker(program, project, root).link(bases) if project else Linked()
    importers = Importers(project, root, path) if project else None
    facts = FileFacts(program, bases | linked.bases, selection.guarded | linked.guarded, importers)
    failure: Finding | None = None
    try:
        for code, module in rule_modules().items():
            if code not in codes:
                continue
            try:
                yield from list(_reports(module, code, path, facts, slices, linked))
            except Exception as error:  # noqa: BLE001 - a rule that fails must not take the others along
                failure = failure or internal_error(path, error)
        if failure is not None and INTERNAL_ERROR.code in codes:
            yield failure
    finally:
        program.release()


def _reports(module: RuleModule, code: str, path: str, facts: FileFacts, slices: Slices, linked: Linked) -> Iterator[Finding]:
    """The findings of one rule."""
    reported: set[Span] = set()
    for report in module.check(facts):
        span = slices.locate(report.site) or Span(1, 1, 1, 1)
        if span in reported or (module.RULE.of_graphs and facts.unrecorded(report.site)):
            continue
        reported.add(span)
        lines = [_line(site, slices, linked) for site in report.mentions]
        message = report.message.format(*lines) if lines else report.message
        yield Finding(code, module.RULE.name, path, span, report.severity or module.RULE.severity, message, report.help)


def _line(site: ir.Site, slices: Slices, linked: Linked) -> str:
    """The line that a message mentions, with its file where that is another one."""
    if site.file.linked:
        return linked.locate(site)
    span = slices.locate(site)
    return str(span.line) if span else "?"
