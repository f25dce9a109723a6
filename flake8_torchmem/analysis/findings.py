"""What the rules find in the part of a file that has passed the gate."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import gate, ir
from flake8_torchmem.analysis.facts import FileFacts
from flake8_torchmem.analysis.imports.importers import Importers
from flake8_torchmem.analysis.imports.linking import Linked, Linker
from flake8_torchmem.analysis.lower import lower
from flake8_torchmem.analysis.triggers import may_report
from flake8_torchmem.model import Finding, Mention, Span
from flake8_torchmem.ownnames import OwnNames
from flake8_torchmem.rules import rule_codes, rule_module
from flake8_torchmem.rules.internal import INTERNAL_ERROR, internal_error
from flake8_torchmem.source import Places

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.remedies import NoRemedy, Remedy
    from flake8_torchmem.rules.base import Report


def findings(
    text: str, path: str, codes: frozenset[str], selection: gate.Selection, project: Project | None, fixing: bool, own: OwnNames
) -> Iterator[Finding]:
    """The findings of one file that has passed the gate, in any order; arguments are those of `check_text`."""
    here = Places(text, selection.ranges)
    root = project.root(os.path.dirname(os.path.abspath(path))) if project else ""
    names = project.names(path, root, selection.imports, selection.relative) if project else selection.imports
    program = lower(selection.body, ir.File(path, names, own=own))
    bases = {name: tuple(torchapi.resolve(base, names) for base in found) for name, found in selection.bases.items()}
    linker = Linker(program, project, root) if project else None
    linked = linker.link(bases) if linker else Linked()
    known = bases | linked.bases, selection.guarded | linked.guarded
    facts = FileFacts(program, *known, fixing=fixing)
    again: FileFacts | None = None
    try:
        found, failure = _reports({code for code in codes if may_report(code, text, facts.trains)}, facts, path)
        homes = facts.homes(site for _, report in found for site in (report.site, *report.mentions))
        sure = _sure(found)
        if found and linker and project and Importers(program, project, root).link(homes):
            # What callers in other files know, and what they make, may take a finding back, or make sure of a tentative one.
            linked = linker.link(bases)
            known = bases | linked.bases, selection.guarded | linked.guarded
            again = FileFacts(program, *known, fixing=fixing)
            still, failed = _reports({code for code, _ in found}, again, path)
            sure = _sure(still) if failed is None else sure
            # A remedy has to be right for all callers.
            remedies = {_key(code, report): report.remedy for code, report in still}
            found = [(code, report._replace(remedy=remedies.get(_key(code, report)))) for code, report in found]
            failure = failure or failed
        found = [(code, report) for code, report in found if _key(code, report) in sure]
        yield from _findings(found, path, here, linked)
        if failure is not None and INTERNAL_ERROR.code in codes:
            yield failure
    finally:
        for each in filter(None, (facts, again)):
            each.release()
        program.release()


def _sure(found: list[tuple[str, Report]]) -> set[tuple[object, ...]]:
    """Which reports need no further evidence."""
    return {_key(code, report) for code, report in found if not report.tentative}


def _key(code: str, report: Report) -> tuple[object, ...]:
    return code, report.site.mark, report.site.extent


def _reports(codes: set[str], facts: FileFacts, path: str) -> tuple[list[tuple[str, Report]], Finding | None]:
    """What the rules report, and the first failure of one: a rule that fails must not take the others along.

    No function here refers to itself: as part of a cycle the facts, and with them all of the file, would wait for the collector.
    """
    found: list[tuple[str, Report]] = []
    failure: Finding | None = None
    for code in sorted(codes & rule_codes()):
        try:
            found += _of_rule(code, facts)
        except Exception as error:  # noqa: BLE001, PERF203
            failure = failure or internal_error(path, error)
    return found, failure


def _of_rule(code: str, facts: FileFacts) -> list[tuple[str, Report]]:
    """What one rule reports. What is found is one thing, what mends it another: that the latter fails must not hide the former."""
    check = rule_module(code).check
    if not facts.fixing:
        return [(code, report) for report in check(facts)]
    try:
        return [(code, report) for report in check(facts)]
    except Exception as error:  # noqa: BLE001
        from flake8_torchmem.remedies import NoRemedy

        facts.fixing = False
        try:
            unmended = NoRemedy(f"what would mend it failed ({error!r})")
            return [(code, report._replace(remedy=unmended)) for report in check(facts)]
        finally:
            facts.fixing = True


def _findings(found: list[tuple[str, Report]], path: str, here: Places, linked: Linked) -> Iterator[Finding]:
    """Reports with their places, each place once per rule."""
    seen: set[tuple[str, Span]] = set()
    for code, report in found:
        span = here.locate(report.site) or Span(1, 1, 1, 1)
        if (code, span) in seen:
            continue
        seen.add((code, span))
        places = [(site, linked.locate(site) if site.file.linked else here.locate(site)) for site in report.mentions]
        message = report.message.format(*(_line(*place) for place in places)) if places else report.message
        mentions = tuple(Mention(site.file.name if site.file.linked else "", place) for site, place in places if place is not None)
        rule = rule_module(code).RULE
        remedy = _placed(report.remedy, here) if report.remedy is not None else None
        yield Finding(code, rule.name, path, span, report.severity or rule.severity, message, report.help, remedy, mentions)


def _placed(remedy: Remedy | NoRemedy, here: Places) -> Remedy | NoRemedy:
    """A remedy with its places; linting has none, and never gets here."""
    from flake8_torchmem.remedies import Remedy, placed

    return placed(remedy, here.locate, here.unread) if isinstance(remedy, Remedy) else remedy


def _line(site: ir.Site, span: Span | None) -> str:
    """The line that a message mentions, with its file where that is another one."""
    line = str(span.line) if span else "?"
    return f"{line} of {site.file.name}" if site.file.linked else line
