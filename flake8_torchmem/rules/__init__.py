"""The rules: every `tm*.py` of this package is one, found by pkgutil."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache, lru_cache
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from flake8_torchmem.rules.base import RuleModule


@lru_cache(maxsize=1)
def _files() -> dict[str, str]:
    """Module names by code, read off the files' names: flake8's start-up must not import them."""
    return {info.name[:5].upper(): info.name for info in pkgutil.iter_modules(__path__) if info.name.startswith("tm")}


def rule_codes() -> frozenset[str]:
    """Codes of the rules that check code."""
    return frozenset(_files())


@cache
def rule_module(code: str) -> RuleModule:
    """The module of one rule, imported with what it needs."""
    return cast("RuleModule", importlib.import_module(f"{__name__}.{_files()[code]}"))


def rule_modules() -> dict[str, RuleModule]:
    """All rule modules by code, in the order of their codes."""
    return {code: rule_module(code) for code in sorted(_files())}
