"""Outputs of models that are collected over a whole data set, or over the rounds of a sampler."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.loading.placement import Place
from flake8_torchmem.analysis.retention.evaluation import EVALUATION_DATA
from flake8_torchmem.analysis.retention.fate import Fate, fate
from flake8_torchmem.analysis.retention.lifetime import Growth
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

WHOLE_DATA = Words(r"loader|dataset|(?:^|_)(?:train|test|val|valid|eval)?_?(?:dl|ds|data|iter|iterator|set)$", re.I)
FRESH = frozenset({"randn", "rand", "randn_like", "randint", "normal", "sample"})


class Collected(NamedTuple):
    """An output, or the part of what is stored that is one, in a place that grows by it in every turn."""

    site: ir.Site
    place: str
    function: ir.Function
    part: ir.Expr
    event: ir.Event


def collected(facts: FileFacts) -> Iterator[Collected]:
    """Every growth of a place by outputs of a model, without graph, over a whole data set or a sampler's rounds."""
    for function in facts.functions:
        if _is_part_of_a_model(facts, function):
            continue
        for growth in facts.lifetimes(function).growths:
            if growth.kind != "sum" and _over_all(facts, function, growth) and not _few(growth):
                yield from _found(facts, function, growth)
        yield from _comprehended(facts, function)


def _found(facts: FileFacts, function: ir.Function, growth: Growth) -> Iterator[Collected]:
    for part in facts.outputs(function).parts(growth.value, growth.event):
        if not _without_graph(facts, function, part, growth.event) or _placed(facts, function, part, growth.event):
            continue
        if _may_leave(facts, function, growth.place, growth.loops, _key(growth.value, part)):
            yield Collected(growth.event.site, growth.place, function, part, growth.event)
            return


def _comprehended(facts: FileFacts, function: ir.Function) -> Iterator[Collected]:
    """Lists of outputs that a comprehension over a data set builds."""
    for event in function.events() if function.comprehends else ():
        if not isinstance(event, (ir.Bind, ir.Return)):
            continue
        for node in ir.walk(event.value):
            if not isinstance(node, ir.Comp) or node.kind == "GeneratorExp" or not brings_data(facts, function, node.loop):
                continue
            if not runs_in(facts, function, node.loop):
                continue
            place = event.place if isinstance(event, ir.Bind) else "the list"
            output = facts.outputs(function).at(node.element, event) and _without_graph(facts, function, node.element, event)
            if output and (isinstance(event, ir.Return) or _may_leave(facts, function, place, (node.loop,))):
                yield Collected(node.site or event.site, place, function, node.element, event)


def _is_part_of_a_model(facts: FileFacts, function: ir.Function) -> bool:
    """Whether a function is a step of a computation and no pass over data: a method of a module that does not say otherwise."""
    cls = function.owner
    if function.name in ("forward", "__init__", "__getitem__"):
        return True
    passes = torchapi.EVAL_NAME.search(function.name) or torchapi.BATCH_METHOD.match(function.name)
    return cls is not None and facts.evidence.module_class(cls.name) and not passes and function.name not in torchapi.EVALUATION_STEPS


def stays_on_device(facts: FileFacts, function: ir.Function, growth: Growth) -> bool:
    """Whether a place collects outputs of a model on the device, or would if they had no graph, and nothing needs them there."""
    if growth.kind == "sum" or _is_part_of_a_model(facts, function) or not _over_all(facts, function, growth) or _few(growth):
        return False
    return any(
        facts.placement(function).at(part, growth.event) is Place.DEVICE
        and not _placed(facts, function, part, growth.event)
        and _may_leave(facts, function, growth.place, growth.loops, _key(growth.value, part))
        for part in facts.outputs(function).parts(growth.value, growth.event)
    )


def _key(value: ir.Expr, part: ir.Expr) -> str:
    """The key under which a dict that is stored holds the part."""
    if isinstance(value, ir.Seq) and value.keys and part in value.items:
        key = value.keys[value.items.index(part)]
        return key.value if isinstance(key, ir.Const) and isinstance(key.value, str) else ""
    return ""


def _placed(facts: FileFacts, function: ir.Function, part: ir.Expr, event: ir.Event) -> bool:
    """Whether the code itself says where the output is to be: `.to(output_device)`."""
    binds = facts.evidence.reaching(function).at[event].get(part.path, ()) if isinstance(part, ir.Name) else ()
    for value in (part, *(bind.value for bind in binds)):
        moves = isinstance(value, ir.Call) and value.method == "to" and facts.placement(function).at(value, event) is Place.DEVICE
        if moves and isinstance(value, ir.Call) and value.receiver is not None and facts.outputs(function).at(value.receiver, event):
            return True
    return False


def _may_leave(facts: FileFacts, function: ir.Function, place: str, loops: tuple[ir.Loop, ...], key: str = "") -> bool:
    """Whether nothing that happens to the collection afterwards needs it on the device."""
    return fate(facts, function, place, key, loops) is not Fate.USED


def _over_all(facts: FileFacts, function: ir.Function, growth: Growth) -> bool:
    """Whether the place holds all batches: nothing lets go of it within a loop over data."""
    if not growth.loops:
        return True
    if not any(runs_in(facts, function, loop) for loop in growth.loops):
        return False
    named = any(_names_data(facts, function, loop) for loop in growth.loops)
    if not named and any(brings_data(facts, function, loop) for loop in growth.event.ctx.loops if loop not in growth.loops):
        return False
    return named or any(brings_data(facts, function, loop) or _samples(facts, function, loop) for loop in growth.loops)


def runs_in(facts: FileFacts, function: ir.Function, loop: ir.Loop) -> bool:
    """Whether a model runs in every turn of a loop: else it goes over outputs that are there already."""
    outputs = facts.outputs(function)
    return any(loop in event.ctx.loops and outputs.is_forward(event.call, event) for event in facts.calls(function))


def brings_data(facts: FileFacts, function: ir.Function, loop: ir.Loop) -> bool:
    """Whether a loop goes over a data set: by name, or what it iterates over is moved to the device in each turn."""
    if _names_data(facts, function, loop):
        return True
    if loop.iterable is None or _counts(loop, at_most=2):
        return False
    arrivals = facts.placement(function).arrivals()
    return any(loop in event.ctx.loops and _from_turn(facts, function, loop, event) for event in arrivals)


def _names_data(facts: FileFacts, function: ir.Function, loop: ir.Loop) -> bool:
    if loop.iterable is None:
        return False
    words = [torchapi.last(facts.bindings.canonical(path, function)) for path in ir.names(loop.iterable)]
    words += [torchapi.last(path) for path in ir.names(loop.iterable)]
    return any(WHOLE_DATA.search(word) or EVALUATION_DATA.search(word) for word in words)


def _counts(loop: ir.Loop, at_most: int) -> bool:
    """Whether a loop goes over a `range` of no more than so many arguments: three of them cut data into batches."""
    calls = (node for node in ir.walk(loop.iterable) if isinstance(node, ir.Call)) if loop.iterable is not None else ()
    return any(call.method in ("range", "trange") and len(call.args) <= at_most for call in calls)


def _from_turn(facts: FileFacts, function: ir.Function, loop: ir.Loop, event: ir.Event) -> bool:
    """Whether what is moved was made in this turn of the loop, from what it iterates over, and is no model."""
    call = event.call if isinstance(event, ir.Invoke) else None
    given = [expr for expr in (call.receiver, *call.operands) if expr is not None] if call is not None else []
    moved = [expr for expr in given if facts.values(function).at(expr, event) is not Kind.MODULE]
    return any(paths.root(path) in loop.assigned for expr in moved for path in ir.names(expr))


def _samples(facts: FileFacts, function: ir.Function, loop: ir.Loop) -> bool:
    """Whether each turn of a counted or open loop starts from fresh random numbers, and the model runs on those."""
    if loop.kind != "while" and not _counts(loop, at_most=3):
        return False
    fresh = {
        event.place
        for event in function.events()
        if isinstance(event, ir.Bind)
        and loop in event.ctx.loops
        and _is_fresh(event.value, loop)
        and not _carried(function, loop, event.place)
    }
    return any(
        loop in event.ctx.loops
        and facts.outputs(function).is_forward(event.call, event)
        and any(_is_fresh(arg, loop) or fresh & set(ir.names(arg)) for arg in event.call.operands)
        for event in facts.calls(function)
    )


def _is_fresh(expr: ir.Expr, loop: ir.Loop) -> bool:
    """Whether random numbers are drawn: from nothing that the turn itself has made, as an action is from a policy's output."""
    for node in ir.walk(expr):
        if isinstance(node, ir.Call) and node.method in FRESH:
            drawn_from = ir.names(node.receiver) if node.method == "sample" and node.receiver is not None else ()
            if not any(paths.root(path) in loop.assigned for path in drawn_from):
                return True
    return False


def _carried(function: ir.Function, loop: ir.Loop, place: str) -> bool:
    """Whether a place goes on from turn to turn, as a sampler's state does."""
    return any(
        isinstance(event, ir.Bind) and event.place == place and loop in event.ctx.loops and place in ir.names(event.value)
        for event in function.events()
    )


def _few(growth: Growth) -> bool:
    """Whether a test of a counter lets only some turns store: the first one, a handful for a picture."""
    loop = growth.loops[-1] if growth.loops else None
    return any(
        isinstance(node, ir.Op) and node.op in ("<", "<=", "==", ">", ">=") and any(isinstance(arg, ir.Name | ir.Call) for arg in node.args)
        for cond, _ in growth.event.ctx.conds_inside(loop)
        for node in ir.walk(cond)
    )


def _without_graph(facts: FileFacts, function: ir.Function, part: ir.Expr, event: ir.Event) -> bool:
    kind = facts.values(function).at(part, event)
    if kind is Kind.DETACHED:
        return True
    callers = facts.summaries.callers.get(function, ())
    if kind is Kind.GRAPH:
        return bool(callers) and facts.guarded_by_callers(function)
    return kind is Kind.UNKNOWN and event.ctx.grad is not ir.Grad.ON
