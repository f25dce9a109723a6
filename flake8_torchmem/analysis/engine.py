"""Gate, parse once, lower, run the rules. No printing, no arguments, no writing."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from flake8_torchmem.analysis import gate
from flake8_torchmem.model import Finding, Severity, Span
from flake8_torchmem.source import Slices, parse

INTERNAL_ERROR = "TM900"


def check_text(text: str, path: str, codes: frozenset[str], tree: ast.Module | None = None) -> list[Finding]:
    """The findings of one file, sorted by place.

    Args:
        text: decoded source with `\\n` line ends.
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
        selection = gate.select(text, tree)
        return sorted(_check(text, path, codes, selection), key=lambda f: (f.span, f.code)) if selection else []
    except Exception as error:  # noqa: BLE001 - one file must never end the run
        return [internal_error(path, error)] if INTERNAL_ERROR in codes else []


def internal_error(path: str, error: BaseException) -> Finding:
    """A failure of the tool itself, as a finding on the file."""
    cause = f"{type(error).__name__}: {error}".splitlines()[0]
    return Finding(
        INTERNAL_ERROR, "internal-error", path, Span(1, 1, 1, 1), Severity.WARNING,
        f"this file could not be analysed: {cause}", "please report this with the file; the other files were checked",
    )  # fmt: skip


def _check(text: str, path: str, codes: frozenset[str], selection: gate.Selection) -> Iterator[Finding]:
    """Findings of a file that passed the gate. What needs libcst is imported only here."""
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.lower import lower
    from flake8_torchmem.rules import rule_modules

    slices = Slices(text, selection)
    facts = FileFacts(lower(slices.module, selection.imports), selection.bases)
    for code, module in rule_modules().items():
        if code not in codes:
            continue
        reported: set[Span] = set()
        for report in module.check(facts):
            span = slices.locate(report.site) or Span(1, 1, 1, 1)
            if span in reported:
                continue
            reported.add(span)
            lines = [str(other.line) if (other := slices.locate(site)) else "?" for site in report.mentions]
            message = report.message.format(*lines) if lines else report.message
            yield Finding(code, module.RULE.name, path, span, report.severity or module.RULE.severity, message, report.help)
