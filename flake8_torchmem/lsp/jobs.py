"""What the server asks of the process that computes, and what that answers. Plain frozen data, which goes through a pipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from flake8_torchmem.analysis.imports.disk import Question
from flake8_torchmem.model import Edit, Finding, Safety, Span
from flake8_torchmem.settings import Settings

Key = tuple[str, Span]


class Kind(Enum):
    """CHECK: what is wrong with a document. MEND: what mends some findings, each alone. MEND_ALL: all safe fixes at once."""

    CHECK = "check"
    MEND = "mend"
    MEND_ALL = "mend all"


@dataclass(frozen=True)
class Job:
    """One look at one document.

    Attributes:
        kind: what is wanted.
        text: the document as the editor holds it.
        path: its place, or what stands for it where it has none.
        follow: read what it imports; not for a document without a place.
        settings: which rules to run.
        top: the project's folder; empty to look for it.
        unsaved: texts of all open documents, by path.
        findings: that are to be mended.
    """

    kind: Kind
    text: str
    path: str
    follow: bool
    settings: Settings
    top: str = ""
    unsaved: Mapping[str, str] = field(default_factory=dict)
    findings: frozenset[Key] = frozenset()


@dataclass(frozen=True)
class Related:
    """A place that a message speaks of: an absolute path, where in it, and the text of the line that it starts on."""

    path: str
    span: Span
    line: str


@dataclass(frozen=True)
class Diagnosed:
    """A finding as an editor shows it.

    Attributes:
        finding: without its remedy.
        related: what its message speaks of.
        unneeded: nothing but its removal mends it.
    """

    finding: Finding
    related: tuple[Related, ...]
    unneeded: bool

    @property
    def key(self) -> Key:
        """What it is known by in one text."""
        return self.finding.code, self.finding.span


@dataclass(frozen=True)
class Checked:
    """What is wrong with a document.

    Attributes:
        findings: by place.
        asked: what the answer depends on, besides the text.
        broken: why it is no Python at the moment; empty if it is.
    """

    findings: tuple[Diagnosed, ...] = ()
    asked: frozenset[Question] = frozenset()
    broken: str = ""


@dataclass(frozen=True)
class Mended:
    """A fix: what it does in a few words, how much that may change, and the edits."""

    title: str
    safety: Safety
    edits: tuple[Edit, ...]


@dataclass(frozen=True)
class Offer:
    """What can be done about a finding: its fix, if there is one, and the comment that silences it."""

    key: Key
    fix: Mended | None
    silence: Edit


@dataclass(frozen=True)
class Failure:
    """A job that cannot be done, and why."""

    reason: str
