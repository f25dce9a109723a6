"""Handlers of out-of-memory errors: which paths of them follow such an error, and what they try again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words, regex

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

OOM_TYPE = Words(r"OutOfMemory|(?:^|_)oom(?:$|_)|OOM", re.I)
OOM_TEXT = regex(r"out of memory|outofmemory|\boom\b|alloc_failed|can't allocate", re.I)
OOM_TEST = Words(r"(?:^|_)oom(?:$|_)|out_?of_?memory|reduce_batch_size", re.I)
CATCHES_ALL = frozenset({"RuntimeError", "Exception", "BaseException"})
# What stands in the try and in the handler without being tried again.
NO_ATTEMPT = regex(
    r"log|print|warn|info|debug|error|report|record|write|save|dump|clear|clean(?:up)?|free|release|collect|empty|cache|reset|stop|start|close|sync"
    r"|time|sleep|memory|update|append|add|put|send|set|get|del|remove|notify|emit|callback|to|size|len|keys|items|values|next|iter|barrier"
    r"|format|join|split|chunk|lower|upper|str|range|max|min|tqdm|parameters",
    re.I,
)
LETS_GO = frozenset({"clear_frames", "with_traceback", "cpu"})


@dataclass(eq=False)
class OomHandler:
    """An `except` clause on the paths that follow an out-of-memory error: its events there, in source order, and the tried events."""

    function: ir.Function
    clause: ir.Handler
    events: list[ir.Event] = field(default_factory=list)
    tried: list[ir.Invoke] = field(default_factory=list)


def handlers(facts: FileFacts, function: ir.Function) -> Iterator[OomHandler]:
    """The handlers of a function that (also) run when memory is out."""
    clauses = {event.ctx.handler: None for event in function.events() if event.ctx.handler is not None}
    for clause in clauses:
        reached = _after_oom(facts, function, clause)
        if reached:
            inside = [(block, event) for block in function.blocks for event in block.events]
            following = [event for block, event in inside if event.ctx.handler is clause and block.index in reached]
            yield OomHandler(
                function,
                clause,
                following,
                [e for block, e in inside if isinstance(e, ir.Invoke) and clause.first <= block.index < clause.end],
            )


def _after_oom(facts: FileFacts, function: ir.Function, clause: ir.Handler) -> set[int]:
    """Blocks that a handler leads to after such an error, within the turn: all by its type, or those behind a test of the error."""
    blocks = [block for block in function.blocks if any(event.ctx.handler is clause for event in block.events)]
    types = list(ir.names(clause.types)) if clause.types is not None else []
    if any(_names_oom(facts, function, path) for path in types):
        return {block.index for block in blocks}
    if types and not any(torchapi.last(path) in CATCHES_ALL for path in types):
        return set()
    pending = [
        edge.target
        for block in blocks
        for edge in block.edges
        if edge.cond is not None and _means_oom(facts, function, edge.cond) is edge.arm
    ]
    reached: set[int] = set()
    while pending:
        block = pending.pop()
        if block.index not in reached:
            reached.add(block.index)
            pending.extend(edge.target for edge in block.edges if edge.turn is None and not edge.handler)
    return reached


def _names_oom(facts: FileFacts, function: ir.Function, path: str) -> bool:
    """Whether a type is that of an out-of-memory error: by name, or by what an alias was given."""
    if OOM_TYPE.search(torchapi.last(path)):
        return True
    return any(OOM_TYPE.search(name) for bind in facts.bindings.binds(path, function) for name in ir.names(bind.value))


def _means_oom(facts: FileFacts, function: ir.Function, cond: ir.Expr) -> bool | None:
    """The outcome of a test that means out of memory, None when it does not ask."""
    if isinstance(cond, ir.Op) and cond.op in ("not", "not in"):
        inner = _means_oom(facts, function, cond.args[0] if cond.op == "not" else ir.Op("in", cond.args))
        return None if inner is None else not inner
    if isinstance(cond, ir.Op) and cond.op in ir.BOOLEAN:
        return next((found for arg in cond.args if (found := _means_oom(facts, function, arg)) is not None), None)
    for node in ir.walk(cond):
        if isinstance(node, ir.Const) and isinstance(node.value, str) and OOM_TEXT.search(node.value):
            return True
        if isinstance(node, ir.Call) and OOM_TEST.search(node.method):
            return True
        if isinstance(node, ir.Name) and OOM_TEST.search(torchapi.last(node.path)):
            return True
        if isinstance(node, ir.Comp) and node.loop.iterable is not None and _means_oom(facts, function, node.loop.iterable):
            return True
    return None


def attempts(facts: FileFacts, handler: OomHandler) -> Iterator[ir.Invoke]:
    """Calls of a handler that try the work again, on the device, while the failed attempt is still held."""
    if any(_lets_go(event) for event in handler.events):
        return
    tried = {path for event in handler.tried if (path := _work(facts, handler.function, event))}
    if not tried:
        return
    for event in handler.events:
        if isinstance(event, ir.Invoke):
            callee = facts.bindings.callee(event.call, handler.function)
            given = {name for arg in event.call.operands for name in ir.names(arg)} - {handler.clause.name}
            again = (_work(facts, handler.function, event) in tried and (given or not event.call.args)) or callee is handler.function
            if again or (callee is not None and runs_model(facts, callee)) or _is_forward(facts, handler.function, event):
                yield event


def _work(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> str:
    """The callee of a call that may leave frames with tensors behind: Python code, given something, no service by its name."""
    path = facts.bindings.canonical(event.call.path or "", function)
    full = facts.evidence.resolve(path, function)
    words = re.split(r"_|(?<=[a-z])(?=[A-Z])", torchapi.last(path))
    if not path or full.startswith(("torch.", *torchapi.NUMBER_NAMESPACES)) or full in torchapi.NUMBER_FUNCTIONS:
        return ""
    service = torchapi.last(path) in torchapi.TENSOR_METHODS or any(NO_ATTEMPT.fullmatch(word) for word in words)
    if service or not (event.call.operands or event.call.star):
        callee = facts.bindings.callee(event.call, function)
        return path if _is_forward(facts, function, event) or (callee is not None and runs_model(facts, callee)) else ""
    return path


def runs_model(facts: FileFacts, function: ir.Function) -> bool:
    """Whether a function of the file runs a model or back-propagates, itself or in what it calls."""
    pending, seen = [function], {function}
    while pending:
        current = pending.pop()
        for event in current.events():
            if isinstance(event, ir.Backward):
                return True
            if isinstance(event, ir.Invoke):
                if _is_forward(facts, current, event):
                    return True
                callee = facts.bindings.callee(event.call, current)
                if callee is not None and callee not in seen:
                    seen.add(callee)
                    pending.append(callee)
    return False


def _is_forward(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    """Whether a module is called."""
    values = facts.values(function)
    if not isinstance(event.call.func, ir.Name) or not event.call.operands:
        return False
    if event.call.method.startswith("forward") and event.call.receiver is not None:
        return values.at(event.call.receiver, event) is Kind.MODULE
    return values.at(event.call.func, event) is Kind.MODULE


def _lets_go(event: ir.Event) -> bool:
    """Whether an event moves the work to the host, or empties the frames that the error holds."""
    values = [event.value] if isinstance(event, (ir.Bind, ir.Return, ir.Store)) else [event.call] if isinstance(event, ir.Invoke) else []
    if isinstance(event, ir.Bind) and event.place.endswith("__traceback__"):
        return True
    nodes = [node for value in values for node in ir.walk(value)]
    return any(
        (isinstance(node, ir.Const) and isinstance(node.value, str) and node.value.strip("'\"").startswith("cpu"))
        or (isinstance(node, ir.Call) and node.method in LETS_GO)
        for node in nodes
    )


def stored(facts: FileFacts, handler: OomHandler) -> Iterator[ir.Bind | ir.Store]:
    """Where the error itself is kept, and with it the failed frames, while a loop tries on."""
    if not any(_work(facts, handler.function, event) for event in handler.tried):
        return
    for event in handler.events:
        if isinstance(event, (ir.Bind, ir.Store)) and event.ctx.loops and _holds(event.value, handler.clause.name):
            kept = event.ctx.loops[-1] in facts.lifetimes(handler.function).unreset(event, event.place)
            if kept and _leads_to_next_turn(handler.function, event):
                yield event


def _holds(value: ir.Expr, name: str | None) -> bool:
    """Whether a value is the error, or a display with it."""
    if isinstance(value, ir.Seq):
        return any(_holds(item, name) for item in value.items)
    return name is not None and isinstance(value, ir.Name) and value.path == name


def _leads_to_next_turn(function: ir.Function, event: ir.Event) -> bool:
    """Whether the innermost loop goes on after an event."""
    pending = [block for block in function.blocks if event in block.events]
    seen: set[int] = set()
    while pending:
        block = pending.pop()
        if block.index in seen:
            continue
        seen.add(block.index)
        for edge in block.edges:
            if edge.turn is event.ctx.loops[-1]:
                return True
            if edge.turn is None and not edge.handler:
                pending.append(edge.target)
    return False
