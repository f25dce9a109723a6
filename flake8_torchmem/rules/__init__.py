"""The rules: every `tm*.py` of this package is one, found by pkgutil."""

from __future__ import annotations

import importlib
import pkgutil
from functools import lru_cache
from typing import cast

from flake8_torchmem.rules.base import RuleModule


@lru_cache(maxsize=1)
def rule_modules() -> dict[str, RuleModule]:
    """All rule modules by code, in the order of their codes."""
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if info.name.startswith("tm"))
    modules = (cast(RuleModule, importlib.import_module(f"{__name__}.{name}")) for name in names)
    return {module.RULE.code: module for module in modules}
