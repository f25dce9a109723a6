"""Weights that an object keeps from call to call: attributes that share memory with a module which goes on training."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.retention.snapshots import BEST, Held, Snapshots, overlap, saves
from flake8_torchmem.lazy import Words, regex

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

STARTS = regex(r"init|orig|start|initial|pristine", re.I)
ENDS_TRAINING = Words(r"(?:train|fit|training)_end$|^after_(?:train|fit|training)$|finish|final", re.I)
COPIES = frozenset({"deepcopy", "clone", "cpu", "to", "numpy"})


class Kept(NamedTuple):
    """A snapshot in an attribute, for later calls.

    Attributes:
        held: the snapshot.
        restored: where another method loads it back, if that is in sight.
        swapped: the method itself loads other weights meanwhile.
    """

    held: Held
    restored: ir.Event | None
    swapped: bool = False


def kept_by_objects(facts: FileFacts, snapshots: Snapshots) -> Iterator[Kept]:
    """Attributes that a method gives the weights of a module which goes on training after the call."""
    function = snapshots.function
    cls = function.owner
    if cls is None or ENDS_TRAINING.search(function.name):
        return
    for held in (held for taken in snapshots.taken.values() for held in taken if held.place.startswith("self.")):
        others = [bind for bind in _bound_in(facts, cls, held.origin.place) if bind is not held.origin]
        if any(_is_copy(bind.value) for bind in others) or not _outlives_call(facts, function, held.module):
            continue
        restored = _restored_elsewhere(facts, snapshots, held)
        name = torchapi.last(held.place)
        if function.name == "__init__":
            if restored is not None and STARTS.search(name) and not any(_is_alias(bind.value) for bind in others):
                yield Kept(held, restored)
            continue
        kept = _is_best(held) and _goes_on(snapshots, held)
        swapped = _overwritten(snapshots, held)
        if swapped or kept if restored is not None else kept and not _handed_on(facts, snapshots, held):
            yield Kept(held, restored, swapped)


def _is_best(held: Held) -> bool:
    """Whether an assignment says by its name that the weights are to stay as they are."""
    return bool(BEST.search(torchapi.last(held.place))) and isinstance(held.origin, ir.Bind)


def _bound_in(facts: FileFacts, cls: ir.Class, place: str) -> Iterator[ir.Bind]:
    for method in cls.methods.values():
        yield from facts.bindings.assigned(method).get(place, ())


def _is_alias(value: ir.Expr) -> bool:
    """Whether a value is made from a state dict, with no copy in sight."""
    methods = {node.method for node in ir.walk(value) if isinstance(node, ir.Call)}
    return "state_dict" in methods and not methods & COPIES


def _is_copy(value: ir.Expr) -> bool:
    """Whether a value is anything but a state dict and an empty start."""
    empty = isinstance(value, (ir.Const, ir.Name)) or not list(ir.parts(value))
    return not empty and not _is_alias(value) and not (isinstance(value, ir.Call) and not value.operands)


def _outlives_call(facts: FileFacts, function: ir.Function, module: str) -> bool:
    """Whether the module is the object's own or the caller's, and every caller in sight goes on with the same one."""
    root = paths.root(module)
    if root in function.locals - set(function.params) or any(prefix in function.assigned for prefix in paths.prefixes(module)):
        return False
    for _, call in facts.summaries.callers.get(function, ()):
        given = [arg.path for param, arg in function.arguments(call) if param == root and isinstance(arg, ir.Name)]
        if any(call.ctx.loops and paths.root(path) in call.ctx.loops[-1].assigned for path in given):
            return False
    return True


def _goes_on(snapshots: Snapshots, held: Held) -> bool:
    """Whether training follows: in the method, or after it, as one that only compares and keeps is called again and again."""
    state = Held(held.origin, held.module, held.place)
    if any(snapshots.changes(event, state, frozenset({state})) for event in snapshots.function.events()):
        return any(other.origin is held.origin and other.changed is not None for other in snapshots.exit)
    return bool(held.origin.ctx.conds)


def _handed_on(facts: FileFacts, snapshots: Snapshots, held: Held) -> bool:
    """Whether the method gives the weights to another at once, or calls one that reads them: that may write them to a file."""
    if any(saves(event, held) for event in snapshots.function.events()):
        return True
    for event in facts.calls(snapshots.function):
        if event.call.method == "load_state_dict":
            continue
        callee = facts.bindings.callee(event.call, snapshots.function)
        reads = (path for inner in callee.events() for path in ir.reads(inner)) if callee is not None else ()
        given = (path for arg in event.call.operands for path in ir.names(arg))
        if any(path != "self" and overlap(path, held.origin.place) for path in (*given, *reads)):
            return True
    return False


def _overwritten(snapshots: Snapshots, held: Held) -> bool:
    """Whether the method itself goes on to load other weights into the module."""
    changes = [other.changed for other in snapshots.exit if other.origin is held.origin]
    return any(isinstance(change, ir.Invoke) and change.call.method == "load_state_dict" for change in changes)


def _restored_elsewhere(facts: FileFacts, snapshots: Snapshots, held: Held) -> ir.Event | None:
    """Where another method of the class loads the attribute back into the same module."""
    function = snapshots.function
    bound = [bind for binds in facts.bindings.assigned(function).values() for bind in binds]
    same = {held.module} | {bind.place for bind in bound if isinstance(bind.value, ir.Name) and bind.value.path == held.module}
    methods = function.owner.methods.values() if function.owner else ()
    for event in (event for method in methods if method is not function for event in facts.calls(method)):
        receiver, given = event.call.receiver, event.call.args[:1]
        if event.call.method != "load_state_dict" or not isinstance(receiver, ir.Name) or receiver.path not in same:
            continue
        if given and isinstance(given[0], ir.Name) and overlap(given[0].path, held.place):
            return event
    return None
