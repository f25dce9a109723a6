"""Where the batches of a loader go: followed by name through bindings, results and arguments, into the loops over them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.loading.devices import TRANSFER_HELPER, is_transfer
from flake8_torchmem.analysis.loading.loaders import Loader

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

PASSES_ON = torchapi.SAME_ELEMENTS | {"prepare", "prepare_data_loader", "setup_dataloaders"}
PREPARES = frozenset({"prepare", "prepare_data_loader", "setup_dataloaders"})
MAX_CALLS = 3


class Held(NamedTuple):
    """A loader in the hands of a function: by an access path, or as (a part of) what a call gives."""

    function: ir.Function
    path: str = ""
    call: ir.Call | None = None
    part: int | None = None

    def is_it(self, expr: ir.Expr) -> bool:
        """Whether an expression is the loader."""
        if isinstance(expr, ir.Name):
            return bool(self.path) and self.path in paths.prefixes(expr.path)
        if self.part is not None:
            return isinstance(expr, ir.Item) and expr.base is self.call and isinstance(expr.key, ir.Const) and expr.key.value == self.part
        return self.call is not None and expr is self.call


def moved(facts: FileFacts, loader: Loader) -> ir.Call | None:
    """The call that moves the loader's batches to a device, if a loop over it has one, or what that loop calls."""
    for held in _holders(facts, loader):
        for loop in held.function.loops:
            if loop.iterable is not None and any(held.is_it(node) for node in ir.walk(loop.iterable)):
                found = _moves(facts, held.function, _targets(held.function, loop), loop)
                if found is not None:
                    return found
    return None


def prepared(facts: FileFacts, loader: Loader) -> ir.Call | None:
    """The call that gives the loader to an engine which moves its batches, as far as they are tensors."""
    for held in _holders(facts, loader):
        for event in facts.calls(held.function):
            if event.call.method in PREPARES and any(held.is_it(arg) for arg in event.call.operands):
                return event.call
    return None


def _holders(facts: FileFacts, loader: Loader) -> Iterator[Held]:
    pending = [Held(loader.function, call=loader.call)]
    seen = set(pending)
    while pending:
        held = pending.pop()
        yield held
        for other in _handed_on(facts, held):
            if other not in seen:
                seen.add(other)
                pending.append(other)


def _handed_on(facts: FileFacts, held: Held) -> Iterator[Held]:
    """Who gets the loader from this holder."""
    for event in held.function.events():
        if isinstance(event, ir.Bind) and event.kind in ("assign", "target") and _passes(event.value, held.is_it):
            yield from _seen_by(facts, held.function, event.place)
        elif isinstance(event, ir.Return):
            yield from _results(facts, held, event.value)
        elif isinstance(event, ir.Invoke):
            cls = facts.bindings.class_named(event.call.path or "", event.ctx.file)
            callee = facts.bindings.method(cls, "__init__") if cls else facts.bindings.callee(event.call, held.function)
            for param, arg in callee.arguments(event.call) if callee is not None else ():
                if callee is not None and _passes(arg, held.is_it):
                    yield Held(callee, param)


def _results(facts: FileFacts, held: Held, value: ir.Expr) -> Iterator[Held]:
    items = value.items if isinstance(value, ir.Seq) and value.kind == "tuple" else ()
    parts = [index for index, item in enumerate(items) if _passes(item, held.is_it)]
    if not parts and not _passes(value, held.is_it):
        return
    for caller, call in facts.summaries.callers.get(held.function, ()):
        for part in parts or (None,):
            yield Held(caller, call=call, part=part)


def _seen_by(facts: FileFacts, function: ir.Function, place: str) -> Iterator[Held]:
    """Every function that reads a place by the same path: methods of the class, nested functions, all of the module."""
    yield Held(function, place)
    if place.startswith("self.") and function.owner is not None:
        yield from (Held(method, place) for method in function.owner.methods.values())
        return
    inner = facts.functions if function is facts.program.module else function.nested.values()
    yield from (Held(other, place) for other in inner if paths.root(place) not in other.locals)


def _passes(expr: ir.Expr, is_it: Callable[[ir.Expr], bool]) -> bool:
    """Whether an expression is the loader, holds it, or is a view of it."""
    pending = [expr]
    while pending:
        node = pending.pop()
        if is_it(node):
            return True
        if isinstance(node, ir.Seq):
            pending.extend(node.items)
        elif isinstance(node, ir.Op) and node.op == "if":
            pending.extend(node.args[1:])
        elif isinstance(node, ir.Call) and node.method in PASSES_ON:
            pending.extend(node.operands)
        elif isinstance(node, ir.Item):
            pending.append(node.base)
    return False


def _targets(function: ir.Function, loop: ir.Loop) -> set[str]:
    """The variables that a loop or comprehension gives its batches to."""
    binds = (event for event in function.events() if isinstance(event, ir.Bind) and event.kind == "target")
    return {paths.root(bind.place) for bind in binds if bind.ctx.loops and bind.ctx.loops[-1] is loop}


def _moves(facts: FileFacts, function: ir.Function, batch: set[str], loop: ir.Loop | None, depth: int = 0) -> ir.Call | None:
    """The first call in a loop, or in a function that is given a batch, that moves the batch or a part of it to a device."""
    for event in (event for event in function.events() if loop is None or loop in event.ctx.loops):
        if isinstance(event, ir.Bind) and _start(event.value) in batch:
            batch.add(paths.root(event.place))
        if not isinstance(event, ir.Invoke):
            continue
        call = event.call
        given = [arg for arg in call.operands if _start(arg) in batch]
        if (call.receiver is not None and _start(call.receiver) in batch and is_transfer(facts, call, function)) or (
            given and TRANSFER_HELPER.match(call.method)
        ):
            return call
        callee = facts.bindings.callee(call, function) if given and depth < MAX_CALLS else None
        if callee is not None:
            params = {param for param, arg in callee.arguments(call) if _start(arg) in batch}
            found = _moves(facts, callee, params, None, depth + 1)
            if found is not None:
                return found
    return None


def _start(expr: ir.Expr) -> str:
    """The variable that an expression is a part or a method's result of."""
    while not isinstance(expr, ir.Name):
        if isinstance(expr, (ir.Item, ir.Attr)):
            expr = expr.base
        elif isinstance(expr, ir.Call) and isinstance(expr.receiver, ir.Expr):
            expr = expr.receiver
        else:
            return ""
    return paths.root(expr.path)
