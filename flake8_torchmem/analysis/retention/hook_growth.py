"""Whether what hooks keep grows without end: the loops that run the model, and who empties the place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.retention.evaluation import forwards, is_batch_loop
from flake8_torchmem.analysis.retention.hooks import Kept, registrations
from flake8_torchmem.analysis.retention.lifetime import empties
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

# Emptied once per epoch is emptied too late.
PER_EPOCH = Words(r"epoch", re.I)
DROPS = frozenset({"pop", "popleft", "popitem", "clear"})
PARAMETERS = Words(r"(?:^|\.)(?:named_)?(?:parameters|modules|children)$")


def grows(facts: FileFacts, kept: Kept) -> bool:
    """Whether a place holds more with every batch, nothing empties it, and nothing back-propagates what it holds."""
    if _is_bounded(facts, kept) or _is_consumed(facts, kept):
        return False
    if kept.place.startswith("self.") and kept.home.owner is not None:
        return _grows_in_class(facts, kept, kept.home.owner)
    if kept.home.name == "<module>":
        return not _emptied_by_name(facts, kept) and any(_unemptied(facts, function, kept) for function in facts.functions)
    return _unemptied(facts, kept.home, kept)


def trains(facts: FileFacts, kept: Kept) -> bool:
    """Whether every loop that is seen to run the model back-propagates: what the activations need is then freed."""
    functions = facts.functions if kept.home.name == "<module>" or kept.place.startswith("self.") else (kept.home,)
    running = [(function, loop) for function in functions for loop in _loops(facts, function)]
    return bool(running) and all(facts.effect_in(loop, function, "backward") for function, loop in running)


def _unemptied(facts: FileFacts, function: ir.Function, kept: Kept) -> bool:
    """Whether a loop of a function runs the model batch by batch, and leaves the place as it is."""
    removed = [event.site.mark.number for event in facts.calls(function) if event.call.method == "remove" and not event.call.operands]
    if any(_empties(event, kept.place) for inner in _inner(function, kept) for event in inner.events()):
        return False
    for loop in _loops(facts, function):
        if any(loop in event.ctx.loops and _empties_by_callee(facts, function, event, kept.place) for event in function.events()):
            continue
        start = loop.site.mark.number if loop.site is not None else 0
        if kept.hook.registrar is function and any(kept.hook.event.site.mark.number < number < start for number in removed):
            continue
        if facts.effect_in(loop, function, "backward") or not facts.lifetimes(function).returned(kept.place):
            return True
    return False


def _inner(function: ir.Function, kept: Kept) -> Iterator[ir.Function]:
    """The functions nested in one, the hook left out."""
    pending = list(function.nested.values())
    for inner in pending:
        pending.extend(inner.nested.values())
        if inner is not kept.hook.function:
            yield inner


def _loops(facts: FileFacts, function: ir.Function) -> list[ir.Loop]:
    """Loops of a function that run a model on one batch per turn, with gradients."""
    running = {loop for event in forwards(facts, function) for loop in event.ctx.loops}
    for event in function.events():
        if event.ctx.loops and "backward" in facts.summaries.effects_of(event, function):
            running.update(event.ctx.loops)
    return [loop for loop in function.loops if loop in running and loop.kind != "comp" and is_batch_loop(facts, loop, function)]


def _empties_by_callee(facts: FileFacts, function: ir.Function, event: ir.Event, place: str) -> bool:
    """Whether an event empties the place, or gives it to a function of the file that does."""
    if _empties(event, place):
        return True
    callee = facts.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) else None
    if callee is None or not isinstance(event, ir.Invoke):
        return False
    params = [param for param, arg in callee.arguments(event.call) if isinstance(arg, ir.Name) and arg.path == place]
    return any(_empties(inner, param) for param in params for inner in callee.events())


def _empties(event: ir.Event, place: str) -> bool:
    """Whether an event gives the place a new value, or takes something out of it."""
    if empties(event, place):
        return True
    if isinstance(event, ir.Store):
        return event.place == place and event.kind == "setitem" and isinstance(event.key, ir.Seq) and event.key.kind == "slice"
    if isinstance(event, ir.Invoke):
        receiver = event.call.receiver
        while isinstance(receiver, ir.Item):
            receiver = receiver.base
        return event.call.method in DROPS and isinstance(receiver, ir.Name) and place in paths.prefixes(receiver.path)
    return isinstance(event, ir.Bind) and event.kind == "delete" and event.place.startswith(f"{place}[")


def _is_bounded(facts: FileFacts, kept: Kept) -> bool:
    """Whether old items are dropped: `deque(maxlen=...)`, or the hook or its helpers take them out."""
    for bind in facts.bindings.binds(kept.place, kept.home):
        value = bind.value
        if isinstance(value, ir.Call) and ("maxlen" in value.kwargs or (value.method == "deque" and len(value.operands) > 1)):
            return True
    return any(_empties(event, _as_seen(kept)) for event in kept.hook.function.events() if event is not kept.event)


def _as_seen(kept: Kept) -> str:
    """The place as the hook itself spells it."""
    return kept.event.place if isinstance(kept.event, (ir.Store, ir.Bind)) else kept.place


def _is_consumed(facts: FileFacts, kept: Kept) -> bool:
    """Whether a backward of the file may go through what the place holds."""
    last = torchapi.last(kept.place)
    attribute = "." in kept.place
    for function in facts.program.all_functions():
        for path in facts.evidence.feeds_backward(function):
            if path == kept.place or (attribute and "." in path and torchapi.last(path) == last):
                return True
    return False


def _hands_back(facts: FileFacts, function: ir.Function, place: str) -> bool:
    """Whether the place itself leaves the function: a caller may want the graphs."""
    return facts.lifetimes(function).returned(place)


def _emptied_by_name(facts: FileFacts, kept: Kept) -> bool:
    """Whether a function of the file empties something of that name; once per epoch is too late."""
    for function in facts.program.all_functions():
        if function.name in ("__init__", "<module>") or PER_EPOCH.search(function.name):
            continue
        for event in function.events():
            for place in _spelled(event, torchapi.last(kept.place)):
                if _empties(event, place):
                    return True
    return False


def _spelled(event: ir.Event, last: str) -> Iterator[str]:
    """How an event spells a path that ends in a name."""
    place = event.place if isinstance(event, (ir.Bind, ir.Store, ir.Clear)) else None
    if isinstance(event, ir.Invoke) and isinstance(event.call.receiver, ir.Name):
        place = event.call.receiver.path
    if place is not None:
        yield from (path for path in paths.prefixes(place) if torchapi.last(path) == last and not path.endswith("]"))


def _grows_in_class(facts: FileFacts, kept: Kept, cls: ir.Class) -> bool:
    """Whether an attribute of a class grows: no method empties it, and objects live longer than one forward."""
    methods = list(cls.methods.values())
    if "__exit__" in cls.methods or _emptied_by_name(facts, kept):
        return False
    built = list(_built(facts, cls))
    if built:
        return any(not event.ctx.loops and _used_in_loops(facts, function, event) for function, event in built)
    if any(_loops(facts, method) for method in methods):
        return True
    if any(event.ctx.grad is not ir.Grad.ON for method in methods for event in method.events()):
        return False
    if facts.evidence.module_class(cls.full):
        return True
    removed = any(event.call.method == "remove" for method in methods for event in facts.calls(method))
    return not removed and not any(any(True for _ in forwards(facts, method, guarded=True)) for method in methods)


def _built(facts: FileFacts, cls: ir.Class) -> Iterator[tuple[ir.Function, ir.Invoke]]:
    """Where objects of a class are made."""
    for function in facts.program.all_functions():
        for event in facts.calls(function):
            if event.call.path and facts.bindings.class_named(event.call.path, function.file) is cls:
                yield function, event


def in_use(facts: FileFacts, kept: Kept) -> bool:
    """Whether somebody in sight has the hook run for many batches: that it could is no evidence."""
    registrar, cls = kept.hook.registrar, kept.home.owner
    if kept.place.startswith("self.") and cls is not None:
        each_batch = any(_loops(facts, method) or torchapi.BATCH_METHOD.match(name) for name, method in cls.methods.items())
        made = registrar.name == "__init__" or registrar.owner is not cls or facts.summaries.callers.get(registrar)
        return each_batch or bool(made and any(True for _ in _built(facts, cls)))
    runs = kept.home if kept.home.name != "<module>" else None
    return registrar.name == "<module>" or registrar is runs or bool(_loops(facts, registrar) or facts.summaries.callers.get(registrar))


def _used_in_loops(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    """Whether loops over batches follow after an object was made: in the function, in what it calls, or in its class."""
    after = [call for call in facts.calls(function) if call.site.mark.number > event.site.mark.number]
    callees = [facts.bindings.callee(call.call, function) for call in after]
    own = [method for method in function.owner.methods.values() if method is not function] if function.owner is not None else []
    if any(_loops(facts, other) for other in (*callees, *own) if other is not None):
        return True
    starts = [loop.site.mark.number for loop in _loops(facts, function) if loop.site is not None]
    return any(start > event.site.mark.number for start in starts)


def unremoved(facts: FileFacts) -> Iterator[tuple[ir.Function, ir.Invoke, ir.Loop | None]]:
    """Registrations that each batch, or each call in a loop, repeats on one module, never undone; with the loop around them."""
    for function, event in registrations(facts):
        if event.ctx.conds or _is_removed(function) or _is_handed_on(function, event.call):
            continue
        receiver = event.call.receiver
        around = next((loop for loop in _loops(facts, function) if loop in event.ctx.loops and _outlives(event, loop)), None)
        if event.ctx.loops:
            repeated = around is not None
        elif torchapi.BATCH_METHOD.match(function.name):
            repeated = isinstance(receiver, ir.Name) and receiver.path.startswith("self.")
        else:
            repeated = event.call.method != "register_hook" and _called_in_loop(facts, function, event)
        if repeated:
            yield function, event, around


def _is_removed(function: ir.Function) -> bool:
    return any(isinstance(event, ir.Invoke) and event.call.method == "remove" and not event.call.operands for event in function.events())


def _is_handed_on(function: ir.Function, call: ir.Call) -> bool:
    """Whether the handle is entered as a context, kept, given to another, or returned: someone may remove it."""
    if any(call in ir.walk(manager) for manager in function.managers):
        return True
    binds = [event for event in function.events() if isinstance(event, ir.Bind) and call in ir.walk(event.value)]
    names = {bind.place for bind in binds}
    if any("." in name or "[" in name for name in names):
        return True
    for event in function.events():
        given = event.call.operands if isinstance(event, ir.Invoke) and event.call is not call else ()
        values = (event.value,) if isinstance(event, (ir.Store, ir.Return)) else given
        if any(call in ir.walk(value) or names & set(ir.names(value)) for value in values):
            return True
    return False


def _called_in_loop(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    """Whether the function runs the model that it was given, and a loop of a caller gives it the same one with every turn."""
    models = _parameters_behind(facts, function, event.call.receiver)
    runs = any(path in models for call in facts.calls(function) if (path := call.call.path or "") and call.call.operands)
    for caller, call in facts.summaries.callers.get(function, ()) if runs else ():
        given = [arg for param, arg in function.arguments(call) if param in models]
        for loop in call.ctx.loops:
            same = [arg for arg in given if isinstance(arg, ir.Name) and paths.root(arg.path) not in loop.assigned]
            if same and loop.kind != "comp" and loop in caller.loops:
                return True
    return False


def _parameters_behind(facts: FileFacts, function: ir.Function, expr: ir.Expr | None) -> set[str]:
    """The parameters that a module was taken from: `model` of `layer = list(model.children())[-1]`."""
    found: set[str] = set()
    for path in ir.names(expr) if expr is not None else ():
        root = paths.root(path)
        binds = facts.bindings.assigned(function).get(root, ())
        if root in function.params and not binds:
            found.add(root)
        elif len(binds) == 1 and not any(isinstance(node, ir.Call) and "copy" in node.method for node in ir.walk(binds[0].value)):
            found |= {paths.root(name) for name in ir.names(binds[0].value)} & set(function.params)
    return found - {"self"}


def _outlives(event: ir.Invoke, loop: ir.Loop) -> bool:
    """Whether what a hook is registered on stays the same from turn to turn."""
    receiver = event.call.receiver
    if not isinstance(receiver, ir.Name):
        return False
    root = paths.root(receiver.path)
    for other in event.ctx.loops[event.ctx.loops.index(loop) + 1 :]:
        if root in other.targets and other.iterable is not None:
            over = [path for path in ir.names(other.iterable) if PARAMETERS.search(path)]
            return bool(over) and not any(paths.root(path) in loop.assigned for path in over)
    return event.call.method != "register_hook" and root not in loop.assigned
