"""Checkpoints: where they are loaded, and whether they are still held when the work begins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.retention.evaluation import forwards
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RUNNER = Words(r"trainer|runner|learner|engine|experiment|solver|agent", re.I)


def load_without_location(facts: FileFacts, function: ir.Function, value: ir.Expr) -> ir.Call | None:
    """The `torch.load` without map_location whose result, or a part of it, is bound."""
    while isinstance(value, (ir.Item, ir.Attr)):
        value = value.base
    if not isinstance(value, ir.Call) or value.star or "map_location" in value.kwargs or len(value.args) != 1:
        return None
    return value if facts.evidence.resolve(value.path or "", function) == "torch.load" else None


def alive_at_work(facts: FileFacts, function: ir.Function, load: ir.Bind) -> bool:
    """Whether the name still holds it, or what was made from it, where the function or its class trains or evaluates."""
    if load.place.startswith("self.") and function.owner:
        methods = [method for method in function.owner.methods.values() if method is not function]
        dropped = any(
            bind.kind == "delete" or isinstance(bind.value, ir.Const)
            for bind in facts.bindings.binds(load.place, function)
            if bind is not load
        )
        return not dropped and any("backward" in facts.summaries.effects(method) for method in methods)
    at = facts.evidence.reaching(function).at
    holding = {load}
    for event in function.events():
        if isinstance(event, ir.Bind) and event.place == load.place and _reads(event.value, load.place):
            holding.add(event)
    return any(holding & at.get(event, {}).get(load.place, frozenset()) for event in _works(facts, function))


def _reads(expr: ir.Expr, place: str) -> bool:
    return any(place in paths.prefixes(path) for path in ir.names(expr))


def is_checkpoint(function: ir.Function, load: ir.Bind) -> bool:
    """Whether the keys that are read, a `load_state_dict`, or a part that is named so say that it is a checkpoint and no data set."""
    place = load.place
    for event in function.events():
        for expr in _expressions(event):
            for node in ir.walk(expr):
                if _is_known_key(node, place) or _is_loaded(node, place):
                    return True
    return False


def _is_known_key(node: ir.Expr, place: str) -> bool:
    if not isinstance(node, ir.Name) or not node.path.startswith(f"{place}['"):
        return False
    return node.path[len(place) + 2 :].partition("'")[0] in torchapi.CHECKPOINT_KEYS


def _is_loaded(node: ir.Expr, place: str) -> bool:
    if not isinstance(node, ir.Call) or node.method != "load_state_dict":
        return False
    return bool(torchapi.CHECKPOINT_NAME.search(torchapi.last(place))) or any(_reads(arg, place) for arg in node.args)


def _expressions(event: ir.Event) -> Iterator[ir.Expr]:
    if isinstance(event, (ir.Bind, ir.Store, ir.Return)):
        yield event.value
    elif isinstance(event, ir.Invoke):
        yield event.call


def _works(facts: FileFacts, function: ir.Function) -> Iterator[ir.Event]:
    """Events that train or run a model over data, here or in what is called by a name that says so."""
    running = {event for event in forwards(facts, function, guarded=True) if event.ctx.loops}
    for event in function.events():
        if isinstance(event, ir.Backward) or event in running or (isinstance(event, ir.Invoke) and _is_work(event.call)):
            yield event


def _is_work(call: ir.Call) -> bool:
    """`train(model, ...)`, `trainer.fit()`; but not `model.train()`, which is a mode."""
    if not torchapi.WORK_NAME.search(call.method):
        return False
    receiver = call.receiver
    return bool(call.operands) or (isinstance(receiver, ir.Name) and bool(RUNNER.search(torchapi.last(receiver.path))))
