"""What an object is made with: followed through names, moves, wrappers, functions that return it, and callers that hand it in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.objects import annotated, bound

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAX_HOPS = 4


def makers(facts: FileFacts, path: str, function: ir.Function, hops: int = MAX_HOPS) -> Iterator[str]:
    """Full names of what is called to make an object, and of what it is declared to be.

    Args:
        facts: of the file.
        path: the object's access path.
        function: where it is read.
        hops: how many names and calls are followed.
    """
    if hops == 0:
        return
    for name in annotated(function.annotations.get(path)):
        yield facts.evidence.resolve(name, function)
    for bind, home in bound(facts.bindings, path, function):
        yield from _makes(facts, bind.value, home, hops - 1)
    if path in function.params:
        for caller, call in facts.summaries.callers().get(function, ()):
            given = dict(function.arguments(call)).get(path)
            if given is not None:
                yield from _makes(facts, given, caller, hops - 1)


def _makes(facts: FileFacts, value: ir.Expr, function: ir.Function, hops: int) -> Iterator[str]:
    while isinstance(value, ir.Call):
        yield facts.evidence.resolve(value.path or "", function)
        maker = facts.bindings.callee(value, function) if hops else None
        for event in maker.events() if maker is not None else ():
            if isinstance(event, ir.Return) and maker is not None:
                yield from _makes(facts, event.value, maker, hops - 1)
        if value.method in torchapi.MODULE_TRANSPARENT and value.receiver is not None:
            value = value.receiver
        elif value.method in torchapi.MODULE_WRAPPERS and value.args:
            value = value.args[0]
        else:
            return
    if isinstance(value, ir.Op) and value.op in ("if", "or"):
        for arm in value.args[-2:]:
            yield from _makes(facts, arm, function, hops)
    if isinstance(value, ir.Name):
        yield from makers(facts, value.path, function, hops)
