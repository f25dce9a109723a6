"""Tensors with graph that go where they outlive the step without a list that grows in sight: buffers, records, epoch ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.evidence import carriers, direct, type_tested
from flake8_torchmem.analysis.retention.evaluation import evaluates
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

TENSOR_FACTORY = Words(r"^torch\.(?:zeros|ones|empty|full|rand|randn|tensor|zeros_like|empty_like)$")
STORES = frozenset({"append", "extend", "setitem"})


class Kept(NamedTuple):
    """A value with graph at a place that outlives the step.

    Attributes:
        function: where it goes there.
        event: by which it does.
        value: what goes there.
        place: where to.
        freed: a backward has run over it before.
        param: of the method that is handed the value, if one is.
    """

    function: ir.Function
    event: ir.Event
    value: ir.Expr
    place: str
    freed: bool
    param: str = ""


def in_place(facts: FileFacts) -> Iterator[Kept]:
    """`bank[rows] = features` and `bank[rows].copy_(features)`: the tensor takes part in the graph of every write."""
    for function in facts.functions:
        for event, place, value in _writes(function):
            if event.ctx.grad is not ir.Grad.ON or not _is_tensor(facts, place, function) or ".data" in place:
                continue
            if _repeats(facts, function, event, place) and _unused(facts, function, place, value, event):
                yield Kept(function, event, value, place, _backpropagated(facts, function, value))


def _writes(function: ir.Function) -> Iterator[tuple[ir.Event, str, ir.Expr]]:
    for event in function.events():
        if isinstance(event, ir.Store) and event.kind == "setitem":
            yield event, event.place, event.value
        elif isinstance(event, ir.Invoke) and event.call.method == "copy_" and event.call.args:
            receiver = event.call.receiver
            while isinstance(receiver, ir.Item):
                receiver = receiver.base
            if isinstance(receiver, ir.Name):
                yield event, receiver.path, event.call.args[0]


def _is_tensor(facts: FileFacts, place: str, function: ir.Function) -> bool:
    """Whether a place is seen to be a tensor that was made, no parameter: by a factory, or registered as a buffer."""
    binds = facts.bindings.binds(place, function)
    if binds:
        return all(_made(facts, bind.value, function) for bind in binds)
    methods = function.owner.methods.values() if function.owner is not None and place.startswith("self.") else ()
    return any(
        event.call.method == "register_buffer"
        and any(isinstance(arg, ir.Const) and f"self.{arg.value}" == place for arg in event.call.args)
        for method in methods
        for event in facts.calls(method)
    )


def _made(facts: FileFacts, value: ir.Expr, function: ir.Function) -> bool:
    """`torch.zeros(...).to(device)`."""
    while isinstance(value, ir.Call):
        if TENSOR_FACTORY.match(facts.evidence.resolve(value.path or "", function)):
            return "requires_grad" not in value.kwargs
        if value.receiver is None or value.method not in torchapi.TENSOR_METHODS:
            return False
        value = value.receiver
    return False


def bounded(facts: FileFacts) -> Iterator[Kept]:
    """Queues of a fixed length that take up graphs which no backward frees: they hold as many of them as they are long."""
    for function in facts.functions:
        lifetimes = facts.lifetimes(function)
        for event in function.events():
            if not isinstance(event, ir.Store) or event.kind != "append" or not lifetimes.is_queue(event.place):
                continue
            freed = _backpropagated(facts, function, event.value)
            if not freed and _repeats(facts, function, event, event.place) and _unused(facts, function, event.place, event.value, event):
                yield Kept(function, event, event.value, event.place, freed)


def recorded(facts: FileFacts) -> Iterator[Kept]:
    """Calls that hand a tensor with graph to a method of the file which keeps it in a container of its object."""
    for function in facts.functions:
        for event in facts.calls(function):
            callee = facts.bindings.callee(event.call, function)
            if callee is None or callee.owner is None or callee.owner is function.owner or callee.name == "__init__":
                continue
            for param, arg in callee.arguments(event.call):
                store = _storing(facts, callee, param)
                if store is None or not _repeats(facts, function, event, event.call.path or ""):
                    continue
                receiver = event.call.receiver
                held = receiver.path if isinstance(receiver, ir.Name) else ""
                if _unused(facts, function, held, arg, event) and not _read_for_backward(facts, callee, store.place):
                    place = f"{callee.owner.name}.{store.place.removeprefix('self.')}"
                    yield Kept(function, event, arg, place, _backpropagated(facts, function, arg), param)
                    break


def _storing(facts: FileFacts, method: ir.Function, param: str) -> ir.Store | None:
    """Where a method puts its parameter, graph and all: into a container that it does not empty."""
    at = facts.evidence.reaching(method).at
    for event in method.events():
        if not isinstance(event, ir.Store) or event.kind not in STORES or not event.place.startswith("self."):
            continue
        plain = param in set(carriers(event.value)) and not at[event].get(param)
        if any(param in type_tested(cond) for cond, _, _ in event.ctx.conds):
            continue  # tensors and numbers go ways of their own
        emptied = any(isinstance(other, ir.Clear) and other.place == event.place for other in method.events())
        if plain and not emptied and event.ctx.grad is ir.Grad.ON and facts.values(method).at(event.value, event) is Kind.UNKNOWN:
            return event
    return None


def _read_for_backward(facts: FileFacts, method: ir.Function, place: str) -> bool:
    """Whether a function that leads to a backward gets at the container, or a loop empties it."""
    name = torchapi.last(place)
    readers = [function for function in facts.functions if function is not method and any(_mentions(e, name) for e in function.events())]
    for reader in readers:
        if "backward" in facts.summaries.effects(reader) or any(_drops(event, name) for event in reader.events()):
            return True
        for caller, call in facts.summaries.callers.get(reader, ()):
            if isinstance(call.receiver, ir.Name) and call.receiver.path in facts.evidence.feeds_backward(caller):
                return True
    return False


def _mentions(event: ir.Event, name: str) -> bool:
    """Whether an event reads an attribute of this name."""
    if isinstance(event, (ir.Bind, ir.Store, ir.Return)):
        return any(name in path.split("[")[0].split(".")[1:] for path in ir.names(event.value))
    return isinstance(event, ir.Invoke) and any(name in path.split("[")[0].split(".")[1:] for path in ir.names(event.call))


def _drops(event: ir.Event, name: str) -> bool:
    if isinstance(event, ir.Clear):
        return torchapi.last(event.place) == name
    return isinstance(event, ir.Bind) and torchapi.last(event.place) == name and isinstance(event.value, ir.Seq) and bool(event.ctx.loops)


def _repeats(facts: FileFacts, function: ir.Function, event: ir.Event, place: str) -> bool:
    """Whether the event comes again with every batch, and what it writes to outlives the turn."""
    if not event.ctx.loops:
        return facts.turn(function) is not None and place.startswith("self.")
    loops = facts.lifetimes(function).unreset(event, paths.root(place) if not place.startswith("self.") else place)
    if facts.guarded_by_callers(function) or function.name == "forward":
        return False
    trains = any(facts.effect_in(loop, function, "step") for loop in loops)
    return trains or any(evaluates(facts, loop, function) for loop in loops)


def _unused(facts: FileFacts, function: ir.Function, place: str, value: ir.Expr, event: ir.Event) -> bool:
    """Whether the value carries a graph, and no backward goes through what the place holds."""
    if facts.values(function).at(value, event) is not Kind.GRAPH or facts.lifetimes(function).consumed(place):
        return False
    name = torchapi.last(place)
    return not any(name and torchapi.last(path) == name for other in facts.functions for path in facts.evidence.feeds_backward(other))


def _backpropagated(facts: FileFacts, function: ir.Function, value: ir.Expr) -> bool:
    """Whether a backward of the function, or Lightning's, goes through what the value is made of."""
    feeding = facts.evidence.feeds_backward(function)
    turn = facts.turn(function)
    return (turn is not None and turn.trains) or any(path in feeding for path in direct(value))


def epoch_end(facts: FileFacts) -> Iterator[tuple[ir.Function, ir.Return, str]]:
    """Keys of what a Lightning `training_step` returns, where a `training_epoch_end` makes Lightning keep it for the epoch."""
    for cls in facts.program.classes.values():
        step = cls.methods.get("training_step")
        if step is None or "training_epoch_end" not in cls.methods or not any(base.endswith("LightningModule") for base in cls.bases):
            continue
        values = facts.values(step)
        for event in step.events():
            if not isinstance(event, ir.Return):
                continue
            value = event.value
            for key, item in zip(value.keys, value.items, strict=True) if isinstance(value, ir.Seq) and value.keys else ():
                named = isinstance(key, ir.Const) and key.value not in ("loss", "hiddens")
                if named and isinstance(key, ir.Const) and values.at(item, event) is Kind.GRAPH:
                    yield step, event, str(key.value)
                    break
