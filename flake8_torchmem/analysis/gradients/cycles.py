"""Gradients with a graph: whether what `backward(create_graph=True)` leaves in `.grad` is ever let go."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import frameworks, ir
from flake8_torchmem.analysis.bindings import NOT_ENGINES
from flake8_torchmem.analysis.evidence import is_leaf
from flake8_torchmem.analysis.flow import following
from flake8_torchmem.analysis.gradients.callees import constructs
from flake8_torchmem.analysis.turns import MAX_CALLS
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

POSITION = {"torch.autograd.backward": 3}
IN_PLACE = frozenset({"zero_", "fill_"})
MAY_CLEAR = Words(r"(?:^|_)(?:zero|reset|clear|clean|step|optimi[sz]er?)(?:$|_)|(?:zero|reset|clear|clean)_?grad", re.I)


def creates_graph(facts: FileFacts, function: ir.Function, call: ir.Call) -> bool:
    """Whether the argument is True as written: of what is passed through, the caller decides."""
    position = POSITION.get(facts.evidence.resolve(call.path or "", function), 2)
    positional = call.args[position] if len(call.args) > position else None
    argument = call.kwargs.get("create_graph", positional)
    return isinstance(argument, ir.Const) and argument.value is True


def handed_in(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether the loss comes from a caller out of sight, who then has the parameters, and clears them or not."""
    given = set(ir.names(backward.value))
    at = facts.evidence.reaching(function).at[backward]
    of_caller = bool(given) and all(path in function.params and not at.get(path) for path in given)
    return of_caller and not backward.ctx.loops and not facts.summaries.callers.get(function)


def repeated(facts: FileFacts, function: ir.Function, event: ir.Event | ir.Call, calls: int = MAX_CALLS) -> bool:
    """Whether something happens turn after turn of a loop in sight: once is no growth."""
    if event.ctx.loops or frameworks.calls_per_batch(facts.bindings, function) or facts.per_batch(function):
        return True
    callers = facts.summaries.callers.get(function, ()) if calls else ()
    return any(repeated(facts, caller, call, calls - 1) for caller, call in callers)


def lets_go(event: ir.Event) -> bool:
    """Whether an event breaks the cycle of a tensor and its gradient: zeroing in place does not, `zero_grad` detaches at the least."""
    return isinstance(event, ir.Zero) and (event.call is None or event.call.method not in IN_PLACE)


def cleared_somewhere(facts: FileFacts, function: ir.Function) -> bool:
    """Whether something in sight clears gradients, or may: the function, what it calls, its callers, or its class."""
    family = {function, *(function.owner.methods.values() if function.owner else ())}
    scope = function.parent
    while scope is not None:
        family.add(scope)
        scope = scope.parent
    family |= {caller for member in tuple(family) for caller in _callers(facts, member)}
    return any(lets_go(event) or _may_clear(facts, member, event) for member in _reached(facts, family) for event in member.events())


def _callers(facts: FileFacts, function: ir.Function) -> set[ir.Function]:
    """Who calls the function; what else the module body runs is another matter."""
    found = {caller for caller, _ in facts.summaries.callers.get(function, ())}
    return found - ({facts.program.module} if facts.program.module else set())


def _reached(facts: FileFacts, functions: set[ir.Function]) -> set[ir.Function]:
    """The functions, what is defined in them, and what they call."""
    found, pending = set(functions), list(functions)
    while pending:
        function = pending.pop()
        called = (facts.bindings.callee(event.call, function) for event in function.events() if isinstance(event, ir.Invoke))
        new = {other for other in (*called, *function.nested.values()) if other is not None} - found
        found |= new
        pending += new
    return found


def _may_clear(facts: FileFacts, function: ir.Function, event: ir.Event) -> bool:
    """Engines clear by themselves; a call out of sight may clear if it says so, or has the optimizer in hand."""
    if isinstance(event, ir.Backward):
        return event.engine is not None and event.engine not in NOT_ENGINES
    if not isinstance(event, ir.Invoke) or facts.bindings.callee(event.call, function) is not None:
        return False
    path = facts.evidence.resolve(event.call.path or "", function)
    if path.startswith("torch.") or torchapi.looks_like_scheduler(path.rpartition(".")[0]):
        return False
    given = (arg.path for arg in event.call.operands if isinstance(arg, ir.Name))
    if MAY_CLEAR.search(event.call.method):
        return True
    if torchapi.HARMLESS_TO_GRADIENTS.search(event.call.method) or constructs(event.call.method):
        return False
    return any(map(torchapi.looks_like_optimizer, given))


def fresh_model(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> ir.Bind | None:
    """A model that a loop around the backward builds anew, and whose last gradients nothing clears."""
    if any(lets_go(event) or _may_clear(facts, function, event) for event in following(function, backward) if not _is_step(event)):
        return None
    run = {path for event in facts.calls(function) for path in (event.call.path or "", *_named(event.call.operands))}
    binds = (event for event in function.events() if isinstance(event, ir.Bind) and event.place in run)
    around = set(backward.ctx.loops)
    return next((bind for bind in binds if around & set(bind.ctx.loops) and _builds_model(facts, function, bind)), None)


def _is_step(event: ir.Event) -> bool:
    """A scheduler's or scaler's step, which clears nothing."""
    return isinstance(event, ir.Invoke) and event.call.method in ("step", "update")


def _named(operands: tuple[ir.Expr, ...]) -> Iterator[str]:
    return (operand.path for operand in operands if isinstance(operand, ir.Name))


def _builds_model(facts: FileFacts, function: ir.Function, bind: ir.Bind) -> bool:
    """Whether a binding makes a module that was not there before: moved or wrapped it is the old one."""
    call, values = bind.value, facts.values(function)
    while isinstance(call, ir.Call) and call.method in torchapi.MODULE_TRANSPARENT and call.receiver is not None:
        call = call.receiver
    if not isinstance(call, ir.Call) or bind.kind != "assign" or call.method in torchapi.MODULE_WRAPPERS:
        return False
    if call.method in ("deepcopy", "clone"):
        return any(values.at(source, bind) is Kind.MODULE for source in (*call.args, call.receiver) if source is not None)
    return values.bound(bind) is Kind.MODULE


def leaf_inputs(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> Iterator[str]:
    """Tensors of this turn, or of this call, that collect a gradient which is read and never taken away."""
    events = list(function.events())
    read = {path.partition(".grad")[0] for event in events for path in ir.reads(event) if re.search(r"\.grad(?:$|[.\[])", path)}
    cleared = {event.owner for event in events if isinstance(event, ir.Zero) and lets_go(event)}
    built = (event.call for event in facts.calls(function) if facts.bindings.is_optimizer_factory(event.call))
    optimized = {path for call in built for operand in call.operands for path in ir.names(operand)}
    for place in sorted(read - cleared - optimized):
        if "." not in place and any(_collects(event, place) for event in events) and _is_new(function, backward, place):
            yield place


def _collects(event: ir.Event, place: str) -> bool:
    """`x.requires_grad_()`, `x.requires_grad = True`, or `x` bound to a new leaf."""
    if isinstance(event, ir.Bind):
        wanted = isinstance(event.value, ir.Const) and event.value.value is True
        return (event.place == place and is_leaf(event.value)) or (event.place == f"{place}.requires_grad" and wanted)
    return isinstance(event, ir.Invoke) and event.call.path == f"{place}.requires_grad_" and is_leaf(event.call)


def _is_new(function: ir.Function, backward: ir.Backward, place: str) -> bool:
    """Whether each turn around the backward, or each call of the function, has a tensor of its own."""
    if not backward.ctx.loops:
        return function.name != "<module>" and place in function.locals
    binds = (event for event in function.events() if isinstance(event, ir.Bind) and event.place == place)
    return any(set(bind.ctx.loops) & set(backward.ctx.loops) for bind in binds)
