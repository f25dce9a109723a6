"""What decides about findings: which rules run, where, how bad what they find is, and what names of a project mean."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache

from flake8_torchmem.model import Finding, Severity
from flake8_torchmem.ownnames import NONE, OwnNames
from flake8_torchmem.rules import rule_codes
from flake8_torchmem.rules.internal import INTERNAL_RULES
from flake8_torchmem.words import DEFAULT_OFF

Prefixes = tuple[str, ...]


class SettingsError(ValueError):
    """A setting that cannot be obeyed; its text says why."""


@dataclass(frozen=True)
class Settings:
    """A choice of rules, by prefixes of their codes as in flake8: `TM`, `TM2`, `TM201`; the longest prefix wins.

    Attributes:
        select: run exactly these, also those that are off by default; None for the default ones.
        ignore: run none of these.
        extend_select: run these in addition.
        per_file_ignores: patterns as in `.gitignore`, each with what is not reported in the files that it matches.
        folder: that those patterns are relative to; empty for the working directory.
        severities: prefixes, each with how bad what they report is.
        own: a project's names for what PyTorch does.
    """

    select: Prefixes | None = None
    ignore: Prefixes = ()
    extend_select: Prefixes = ()
    per_file_ignores: tuple[tuple[str, Prefixes], ...] = ()
    folder: str = ""
    severities: tuple[tuple[str, Severity], ...] = ()
    own: OwnNames = NONE

    def enabled_codes(self, path: str | None = None) -> frozenset[str]:
        """The codes that may be reported.

        The checker's own failures (TM9xx) are always among them unless they are ignored by name: selecting one rule
        must not hide that it could not run.

        Args:
            path: in this file; None for all that a run may report.
        """
        codes = _enabled_codes(self)
        return codes if path is None or not self.per_file_ignores else codes - self._ignored_in(path, codes)

    def weighed(self, finding: Finding) -> Finding:
        """The finding as bad as the settings say."""
        matching = {prefix: severity for prefix, severity in self.severities if finding.code.startswith(prefix)}
        return replace(finding, severity=matching[max(matching, key=len)]) if matching else finding

    def known_by(self, path: str) -> tuple[str, ...]:
        """All that findings in a file depend on, for those who keep them."""
        return (*sorted(self.enabled_codes(path)), repr(self.severities), repr(self.own))

    def _ignored_in(self, path: str, codes: frozenset[str]) -> frozenset[str]:
        from flake8_torchmem.patterns import Patterns

        place = os.path.abspath(path)
        matching = [prefixes for pattern, prefixes in self.per_file_ignores if Patterns(self.folder, (pattern,)).match(place)]
        return frozenset(code for code in codes if any(code.startswith(prefixes) for prefixes in matching))


@lru_cache(maxsize=32)
def _enabled_codes(settings: Settings) -> frozenset[str]:
    named = (prefix for prefixes in (settings.select or (), settings.ignore, settings.extend_select) for prefix in prefixes)
    ignored = (prefix for _, prefixes in settings.per_file_ignores for prefix in prefixes)
    for prefix in (*named, *ignored, *(prefix for prefix, _ in settings.severities)):
        require_known(prefix)
    return frozenset(code for code in _known_codes() if _is_enabled(code, settings))


def _known_codes() -> frozenset[str]:
    return rule_codes() | INTERNAL_RULES.keys()


def _is_enabled(code: str, settings: Settings) -> bool:
    selected = _longest_match(code, (*(settings.select or ()), *settings.extend_select))
    ignored = _longest_match(code, settings.ignore)
    if selected or ignored:
        return selected > ignored
    return code in INTERNAL_RULES or (code not in DEFAULT_OFF and settings.select is None)


def _longest_match(code: str, prefixes: Prefixes) -> int:
    return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=0)


def require_known(prefix: str) -> None:
    """Refuse what no code begins with.

    Raises:
        SettingsError: it is of no rule; the nearest code is named.
    """
    if not prefix or not any(code.startswith(prefix) for code in _known_codes()):
        from flake8_torchmem.catalogue import prefix_suggestion

        raise SettingsError(f"no rule has a code that starts with {prefix!r}{prefix and prefix_suggestion(prefix)}")
