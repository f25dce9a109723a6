"""Findings that are kept from run to run, by what they depend on.

An entry is found by all that is known before the analysis: the program that checks, what it is asked for, and the text.
With the findings it names the questions that the analysis asked about the rest of the project, and has a digest of the
answers. It holds while the same questions get the same answers, so that a file which appears where an import was looked
for counts as much as one that changes.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from flake8_torchmem import __version__, check_source
from flake8_torchmem.analysis.imports.disk import SEARCH, Disk, Trace
from flake8_torchmem.model import Finding, Mention, Severity, Span
from flake8_torchmem.rules.internal import INTERNAL_ERROR

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.cache.store import Store
    from flake8_torchmem.settings import Settings


def open_cache(folder: str, settings: Settings, project: Project | None, complain: Callable[[str], None]) -> Cache | None:
    """What checks texts and keeps what it finds, inside its `with` block; None if there can be no cache.

    Args:
        folder: where it is kept; made if it is not there.
        settings: which rules to run.
        project: where imports are followed; None judges each file alone.
        complain: told, in one line and once, that there is no cache.
    """
    try:
        from flake8_torchmem.cache.store import Store

        return Cache(Store(folder, complain), _program(), settings, project)
    except (ImportError, OSError) as error:  # Python can be built without SQLite
        complain(f"there is no cache: {error}")
        return None


class Cache:
    """Checks texts, and remembers; open inside its `with` block.

    Args:
        store: keeps the entries.
        program: what checks.
        settings: which rules to run.
        project: where imports are followed; None judges each file alone.
    """

    def __init__(self, store: Store, program: str, settings: Settings, project: Project | None) -> None:
        self.store = store
        self.settings = settings
        self.project = project
        self.disk = project.disk if project else Disk(searched=0)
        self.disk.digesting = True
        self.beforehand = program, repr(project.limits) if project else "alone"

    def __enter__(self) -> Cache:
        self.store.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.store.__exit__(kind, error, trace)

    def check(self, text: str, path: str) -> list[Finding]:
        """What `check_source` finds in a decoded text."""
        place = os.path.abspath(path)
        root = self.project.root(os.path.dirname(place)) if self.project else ""
        key = self._key(text, place, root)
        kept = self._kept(key, text, path, root)
        if kept is not None:
            return kept
        with self.disk.tracing() as trace:
            findings = check_source(text, path, self.settings, self.project)
        if self.disk.steady and all(finding.code != INTERNAL_ERROR.code for finding in findings):
            self.store.put(key, self._packed(findings, trace, root))
        return findings

    def _key(self, text: str, place: str, root: str) -> bytes:
        """Files are known by their place in the project and by the name of their folder, wherever the project is."""
        known_by = (place.removeprefix(root), os.path.basename(os.path.dirname(place))) if root else ()
        return sha256(
            "\0".join([*self.beforehand, *self.settings.known_by(place), *known_by, text]).encode("utf-8", "surrogatepass")
        ).digest()

    def _packed(self, findings: list[Finding], trace: Trace, root: str) -> bytes:
        asked = sorted(trace.asked)
        entry = {
            "asked": [(kind, path.removeprefix(root)) for kind, path in asked],
            "answers": self.disk.answers(asked, root).hex(),
            "findings": [{**asdict(replace(finding, remedy=None)), "path": None} for finding in findings],
        }
        return json.dumps(entry).encode("ascii")

    def _kept(self, key: bytes, text: str, path: str, root: str) -> list[Finding] | None:
        value = self.store.get(key)
        if value is None:
            return None
        try:
            entry: dict[str, Any] = json.loads(value)
            asked = [(kind, what if kind == SEARCH else root + what) for kind, what in entry["asked"]]
            found = [_finding(fields, path, text.count("\n") + 1) for fields in entry["findings"]]
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):  # whoever wrote it, it was not us
            return None
        return found if self.disk.answers(asked, root).hex() == entry["answers"] else None


def _finding(fields: dict[str, Any], path: str, lines: int) -> Finding:
    span, severity = Span(**fields["span"]), Severity(fields["severity"])
    if not 1 <= span.line <= span.end_line <= lines:
        raise ValueError("it is of another text")
    mentions = tuple(Mention(mention["path"], Span(**mention["span"])) for mention in fields["mentions"])
    return Finding(**{**fields, "path": path, "span": span, "severity": severity, "mentions": mentions})


def _program() -> str:
    """A digest of what checks: Python, and this package with its sources, as a checkout changes under one version."""
    digest = sha256(f"{__version__}\0{sys.version}".encode())
    for path in sorted(Path(__file__).parent.parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
