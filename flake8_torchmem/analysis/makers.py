"""What an object is made with: followed through names, moves, wrappers, functions that return it, and callers that hand it in."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.objects import annotated, bound

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAX_HOPS = 4
MAX_PLACES = 60


def makers(facts: FileFacts, path: str, function: ir.Function) -> Iterator[str]:
    """Full names of what is called to make an object, and of what it is declared to be, over some hops from name to name.

    Args:
        facts: of the file.
        path: the object's access path.
        function: where it is read.
    """
    pending = deque([(path, function, MAX_HOPS)])
    met: set[tuple[str, ir.Function]] = set()
    while pending and len(met) < MAX_PLACES:
        path, function, hops = pending.popleft()
        if hops == 0 or (path, function) in met:
            continue
        met.add((path, function))
        for name in annotated(function.annotations.get(path)):
            yield facts.evidence.resolve(name, function)
        for value, home in _values(facts, path, function):
            made = list(_called(facts, value, home, hops - 1))
            yield from (facts.evidence.resolve(node.path or "", scope) for node, scope in made if isinstance(node, ir.Call))
            pending += [(node.path, scope, hops - 1) for node, scope in made if isinstance(node, ir.Name)]


def _values(facts: FileFacts, path: str, function: ir.Function) -> Iterator[tuple[ir.Expr, ir.Function]]:
    """What a path is bound to, and what callers give for it, with where that is written."""
    yield from ((bind.value, home) for bind, home in bound(facts.bindings, path, function))
    for caller, call in facts.summaries.callers.get(function, ()) if path in function.params else ():
        given = dict(function.arguments(call)).get(path)
        if given is not None:
            yield given, caller


def _called(facts: FileFacts, value: ir.Expr, function: ir.Function, hops: int) -> Iterator[tuple[ir.Expr, ir.Function]]:
    """The calls that a value comes out of, those in functions that return it too, and the names that they begin with."""
    while isinstance(value, ir.Call):
        yield value, function
        maker = facts.bindings.callee(value, function) if hops else None
        for event in maker.events() if maker is not None else ():
            if isinstance(event, ir.Return) and maker is not None:
                yield from _called(facts, event.value, maker, hops - 1)
        if value.method in torchapi.MODULE_TRANSPARENT and value.receiver is not None:
            value = value.receiver
        elif value.method in torchapi.MODULE_WRAPPERS and value.args:
            value = value.args[0]
        else:
            return
    if isinstance(value, ir.Op) and value.op in ("if", "or"):
        for arm in value.args[-2:]:
            yield from _called(facts, arm, function, hops)
    if isinstance(value, ir.Name):
        yield value, function
