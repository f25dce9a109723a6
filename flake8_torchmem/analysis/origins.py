"""Where a value comes from: what a path was bound to, here, around, in its class, in the module, or by the calls in sight."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.reaching import in_order

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAX_STEPS = 8
Leads = Callable[[ir.Expr, ir.Function], Iterable["Origin"]]


class Origin(NamedTuple):
    """A value with the function whose names it is written in. `optional`: one of several callers gives it."""

    value: ir.Expr
    function: ir.Function
    optional: bool = False


def origins(facts: FileFacts, path: str, function: ir.Function, event: ir.Event | None = None) -> list[Origin]:
    """What a path may stand for, empty when that is not in sight.

    Args:
        facts: the file.
        path: the access path.
        function: where it is read.
        event: narrows the bindings of that function to those that reach this event.
    """
    if event is not None:
        reaching = facts.evidence.reaching(function).at.get(event, {}).get(path)
        if reaching:
            return [Origin(bind.value, function) for bind in in_order(reaching)]
    scope: ir.Function | None = function
    while scope is not None:
        found = facts.bindings.assigned(scope).get(path)
        if found:
            return [Origin(bind.value, scope) for bind in found]
        if paths.root(path) in scope.params and not path.startswith("self."):
            return list(_given(facts, path, scope)) if path in scope.params else []
        scope = scope.parent
    if path.startswith("self.") and function.owner is not None:
        methods = function.owner.methods.values()
        return [Origin(bind.value, method) for method in methods for bind in facts.bindings.assigned(method).get(path, ())]
    module = facts.program.module
    return [Origin(bind.value, module) for bind in facts.bindings.assigned(module).get(path, ())] if module else []


def followed(expr: ir.Expr, function: ir.Function, leads: Leads) -> Iterator[Origin]:
    """The values that a value can be: where one leads to others those are taken instead, each once, however many ways lead there.

    Args:
        expr: the value.
        function: whose names it is written in.
        leads: what a value stands for; nothing for one that stands for itself.
    """
    pending, seen = [Origin(expr, function)], {(expr, function)}
    while pending:
        origin = pending.pop()
        found = list(leads(origin.value, origin.function))
        if not found:
            yield origin
        for each in reversed(found):
            if (each.value, each.function) not in seen:
                seen.add((each.value, each.function))
                pending.append(each)


def _given(facts: FileFacts, param: str, function: ir.Function) -> Iterator[Origin]:
    """What the calls in sight give for a parameter, or its default where they give nothing, or where there is no call."""
    default = function.defaults.get(param)
    calls = list(calls_of(facts, function))
    for caller, call in calls:
        given = None if call.star else dict(function.arguments(call)).get(param, default)
        yield Origin(ir.Opaque() if given is None else given, caller, optional=True)
    if not calls and default is not None:
        yield Origin(default, function)


def calls_of(facts: FileFacts, function: ir.Function) -> Iterator[tuple[ir.Function, ir.Call]]:
    """Calls in sight that run a function; those of an `__init__` name its class."""
    cls = function.owner
    if cls is None or function.name != "__init__":
        yield from facts.summaries.callers.get(function, ())
        return
    for caller in facts.functions:
        for event in facts.calls(caller):
            if event.call.path is not None and facts.bindings.class_named(event.call.path, event.ctx.file) is cls:
                yield caller, event.call


def returned(facts: FileFacts, call: ir.Call, function: ir.Function, index: object = None) -> Iterator[Origin]:
    """What an in-file function hands back to a call, or one part of it."""
    callee = facts.bindings.callee(call, function)
    if callee is None or callee.name in ("__call__", "forward"):
        return
    for event in callee.events():
        if isinstance(event, ir.Return) and event.kind == "return":
            value = event.value
            if isinstance(value, ir.Seq) and isinstance(index, int) and index < len(value.items):
                value = value.items[index]
            yield Origin(value, callee)
