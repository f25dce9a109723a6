"""Which rules run: flake8's select and ignore, by code prefix, the longest prefix winning."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from flake8_torchmem.catalogue import catalogue, suggestion
from flake8_torchmem.rules.internal import INTERNAL_RULES


class SettingsError(ValueError):
    """A setting that cannot be obeyed; its text says why."""


@dataclass(frozen=True)
class Settings:
    """A choice of rules, by prefixes of their codes: `TM`, `TM2`, `TM201`.

    Attributes:
        select: run exactly these, also those that are off by default; None for the default ones.
        ignore: run none of these.
        extend_select: run these in addition.
    """

    select: tuple[str, ...] | None = None
    ignore: tuple[str, ...] = ()
    extend_select: tuple[str, ...] = ()

    def enabled_codes(self) -> frozenset[str]:
        """The codes that may be reported.

        The checker's own failures (TM9xx) are always among them unless they are ignored by name: selecting one rule
        must not hide that it could not run.
        """
        return _enabled_codes(self)


@lru_cache(maxsize=32)
def _enabled_codes(settings: Settings) -> frozenset[str]:
    for prefix in (*(settings.select or ()), *settings.ignore, *settings.extend_select):
        _require_known(prefix)
    return frozenset(rule.code for rule in catalogue().values() if _is_enabled(rule.code, rule.default, settings))


def _is_enabled(code: str, default: bool, settings: Settings) -> bool:
    selected = _longest_match(code, (*(settings.select or ()), *settings.extend_select))
    ignored = _longest_match(code, settings.ignore)
    if selected or ignored:
        return selected > ignored
    return code in INTERNAL_RULES or (default and settings.select is None)


def _longest_match(code: str, prefixes: tuple[str, ...]) -> int:
    return max((len(prefix) for prefix in prefixes if code.startswith(prefix)), default=0)


def _require_known(prefix: str) -> None:
    codes = catalogue()
    if not prefix or not any(code.startswith(prefix) for code in codes):
        raise SettingsError(f"no rule has a code that starts with {prefix!r}{suggestion(prefix.lower(), map(str.lower, codes))}")
