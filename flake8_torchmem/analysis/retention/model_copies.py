"""Copies of whole models that a training loop collects where the model is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.loading.placement import COPIES_TO_HOST, TO_HOST, Place
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

COPYING = frozenset({"deepcopy", "clone"})
WEIGHTS = Words(r"^(?:state_dict|parameters|named_parameters|buffers|named_buffers)$")


def copies(facts: FileFacts) -> Iterator[tuple[ir.Event, str]]:
    """Stores of copies in places that grow while a loop trains, with the place."""
    for function in facts.functions:
        for growth in facts.lifetimes(function).growths:
            if growth.kind not in ("append", "extend", "setitem") or not any(_trains(facts, loop, function) for loop in growth.loops):
                continue
            parts = growth.value.items if isinstance(growth.value, ir.Seq) else (growth.value,)
            copied = (_copied(facts, function, part, growth.event) for part in parts)
            if any(module is not None and _on_device(facts, function, module) for module in copied):
                yield growth.event, growth.place


def _trains(facts: FileFacts, loop: ir.Loop, function: ir.Function) -> bool:
    """Whether a loop steps, itself or by a call that says so."""
    if facts.effect_in(loop, function, "step"):
        return True
    calls = (event.call for event in facts.calls(function) if loop in event.ctx.loops)
    return any(torchapi.WORK_NAME.search(call.method) and "eval" not in call.method and call.operands for call in calls)


def _copied(facts: FileFacts, function: ir.Function, value: ir.Expr, event: ir.Event) -> str | None:
    """The module that a value holds a copy of, unless the copy goes to the host."""
    at = facts.evidence.reaching(function).at
    pending, seen, copied, module = [(value, event)], set(), False, None
    while pending:
        expr, where = pending.pop()
        for node in ir.walk(expr):
            if isinstance(node, ir.Call):
                if node.method in TO_HOST or COPIES_TO_HOST.search(node.method) or _to_host(facts, function, node, where):
                    return None
                copied |= node.method in COPYING
                if WEIGHTS.match(node.method) and isinstance(node.receiver, ir.Name):
                    module = node.receiver.path
            elif isinstance(node, ir.Name):
                if copied and module is None and facts.values(function).at(node, where) is Kind.MODULE and node.path != "copy":
                    module = node.path
                for bind in at[where].get(node.path, ()) if facts.values(function).at(node, where) is not Kind.MODULE else ():
                    if bind not in seen and bind.kind == "assign":
                        seen.add(bind)
                        pending.append((bind.value, bind))
    return module if copied else None


def _to_host(facts: FileFacts, function: ir.Function, call: ir.Call, event: ir.Event) -> bool:
    return call.method == "to" and facts.placement(function).at(call, event) is Place.HOST


def _on_device(facts: FileFacts, function: ir.Function, module: str) -> bool:
    """Whether the module is moved to the device in sight, or the function brings what it is fed with there."""
    return facts.placement(function).on_device(module) or bool(facts.placement(function).arrivals())
