"""From a text to its findings: gate, parse once, lower, run the rules. No printing, no arguments, no writing."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import gate
from flake8_torchmem.ownnames import NONE, OwnNames
from flake8_torchmem.source import parse
from flake8_torchmem.words import candidate

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.model import Finding


def check_text(
    text: str,
    path: str,
    codes: frozenset[str],
    tree: ast.Module | None = None,
    project: Project | None = None,
    whole: bool = False,
    own: OwnNames = NONE,
) -> list[Finding]:
    """The findings of one file, sorted by place.

    Args:
        text: decoded source with LF line ends.
        path: the file as it is to be named in findings.
        codes: rules to run.
        tree: the ast of `text`, where the caller has it already.
        project: follows imports into the files around, by the place that `path` names; None judges the file alone.
        whole: look at all of the file, as remedies need it, and not at what matters for findings alone.
        own: names for what PyTorch does.

    Raises:
        SourceError: `tree` is None and the text is no valid Python.
    """
    if tree is None:
        tree = parse(text)
    if not (candidate(text) or own.spoken(text)):
        return []
    try:
        selection = (gate.everything if whole else gate.select)(text, tree, codes, own)
    except Exception as error:  # noqa: BLE001 - one file must never end the run
        return failed(path, codes, error)
    return [] if selection is None else check_selection(text, path, codes, selection, project, whole, own)


def check_selection(
    text: str,
    path: str,
    codes: frozenset[str],
    selection: gate.Selection,
    project: Project | None = None,
    whole: bool = False,
    own: OwnNames = NONE,
) -> list[Finding]:
    """The findings of one file that has passed the gate, for the same arguments. What analyses it is imported only here."""
    try:
        from flake8_torchmem.analysis.findings import findings

        with collector_paused():
            return sorted(findings(text, path, codes, selection, project, whole, own), key=lambda f: (f.span, f.code))
    except Exception as error:  # noqa: BLE001
        return failed(path, codes, error)


def failed(path: str, codes: frozenset[str], error: Exception) -> list[Finding]:
    """What there is to say of a file on which the checker itself fails."""
    from flake8_torchmem.rules.internal import INTERNAL_ERROR, internal_error

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
