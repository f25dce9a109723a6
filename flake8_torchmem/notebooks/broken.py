"""What stands for a cell that is no Python: nobody knows what it does, so nothing that it speaks of is known after it.

The other cells are checked all the same. What the cell imports is imported. Whatever else it names is bound to a call that nobody knows,
may be frozen, and gradients may be switched: of that, rules say nothing. And nothing is said of code that uses what it defines.
"""

from __future__ import annotations

import ast
import builtins
import keyword
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from flake8_torchmem.notebooks.magics import UNKNOWN
from flake8_torchmem.source import SourceError, parse

MAX_NAMES = 300
_NAME = re.compile(r"(?<![\w.])([A-Za-z_]\w*)(\s*=(?!=))?")
_IMPORT = re.compile(r"^(?:(?:import|from)[ \t][^\n(;\\]*|from[ \t]+[.\w]+[ \t]+import[ \t]*\([\w\s,]*\)[ \t]*)$", re.MULTILINE)
_WORD = re.compile(r"\w+")
_DEFINED = re.compile(r"^(?:async[ \t]+def|def|class)[ \t]+(\w+)", re.MULTILINE)
_FREEZES = re.compile(r"requires_grad|toggle_grad|trainable|freeze")
_SWITCHES = re.compile(r"set_grad_enabled|no_grad|enable_grad|inference_mode")
_BUILTIN = frozenset(dir(builtins))


def stand_in(source: str, imported: frozenset[str]) -> str | None:
    """As many lines that say of the names in a cell that they may be anything; None of one that has too many of them.

    Args:
        source: of the cell, LF line ends.
        imported: names that other cells import. They stay what they are, if the cell does not assign to them.
    """
    lines, rest = _split(source)
    names = sorted(set(_unknown(rest, imported | imported_by(["\n".join(lines)]))))
    if len(names) > MAX_NAMES:
        return None
    statements = [f"{name} = {UNKNOWN}" for name in names]
    if names and _FREEZES.search(rest):
        statements.append(f"{UNKNOWN}.freeze({', '.join(names)})")
    if _SWITCHES.search(rest):
        statements.append(f"torch.set_grad_enabled({UNKNOWN})")
    if statements:
        before, comment = ("", f"  {lines[-1]}") if lines[-1].startswith("#") else (lines[-1], "")
        lines[-1] = "; ".join(filter(None, [before, *statements])) + comment
    return "\n".join(lines)


def imported_by(texts: Iterable[str]) -> frozenset[str]:
    """The names that pieces of Python import, dotted ones by their first part."""
    nodes = (node for text in texts for node in ast.walk(parse(text)) if isinstance(node, (ast.Import, ast.ImportFrom)))
    return frozenset((alias.asname or alias.name).partition(".")[0] for node in nodes for alias in node.names)


def defined_by(sources: Iterable[str]) -> frozenset[str]:
    """The functions and classes that broken cells define."""
    return frozenset(name for source in sources for name in _DEFINED.findall(source))


def words_around(text: str, line: int) -> frozenset[str]:
    """The words of the statement of a cell, not within another one, that a line is in."""
    return next((words for first, last, words in _statements(text) if first <= line <= last), frozenset())


@lru_cache(maxsize=1)  # findings come cell by cell
def _statements(text: str) -> list[tuple[int, int, frozenset[str]]]:
    lines, found = text.split("\n"), []
    for node in parse(text).body:
        first = min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", ()))])
        last = node.end_lineno or first
        found.append((first, last, frozenset(_WORD.findall("\n".join(lines[first - 1 : last])))))
    return found


def _split(source: str) -> tuple[list[str], str]:
    """The lines of a cell with nothing but its imports, and its comments, of which one may silence findings of the file; and the rest."""
    rest = source.split("\n")
    lines = [line.strip() if line.lstrip().startswith("#") else "" for line in rest]
    number = looked_at = 0
    for found in _IMPORT.finditer(source):
        number, looked_at = number + source.count("\n", looked_at, found.start()), found.start()
        if _is_python(found[0]):
            inner = found[0].split("\n")
            lines[number : number + len(inner)] = inner
            rest[number : number + len(inner)] = [""] * len(inner)
    return lines, "\n".join(line for line in rest if not line.lstrip().startswith("#"))


def _is_python(text: str) -> bool:
    try:
        parse(text)
    except SourceError:
        return False
    return True


def _unknown(source: str, imported: frozenset[str]) -> Iterator[str]:
    for name, assigned in _NAME.findall(source):
        if not keyword.iskeyword(name) and (assigned or (name not in _BUILTIN and name not in imported)):
            yield name
