"""Gate, parse once, lower, run the rules. No printing, no arguments, no writing."""

from __future__ import annotations

import ast
import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import gate, ir
from flake8_torchmem.model import Finding, Span
from flake8_torchmem.rules.internal import INTERNAL_ERROR, internal_error
from flake8_torchmem.source import Slices, parse

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.imports.linking import Linked
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.rules.base import Report


def check_text(
    text: str, path: str, codes: frozenset[str], tree: ast.Module | None = None, project: Project | None = None, whole: bool = False
) -> list[Finding]:
    """The findings of one file, sorted by place.

    Args:
        text: decoded source with LF line ends.
        path: the file as it is to be named in findings.
        codes: rules to run.
        tree: the ast of `text`, where the caller has it already.
        project: follows imports into the files around, by the place that `path` names; None judges the file alone.
        whole: look at all of the file, as remedies need it, and not at what matters for findings alone.

    Raises:
        SourceError: `tree` is None and the text is no valid Python.
    """
    if tree is None:
        tree = parse(text)
    if not gate.candidate(text):
        return []
    try:
        selection = (gate.everything if whole else gate.select)(text, tree, codes)
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
    from flake8_torchmem.analysis.imports.importers import Importers
    from flake8_torchmem.analysis.imports.linking import Linked, Linker
    from flake8_torchmem.analysis.lower import lower

    slices = Slices(text, selection)
    root = project.root(os.path.dirname(os.path.abspath(path))) if project else ""
    names = project.names(path, root, selection.imports, selection.relative) if project else selection.imports
    program = lower(slices.modules(), ir.File(path, names))
    bases = {name: tuple(torchapi.resolve(base, names) for base in found) for name, found in selection.bases.items()}
    linker = Linker(program, project, root) if project else None
    linked = linker.link(bases) if linker else Linked()
    known = bases | linked.bases, selection.guarded | linked.guarded
    try:
        facts = FileFacts(program, *known)
        found, failure = _reports(codes, facts, path)
        homes = facts.homes(site for _, report in found for site in (report.site, *report.mentions))
        if found and linker and project and Importers(program, project, root).link(homes):
            # What callers in other files know, and what they make, may only take a finding back.
            linked = linker.link(bases)
            known = bases | linked.bases, selection.guarded | linked.guarded
            still, failed = _reports(frozenset(code for code, _ in found), FileFacts(program, *known), path)
            kept = {_place(code, report): report.remedy for code, report in still}
            if failed is None:
                # A remedy has to be right for all callers.
                found = [(code, replace(each, remedy=kept[_place(code, each)])) for code, each in found if _place(code, each) in kept]
            failure = failure or failed
        yield from _findings(found, path, slices, linked)
        if failure is not None and INTERNAL_ERROR.code in codes:
            yield failure
    finally:
        program.release()


def _place(code: str, report: Report) -> tuple[str, ir.Mark, int | None]:
    return code, report.site.mark, report.site.rank


def _reports(codes: frozenset[str], facts: FileFacts, path: str) -> tuple[list[tuple[str, Report]], Finding | None]:
    """What the rules report, and the first failure of one: a rule that fails must not take the others along."""
    from flake8_torchmem.rules import rule_modules

    found: list[tuple[str, Report]] = []
    failure: Finding | None = None
    for code, module in rule_modules().items():
        if code in codes:
            try:
                found += [(code, report) for report in module.check(facts)]
            except Exception as error:  # noqa: BLE001
                failure = failure or internal_error(path, error)
    return found, failure


def _findings(found: list[tuple[str, Report]], path: str, slices: Slices, linked: Linked) -> Iterator[Finding]:
    """Reports with their places, each place once per rule."""
    from flake8_torchmem.remedies import Remedy, placed
    from flake8_torchmem.rules import rule_modules

    seen: set[tuple[str, Span]] = set()
    for code, report in found:
        span = slices.locate(report.site) or Span(1, 1, 1, 1)
        if (code, span) in seen:
            continue
        seen.add((code, span))
        lines = [_line(site, slices, linked) for site in report.mentions]
        message = report.message.format(*lines) if lines else report.message
        rule = rule_modules()[code].RULE
        remedy = placed(report.remedy, slices.locate) if isinstance(report.remedy, Remedy) else report.remedy
        yield Finding(code, rule.name, path, span, report.severity or rule.severity, message, report.help, remedy)


def _line(site: ir.Site, slices: Slices, linked: Linked) -> str:
    """The line that a message mentions, with its file where that is another one."""
    if site.file.linked:
        return linked.locate(site)
    span = slices.locate(site)
    return str(span.line) if span else "?"
