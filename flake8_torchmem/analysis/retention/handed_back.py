"""What callers do with a result: whether one of them back-propagates it, through names, containers and further calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.evidence import ENDS_GRAPH

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAX_CALLS = 3


def trained_by_callers(facts: FileFacts, function: ir.Function, calls: int = MAX_CALLS) -> bool:
    """Whether a caller in sight back-propagates what a function returns, or hands it to whoever does."""
    return calls > 0 and any(_trains_on(facts, caller, call, calls) for caller, call in facts.summaries.callers.get(function, ()))


def _trains_on(facts: FileFacts, caller: ir.Function, call: ir.Call, calls: int) -> bool:
    fed = facts.evidence.feeds_backward(caller)
    for event in caller.events():
        if isinstance(event, ir.Backward):
            if _holds(event.value, call):
                return True
        elif isinstance(event, (ir.Bind, ir.Store)):
            if any(path in fed for path in paths.prefixes(event.place)) and _holds(event.value, call):
                return True
        elif isinstance(event, ir.Return):
            if _holds(event.value, call) and trained_by_callers(facts, caller, calls - 1):
                return True
        elif isinstance(event, ir.Invoke) and event.call is not call and _given_on(facts, caller, event.call, call):
            return True
    return False


def _given_on(facts: FileFacts, caller: ir.Function, outer: ir.Call, call: ir.Call) -> bool:
    """Whether a call is an argument of one that back-propagates it."""
    callee = facts.bindings.callee(outer, caller)
    if callee is None or "backward" not in facts.summaries.effects(callee):
        return False
    fed = facts.evidence.feeds_backward(callee)
    return any(param in fed and _holds(arg, call) for param, arg in callee.arguments(outer))


def _holds(expr: ir.Expr, call: ir.Call) -> bool:
    """Whether a value is, or is made of, the result of a call, graph and all."""
    pending = [expr]
    while pending:
        node = pending.pop()
        if node is call:
            return True
        ends = isinstance(node, ir.Call) and node.method in (ENDS_GRAPH if node.receiver is not None else torchapi.NUMBER_FUNCTIONS)
        if not ends and not (isinstance(node, ir.Op) and node.op in ir.COMPARISONS):
            pending.extend(ir.parts(node))
    return False
