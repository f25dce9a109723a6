"""The catalogue: every rule with its row and its page, found by code or by name."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import lru_cache

from flake8_torchmem import rules
from flake8_torchmem.rules.base import Rule
from flake8_torchmem.rules.internal import INTERNAL_PAGES, INTERNAL_RULES


@lru_cache(maxsize=1)
def catalogue() -> dict[str, Rule]:
    """All rules by code, in the order of their codes."""
    return {code: module.RULE for code, module in rules.rule_modules().items()} | INTERNAL_RULES


def page(code: str) -> str:
    """The rule's page: what it reports, why, what was measured, and how to mend it."""
    from flake8_torchmem.measured.pages import with_figures

    return with_figures(code, written_page(code))


def written_page(code: str) -> str:
    """The rule's page as its file has it, with references in place of measured figures."""
    return inspect.cleandoc(INTERNAL_PAGES.get(code) or rules.rule_modules()[code].__doc__ or "")


def find(word: str) -> Rule:
    """The rule with this code or name, whatever the case; a LookupError names the nearest one."""
    by_word = {key: rule for rule in catalogue().values() for key in (rule.code.lower(), rule.name)}
    rule = by_word.get(word.strip().lower())
    if rule is None:
        raise LookupError(f"no rule is called {word!r}{_family(word) or suggestion(word.lower(), by_word)}")
    return rule


def _family(word: str) -> str:
    begun = [code for code in catalogue() if word and code.startswith(word.upper())]
    return f"; {len(begun)} codes begin so, {begun[0]} to {begun[-1]}: `torchmem rules` lists them" if begun else ""


def prefix_suggestion(word: str) -> str:
    """What was meant by a word that no code begins with: the code of the rule of that name, another case, the nearest code."""
    named = next((rule.code for rule in catalogue().values() if rule.name == word.lower()), None)
    if named or any(code.startswith(word.upper()) for code in catalogue()):
        return f"; did you mean {named or word.upper()}?"
    return suggestion(word.lower(), map(str.lower, catalogue()))


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known word, or nothing."""
    import difflib

    nearest = difflib.get_close_matches(word, list(known), n=1, cutoff=0.4)
    return f"; did you mean {nearest[0].upper() if nearest[0].startswith('tm') else nearest[0]}?" if nearest else ""
