"""Whether a graph that a backward retained can be back-propagated through again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.evidence import carriers
from flake8_torchmem.analysis.values import PLAIN

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts


def graph_is_reused(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether anything in sight may need the graph after this backward; in doubt, yes.

    Args:
        facts: of the file.
        function: holds the backward.
        backward: retains its graph.
    """
    return (
        any(_uses_graph(facts, function, event) for event in _later(function, backward))
        or _carried(facts, function, backward)
        or _escapes(facts, function, backward)
    )


def _later(function: ir.Function, backward: ir.Backward) -> Iterator[ir.Event]:
    """Events that can follow in the same turn."""
    start = next(block for block in function.blocks if backward in block.events)
    yield from start.events[start.events.index(backward) + 1 :]
    pending, seen = [start], {start}
    while pending:
        for edge in pending.pop().edges:
            if edge.turn is None and edge.target not in seen:
                seen.add(edge.target)
                pending.append(edge.target)
                yield from edge.target.events


def _uses_graph(facts: FileFacts, function: ir.Function, event: ir.Event) -> bool:
    """A further backward, `autograd.grad`, or a callee that may do either."""
    if isinstance(event, ir.Backward):
        return True
    if not isinstance(event, ir.Invoke):
        return False
    callee = facts.bindings.callee(event.call, function)
    if callee is not None:
        return "backward" in facts.summaries.effects(callee) or any(_uses_graph(facts, callee, e) for e in callee.events() if e is not event and callee is not function)
    path = facts.evidence.resolve(event.call.path or "", function)
    if path.endswith("autograd.grad") or torchapi.TAKES_LOSS.search(event.call.method):
        return not torchapi.HARMLESS_TO_GRADIENTS.search(event.call.method) and not path.startswith(("torch.nn.utils", "torch.cuda"))
    fed = facts.evidence.feeds_backward(function)
    given = [p for arg in event.call.operands if isinstance(arg, (ir.Name, ir.Seq)) for p in carriers(arg)]
    unknown = not path.startswith("torch.") and event.call.method not in torchapi.NUMBER_FUNCTIONS and event.call.receiver is None
    return unknown and any(p in fed and facts.values(function).at(ir.Name(p), event) not in PLAIN for p in given)


def _carried(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether the loss is built outside of the innermost loop, or from values of the last turn."""
    fed = facts.evidence.feeds_backward(function)
    if any("hidden" in path or path.startswith("state") or ".state" in path for path in fed):
        return True
    if not backward.ctx.loops:
        return False
    loop = backward.ctx.loops[-1]
    at = facts.evidence.reaching(function).at
    built = [bind for path in carriers(backward.value) for bind in at[backward].get(path, ())]
    if any(loop not in bind.ctx.loops for bind in built):
        return True
    return any(_read_before_bound(facts, function, loop, event) for event in function.events() if loop in event.ctx.loops)


def _read_before_bound(facts: FileFacts, function: ir.Function, loop: ir.Loop, event: ir.Event) -> bool:
    """Whether an event that builds the loss reads a tensor which the last turn made."""
    if not isinstance(event, ir.Bind) or event.kind == "target" or event.place not in facts.evidence.feeds_backward(function):
        return False
    values, env = facts.values(function), facts.evidence.reaching(function).at[event]
    head = facts.evidence.reaching(function).entry
    start = next((b.index for b in function.blocks for e in b.edges if e.turn is loop for b in (e.target,)), None)
    before = head.get(start, {}) if start is not None else {}
    for path in carriers(event.value):
        old = {bind for bind in before.get(path, ()) if loop in bind.ctx.loops and bind.kind not in ("target",)}
        if old & env.get(path, frozenset()) and any(values.bound(bind) not in PLAIN for bind in old if bind.kind != "augment"):
            return True
    return False


def _escapes(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether the loss, or what it was built from, is kept by an attribute or handed back to a caller."""
    if any(path.startswith("self.") and _assigned_elsewhere(function, path) for path in carriers(backward.value)):
        return True
    values = facts.values(function)
    return any(
        isinstance(event, ir.Return)
        and (values.at(event.value, event) not in PLAIN)
        and any(path in facts.evidence.feeds_backward(function) for path in carriers(event.value))
        for event in function.events()
    )


def _assigned_elsewhere(function: ir.Function, path: str) -> bool:
    """Whether another method of the class back-propagates or sets the attribute."""
    methods = function.owner.methods.values() if function.owner else ()
    return any(
        isinstance(event, ir.Backward) or (isinstance(event, ir.Bind) and event.place == path)
        for method in methods
        if method is not function
        for event in method.events()
    )
