"""What the server knows of a document that is open in the editor."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

from flake8_torchmem.analysis.imports.disk import LISTING, SEARCH, Question
from flake8_torchmem.lsp.jobs import Diagnosed, Key, Mended, Offer


@dataclass
class Opened:
    """An open document.

    Attributes:
        uri: as the client spells it.
        path: where it is on the disk; empty if it is not there, as a new one.
        version: of the text, as the client counts.
        text: as the editor holds it.
        findings: as they were shown last.
        shown: the version that they were found in; None before the first check, and while one is being awaited.
        seen: the same, also while they are looked for anew as another file has changed.
        asked: what they depend on, besides the text.
        offers: what can be done about findings, as far as it was asked for.
        all_safe: all safe fixes at once, in a list if that was asked for.
        check: the check that goes on, or the last one.
        told: the user knows already that it is not checked.
    """

    uri: str
    path: str
    version: int
    text: str
    findings: tuple[Diagnosed, ...] = ()
    shown: int | None = None
    seen: int | None = None
    asked: frozenset[Question] = frozenset()
    offers: dict[Key, Offer] = field(default_factory=dict)
    all_safe: list[Mended | None] = field(default_factory=list)
    check: asyncio.Task[None] | None = None
    told: bool = False

    def show(self, findings: tuple[Diagnosed, ...], asked: Iterable[Question]) -> None:
        """Take over what was found in the text as it is."""
        self.findings, self.asked = findings, frozenset(asked)
        self.shown = self.seen = self.version
        self.offers.clear()
        self.all_safe.clear()

    def depends_on(self, path: str, folder: str = "") -> bool:
        """Whether findings may be others once a file has changed.

        Args:
            path: of the file.
            folder: around it, where the file was made or is gone.
        """
        return any(kind == SEARCH or what == path or (kind == LISTING and what == folder) for kind, what in self.asked)
