"""Views of outputs that are collected: a small part holds the storage of the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.collected import Collected, collected

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

# Calls whose result shares the storage.
SHARES = frozenset(("detach view squeeze unsqueeze t transpose permute expand_as").split())


def views(facts: FileFacts) -> Iterator[Collected]:
    """Stores of parts of outputs in places that grow; not where several parts of one output are kept."""
    found = [(item, base) for item in collected(facts) if (base := _base(facts, item.function, item.part, item.event)) is not None]
    bases = [base for _, base in found]
    for item, base in found:
        if bases.count(base) == 1:
            yield item


def _base(facts: FileFacts, function: ir.Function, part: ir.Expr, event: ir.Event) -> str | None:
    """The spelling of what a value is a view of, None when it is no small part or has a storage of its own."""
    at = facts.evidence.reaching(function).at
    for _ in range(8):
        if isinstance(part, ir.Name):
            binds = [bind for bind in at.get(event, {}).get(part.path, ()) if bind.kind == "assign"]
            if len(binds) != 1:
                return None
            event, part = binds[0], binds[0].value
        elif isinstance(part, ir.Call) and part.method in SHARES and part.receiver is not None:
            part = part.receiver
        elif isinstance(part, ir.Attr) and part.name == "data":
            part = part.base
        else:
            break
    if isinstance(part, ir.Item) and _selects(part.key):
        return f"{id(function)} {ir.text(part.base)}"
    return None


def _selects(key: ir.Expr) -> bool:
    """Whether an index takes one of many along some dimension, by basic indexing alone: `[:, 0]`, `[:, -1, :]`."""
    if not isinstance(key, ir.Seq) or key.kind != "tuple":
        return False
    basic = all(_is_number(item) or _is_whole(item) for item in key.items)
    return basic and any(_is_number(item) for item in key.items)


def _is_number(expr: ir.Expr) -> bool:
    if isinstance(expr, ir.Op) and expr.op == "neg":
        expr = expr.args[0]
    return isinstance(expr, ir.Const) and isinstance(expr.value, int)


def _is_whole(expr: ir.Expr) -> bool:
    """A slice, an ellipsis, or a new dimension."""
    if isinstance(expr, ir.Seq) and expr.kind == "slice":
        return True
    return (isinstance(expr, ir.Opaque) and not expr.args) or (isinstance(expr, ir.Const) and expr.value is None)
