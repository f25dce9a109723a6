"""Tensors with graph that a growing place keeps, and whether a backward has run over what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.evidence import carriers, type_tested
from flake8_torchmem.analysis.retention.evaluation import evaluates, forwards, goes_over_data
from flake8_torchmem.analysis.retention.lifetime import Growth
from flake8_torchmem.analysis.values import Kind

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts


class Retained(NamedTuple):
    """A growth that keeps graphs. `freed`: a backward of the same turn has freed the activations, graph nodes stay."""

    growth: Growth
    function: ir.Function
    freed: bool


def retained(facts: FileFacts) -> Iterator[Retained]:
    """Every growth of a place by tensors with graph that nothing back-propagates."""
    for function in facts.functions:
        for growth in facts.lifetimes(function).growths:
            if _carries_graph(facts, function, growth):
                trained = _trained(facts, function, growth)
                if trained or _evaluated(facts, function, growth):
                    yield Retained(growth, function, trained)


def _carries_graph(facts: FileFacts, function: ir.Function, growth: Growth) -> bool:
    event = growth.event
    if growth.kind == "sum" and event.ctx.grad is not ir.Grad.ON:
        return False
    return facts.values(function).at(growth.value, event) is Kind.GRAPH and not facts.lifetimes(function).consumed(growth.place)


def _trained(facts: FileFacts, function: ir.Function, growth: Growth) -> bool:
    """Whether a loop (or per-batch method) that grows the place back-propagates in the same turn."""
    if not growth.loops:
        turn = facts.turn(function)
        return "backward" in facts.summaries.effects(function) or (turn is not None and turn.trains)
    training = [loop for loop in growth.loops if facts.effect_in(loop, function, "backward")]
    if not training:
        return False
    stepped = any(facts.effect_in(loop, function, "step") for loop in training)
    return stepped or _of_this_turn(facts, function, growth) or not facts.lifetimes(function).returned(growth.place)


def _of_this_turn(facts: FileFacts, function: ir.Function, growth: Growth) -> bool:
    """Whether the value itself is what the loop back-propagates."""
    at = facts.evidence.reaching(function).at[growth.event]
    binds = [bind for path in carriers(growth.value) for bind in at.get(path, ())]
    return any(facts.evidence.backpropagated(bind, function) for bind in binds)


def _evaluated(facts: FileFacts, function: ir.Function, growth: Growth) -> bool:
    """Whether a loop over data, in code that evaluates, grows the place with nothing back-propagated."""
    if not growth.loops or facts.guarded_by_callers(function) or facts.needs_gradients(function):
        return False
    if any(facts.effect_in(loop, function, "backward") for loop in growth.loops):
        return False
    kept = facts.lifetimes(function).unreset(growth.event, growth.place)
    if any(goes_over_data(facts, loop, function) for loop in growth.event.ctx.loops if loop not in kept):
        return False  # let go with every batch: heads, scales or augmentations of one batch are summed up
    running = {loop for event in forwards(facts, function) for loop in event.ctx.loops}
    return any((goes_over_data(facts, loop, function) or loop in running) and evaluates(facts, loop, function) for loop in kept)


def accumulates(facts: FileFacts, method: ir.Function, param: str) -> bool:
    """Whether a method adds its parameter, graph and all, to an attribute that it does not reset (a meter's `update`)."""
    at = facts.evidence.reaching(method).at
    for growth in facts.lifetimes(method).sums():
        if not growth.place.startswith("self.") or growth.event.ctx.grad is not ir.Grad.ON:
            continue
        if any(param in type_tested(cond) for cond, _, _ in growth.event.ctx.conds):
            continue  # tensors and numbers go ways of their own
        if any(path == param and not at[growth.event].get(param) for path in carriers(growth.value)):
            return True
    return False


def comprehensions(facts: FileFacts) -> Iterator[tuple[ir.Function, ir.Comp, ir.Event]]:
    """Comprehensions over data, in code that evaluates, whose elements carry graphs."""
    for function in facts.functions:
        if not function.comprehends or facts.guarded_by_callers(function) or facts.needs_gradients(function):
            continue
        for event in function.events():
            value = event.value if isinstance(event, (ir.Bind, ir.Return, ir.Store)) else None
            for node in ir.walk(value) if value is not None else ():
                if isinstance(node, ir.Comp) and node.kind != "GeneratorExp" and _keeps_graphs(facts, function, node, event):
                    yield function, node, event


def _keeps_graphs(facts: FileFacts, function: ir.Function, comp: ir.Comp, event: ir.Event) -> bool:
    if not (goes_over_data(facts, comp.loop, function) and evaluates(facts, comp.loop, function)):
        return False
    if isinstance(event, ir.Bind) and facts.lifetimes(function).consumed(event.place):
        return False
    return facts.values(function).at(comp.element, event) is Kind.GRAPH
