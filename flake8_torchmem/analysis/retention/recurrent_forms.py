"""What a recurrent state is made of, as the model that hands it back shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.recurrence import Carried, Recurrence, model_of

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAKES_DICT = frozenset({"dict", "OrderedDict", "defaultdict"})


def is_nested(value: ir.Expr) -> bool:
    """Whether a value is more than a tensor or a tuple of some: a dict, an object, a sequence of tuples or of nothing."""
    if isinstance(value, ir.Seq):
        return value.kind in ("dict", "set") or any(isinstance(item, (ir.Seq, ir.Comp, ir.Const)) for item in value.items)
    if isinstance(value, ir.Comp):
        return value.kind == "DictComp" or isinstance(value.element, (ir.Seq, ir.Comp, ir.Const))
    if isinstance(value, ir.Op) and value.op == "*":
        return any(isinstance(arg, ir.Seq) and is_nested(arg) for arg in value.args)
    if not isinstance(value, ir.Call) or value.receiver is not None:
        return False
    of_torch = torchapi.resolve(value.path or "", value.ctx.file.imports).startswith("torch.")
    return value.method in MAKES_DICT or (value.method[:1].isupper() and not of_torch)


def returned(facts: FileFacts, function: ir.Function, state: str, carried: Carried) -> Iterator[ir.Expr]:
    """What the state is made with in the models in sight: in the display that they return, by its place there."""
    call = carried.event.call
    forwards = {facts.bindings.callee(call, function), *Recurrence(facts, function).forwards(model_of(call))} - {None}
    indices = {_index(bind.value, call) for bind in facts.bindings.assigned(function).get(state, ())} - {None}
    for forward in forwards:
        for event in forward.events() if forward is not None else ():
            if isinstance(event, ir.Return):
                yield from (made for index in indices for made in _made(facts, forward, event.value, index))


def _index(value: ir.Expr, call: ir.Call) -> int | None:
    """Which part of a call's result a value is; -1 for the whole."""
    if value is call:
        return -1
    if isinstance(value, ir.Item) and value.base is call and isinstance(value.key, ir.Const) and isinstance(value.key.value, int):
        return value.key.value
    return None


def _made(facts: FileFacts, forward: ir.Function | None, value: ir.Expr, index: int | None) -> Iterator[ir.Expr]:
    """What a returned value, or a part of it, is bound to and filled with."""
    if index is not None and index >= 0:
        if not isinstance(value, ir.Seq) or index >= len(value.items):
            return
        value = value.items[index]
    yield value
    if not isinstance(value, ir.Name) or forward is None:
        return
    yield from (bind.value for bind in facts.bindings.assigned(forward).get(value.path, ()) if bind.kind != "augment")
    for event in forward.events():
        if isinstance(event, ir.Store) and event.place == value.path:
            keyed = isinstance(event.key, ir.Const) and isinstance(event.key.value, str)
            yield ir.Seq("dict" if keyed else "list", (event.value,))
