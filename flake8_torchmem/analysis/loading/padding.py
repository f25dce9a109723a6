"""Loops over batches that are padded to their own longest sample, so that every turn asks for other sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

TOKENIZES = Words(r"tokeni[sz]er?|processor|encode|^pad$", re.I)
COLLATORS = Words(r"^DataCollator(?:WithPadding|ForSeq2Seq|ForTokenClassification|ForMultipleChoice|CTCWithPadding)$")
SORTS = Words(r"bucket|length|group|sort", re.I)
SETTING = Words(r"expandable_segments|ALLOC_CONF")
MOVES = frozenset({"cuda", "to", "prepare"})


def padding_of(facts: FileFacts, function: ir.Function, loop: ir.Loop) -> ir.Call | None:
    """The call that pads the batches of a loop to lengths of their own: in the loop, or where its loader collates."""
    found = _padding(facts, function, loop)
    if found is not None:
        return found
    for loader, scope in _loaders(facts, function, loop):
        collate = loader.kwargs.get("collate_fn")
        if collate is not None and not _sorts(loader):
            found = _collates(facts, scope, collate)
            if found is not None:
                return found
    return None


def _padding(facts: FileFacts, function: ir.Function, loop: ir.Loop | None = None) -> ir.Call | None:
    """The first call of a function, or of a loop in it, that pads to the longest; none where lengths are then evened out."""
    calls = [event.call for event in facts.calls(function) if loop is None or loop in event.ctx.loops]
    if any(facts.evidence.resolve(call.path or "", function) == "torch.nn.functional.pad" for call in calls):
        return None
    return next((call for call in calls if _pads(call)), None)


def _pads(call: ir.Call) -> bool:
    """Whether a call pads to the longest of what it is given."""
    if call.method == "pad_sequence":
        return True
    padding = call.kwargs.get("padding")
    longest = isinstance(padding, ir.Const) and padding.value in (True, "longest")
    return longest and "pad_to_multiple_of" not in call.kwargs and bool(TOKENIZES.search(call.method))


def _loaders(facts: FileFacts, function: ir.Function, loop: ir.Loop) -> Iterator[tuple[ir.Call, ir.Function]]:
    """Calls that build what a loop goes over, with where they stand; one step up where it is a parameter."""
    if loop.iterable is None:
        return
    yield from ((node, function) for node in ir.walk(loop.iterable) if isinstance(node, ir.Call))
    for path in (facts.bindings.canonical(name, function) for name in ir.names(loop.iterable)):
        places = [(path, function)]
        if paths.root(path) in function.params and path == paths.root(path):
            callers = facts.summaries.callers.get(function, ())
            given = [(dict(function.arguments(call)).get(path), caller) for caller, call in callers]
            places = [(arg.path, caller) for arg, caller in given if isinstance(arg, ir.Name)]
        for place, scope in places:
            for bind in facts.bindings.binds(place, scope):
                yield from ((node, scope) for node in ir.walk(bind.value) if isinstance(node, ir.Call))


def _sorts(loader: ir.Call) -> bool:
    """Whether a loader brings samples of like length together."""
    if "batch_sampler" in loader.kwargs:
        return True
    return any(SORTS.search(name) for value in loader.operands for name in ir.names(value))


def _collates(facts: FileFacts, scope: ir.Function, collate: ir.Expr) -> ir.Call | None:
    """The call that pads in a collate function or collator."""
    if isinstance(collate, ir.Call):
        if collate.method == "partial" and collate.args:
            return _collates(facts, scope, collate.args[0])
        padding = collate.kwargs.get("padding")
        fixed = "pad_to_multiple_of" in collate.kwargs or (isinstance(padding, ir.Const) and padding.value == "max_length")
        name = torchapi.last(facts.evidence.resolve(collate.path or "", scope))
        return collate if COLLATORS.match(name) and not fixed else None
    if not isinstance(collate, ir.Name):
        return None
    function = facts.bindings.function_at(collate.path, scope)
    if function is not None:
        return _padding(facts, function)
    made = (bind.value for bind in facts.bindings.binds(collate.path, scope) if isinstance(bind.value, ir.Call))
    return next((found for value in made if (found := _collates(facts, scope, value)) is not None), None)


def on_device(facts: FileFacts, function: ir.Function) -> bool:
    """Whether the function or one that calls it moves something to a device."""
    callers = [caller for caller, _ in facts.summaries.callers.get(function, ())]
    return any(event.call.method in MOVES for scope in (function, *callers) for event in facts.calls(scope))


def allocator_is_set(facts: FileFacts) -> bool:
    """Whether the file configures the allocator."""
    for function in facts.functions:
        for event in function.events():
            if isinstance(event, (ir.Bind, ir.Store)) and SETTING.search(event.place):
                return True
            values = [event.value] if isinstance(event, (ir.Bind, ir.Store)) else [event.call] if isinstance(event, ir.Invoke) else []
            for node in (node for value in values for node in ir.walk(value)):
                if isinstance(node, ir.Const) and isinstance(node.value, str) and SETTING.search(node.value):
                    return True
                if isinstance(node, ir.Call) and "allocator_settings" in node.method:
                    return True
    return False
