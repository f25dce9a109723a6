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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flake8_torchmem import __version__, check_source
from flake8_torchmem.analysis.imports.disk import SEARCH, Disk, Trace
from flake8_torchmem.model import Finding, Severity, Span
from flake8_torchmem.rules.internal import INTERNAL_ERROR

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.cache.store import Store
    from flake8_torchmem.settings import Settings

Check = Callable[[str, str], list[Finding]]


@contextmanager
def caching(folder: str, settings: Settings, project: Project | None, complain: Callable[[str], None]) -> Iterator[Check]:
    """What checks a text under a path, for one run; it keeps what it finds in a folder.

    Args:
        folder: made if it is not there.
        settings: which rules to run.
        project: where imports are followed; None judges each file alone.
        complain: told once, in one line, that there is no cache.
    """
    try:
        from flake8_torchmem.cache.store import Store

        program = _program()
    except (ImportError, OSError) as error:  # Python can be built without SQLite
        complain(f"there is no cache: {error}")
        yield partial(check_source, settings=settings, project=project)
        return
    with Store(folder, complain) as store:
        yield Cache(store, program, settings, project).check


class Cache:
    """Checks texts, and remembers.

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

    def check(self, text: str, path: str) -> list[Finding]:
        """What `check_source` finds in a decoded text."""
        place = os.path.abspath(path)
        root = self.project.root(os.path.dirname(place)) if self.project else ""
        key = self._key(text, place, root)
        kept = self._kept(key, path, root)
        if kept is not None:
            return kept
        with self.disk.tracing() as trace:
            findings = check_source(text, path, self.settings, self.project)
        if trace.repeatable and self.disk.steady and all(finding.code != INTERNAL_ERROR.code for finding in findings):
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

    def _kept(self, key: bytes, path: str, root: str) -> list[Finding] | None:
        value = self.store.get(key)
        if value is None:
            return None
        entry: dict[str, Any] = json.loads(value)
        asked = [(kind, what if kind == SEARCH else root + what) for kind, what in entry["asked"]]
        if self.disk.answers(asked, root).hex() != entry["answers"]:
            return None
        return [_finding(fields, path) for fields in entry["findings"]]


def _finding(fields: dict[str, Any], path: str) -> Finding:
    span, severity = Span(**fields["span"]), Severity(fields["severity"])
    return Finding(**{**fields, "path": path, "span": span, "severity": severity})


def _program() -> str:
    """A digest of what checks: Python, libcst, and this package with its sources, as a checkout changes under one version."""
    digest = sha256(f"{__version__}\0{sys.version}".encode())
    libcst = find_spec("libcst")
    sources = list(Path(__file__).parent.parent.rglob("*.py"))
    if libcst is not None and libcst.origin is not None:
        sources += Path(libcst.origin).parent.glob("*.py")
    for path in sorted(sources):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
