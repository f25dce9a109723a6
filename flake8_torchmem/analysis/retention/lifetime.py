"""What outlives one turn of a loop: places that grow, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

from flake8_torchmem.analysis import frameworks, ir, paths
from flake8_torchmem.analysis.evidence import Evidence, carriers
from flake8_torchmem.analysis.turns import Turn, backpropagates

CONCATENATES = frozenset({"cat", "concat", "concatenate", "hstack", "vstack"})
GROWING_CONTAINERS = frozenset({"dict", "list", "defaultdict", "OrderedDict", "set", "Counter"})


class Growth(NamedTuple):
    """A place that holds more after every turn.

    Attributes:
        event: the store.
        place: what grows.
        value: what is added.
        kind: append, extend, setitem, sum, or cat.
        loops: loops around the store in which nothing empties the place, innermost first; empty for a method that is
            called once per batch.
    """

    event: ir.Event
    place: str
    value: ir.Expr
    kind: str
    loops: tuple[ir.Loop, ...]


class Lifetimes:
    """Growth in one function.

    Args:
        function: where to look.
        evidence: about the program.
        turn: of the loop around the function's calls, where that is in sight or known.
    """

    def __init__(self, function: ir.Function, evidence: Evidence, turn: Turn | None) -> None:
        self.function = function
        self.evidence = evidence
        self.bindings = evidence.bindings
        self.turn = turn

    @cached_property
    def growths(self) -> tuple[Growth, ...]:
        """All places that grow, by any kind of store."""
        return tuple(self._found())

    def _found(self) -> Iterator[Growth]:
        for event in self.function.events():
            found = self._growth(event)
            if found is None or found.place.endswith(".grad"):
                continue
            if found.loops or self._outlives_call(found.place):
                yield found

    def sums(self) -> Iterator[Growth]:
        """Places that a value is added to, whether or not they outlive anything."""
        found = (self._growth(event) for event in self.function.events())
        return (growth for growth in found if growth is not None and growth.kind == "sum")

    def _growth(self, event: ir.Event) -> Growth | None:
        if isinstance(event, ir.Store):
            loops = self.unreset(event, event.place)
            if event.kind == "augment":
                return Growth(event, event.place, event.value, "sum", loops)
            if event.kind == "setitem":
                delta = self._item_sum(event)
                if delta is not None:
                    return Growth(event, event.place, delta, "sum", loops)
                keyed = loops if event.key is None else self._keyed(event.key, loops)
                return Growth(event, event.place, event.value, "setitem", keyed) if keyed and self._is_container(event.place) else None
            return None if self._is_bounded(event.place) else Growth(event, event.place, event.value, event.kind, loops)
        if isinstance(event, ir.Bind):
            joined = concatenated(event.place, event.value)
            if joined is not None:
                return self._untouched(Growth(event, event.place, joined, "cat", self.unreset(event, event.place)))
            delta = event.delta if event.kind == "augment" else added(event.place, event.value)
            if isinstance(delta, ir.Seq) and delta.kind == "list":
                return Growth(event, event.place, delta, "extend", self.unreset(event, event.place))
            if delta is not None and (
                isinstance(event.value, ir.Call) or (isinstance(event.value, ir.Op) and event.value.op in ("+", "-"))
            ):
                return Growth(event, event.place, delta, "sum", self.unreset(event, event.place))
        return None

    def unreset(self, event: ir.Event, place: str) -> tuple[ir.Loop, ...]:
        """Loops around an event, innermost first, up to the first that gives the place a new value."""
        found = []
        resets = [other for prefix in paths.prefixes(place) for other in self._emptied.get(prefix, ()) if other is not event]
        for loop in reversed(event.ctx.loops):
            if any(_in_each_turn(other, loop, event) for other in resets):
                break
            found.append(loop)
        return tuple(found)

    @cached_property
    def _emptied(self) -> dict[str, list[ir.Event]]:
        """What gives places new values, by place."""
        found: dict[str, list[ir.Event]] = {}
        for event in self.function.events():
            if isinstance(event, (ir.Clear, ir.Bind)) and empties(event, event.place):
                found.setdefault(event.place, []).append(event)
        return found

    def _untouched(self, growth: Growth) -> Growth:
        """A growth by `cat` of what the place itself was used for, or that a turn transforms, is a state and no collection."""
        loop = growth.loops[0] if growth.loops else None
        binds = [event for event in self.function.events() if isinstance(event, ir.Bind) and loop in event.ctx.loops]
        made = {growth.place}
        for bind in binds:
            if bind is not growth.event and made & set(ir.names(bind.value)):
                made.add(bind.place)
        state = made & set(ir.names(growth.value)) or any(
            bind.place == growth.place and growth.place in ir.names(bind.value) and concatenated(bind.place, bind.value) is None
            for bind in binds
        )
        return growth._replace(loops=()) if state else growth

    def _outlives_call(self, place: str) -> bool:
        """Whether an attribute, or a variable from around, grows with every call: nothing in the same turn empties it."""
        if self.turn is None or not (place.startswith("self.") or self._from_around(place)):
            return False
        return not any(empties(event, place) for event in (*self.function.events(), *self.turn.events))

    def _from_around(self, place: str) -> bool:
        """Whether a variable belongs to a function around this one, or to the module."""
        root = paths.root(place)
        if root in self.function.locals:
            return False
        scope = self.function.parent
        while scope is not None:
            if root in scope.locals:
                return scope.name != self.function.name and root not in scope.params
            scope = scope.parent
        return root not in self.function.file.imports

    def per_batch(self) -> bool:
        """Whether the function is the body of a loop that lies elsewhere: by name, or it back-propagates outside of any loop."""
        if frameworks.calls_per_batch(self.bindings, self.function):
            return True
        return backpropagates(self.function) and self.function.owner is not None and self.function.name != "__init__"

    def _keyed(self, key: ir.Expr, loops: tuple[ir.Loop, ...]) -> tuple[ir.Loop, ...]:
        """The loop that makes new keys, and those around it where it goes over samples of their batches; other keys come again."""
        roots = {paths.root(path) for path in ir.names(key)}
        first = next((index for index, loop in enumerate(loops) if roots & loop.assigned), None)
        if first is None:
            return ()
        end = first + 1
        while end < len(loops) and _goes_over_part_of(loops[end - 1], loops[end]):
            end += 1
        return loops[first:end]

    def _is_container(self, place: str) -> bool:
        """Whether a place is seen to be a dict or list: storing into an array or tensor keeps no objects."""
        binds = self.bindings.binds(place, self.function)
        return bool(binds) and all(
            (isinstance(bind.value, ir.Seq) and not (bind.value.kind == "list" and bind.value.items))
            or (isinstance(bind.value, ir.Call) and bind.value.method in GROWING_CONTAINERS)
            for bind in binds
        )

    def _is_bounded(self, place: str) -> bool:
        """Whether a container drops old items: `deque(maxlen=...)`, or its head is popped or deleted in a loop."""
        return self.is_queue(place) or any(self._drops(event, place) for event in self.function.events())

    def is_queue(self, place: str) -> bool:
        """Whether a place is a `deque(maxlen=...)`."""
        values = [bind.value for bind in self.bindings.binds(place, self.function)]
        return any(isinstance(v, ir.Call) and ("maxlen" in v.kwargs or (v.method == "deque" and len(v.operands) > 1)) for v in values)

    def _drops(self, event: ir.Event, place: str) -> bool:
        if isinstance(event, ir.Invoke):
            receiver = event.call.receiver
            return event.call.method in ("pop", "popleft") and isinstance(receiver, ir.Name) and receiver.path == place
        inner = isinstance(event, ir.Bind) and event.place.startswith(f"{place}[") and bool(event.ctx.loops)
        return inner and isinstance(event, ir.Bind) and event.kind in ("delete", "assign")

    def _item_sum(self, event: ir.Store) -> ir.Expr | None:
        """What `d[k] = d[k] + v` and `d[k] = d.get(k, 0) + v` add."""
        value = event.value
        if not isinstance(value, ir.Op) or value.op != "+":
            return None
        for index, arg in enumerate(value.args):
            base = arg.base if isinstance(arg, ir.Item) else arg.receiver if isinstance(arg, ir.Call) and arg.method == "get" else None
            if isinstance(base, ir.Name) and base.path == event.place:
                return value.args[1 - index]
        return None

    def consumed(self, place: str) -> bool:
        """Whether what the place holds is back-propagated: here, in a nested function, or in another method."""
        functions = [self.function]
        if place.startswith("self."):
            functions += self.bindings.relatives(self.function)
        parent = self.function.parent
        while parent is not None:
            functions.append(parent)
            parent = parent.parent
        return any(place in path_prefixes for function in functions for path_prefixes in (self.evidence.feeds_backward(function),))

    def returned(self, place: str) -> bool:
        """Whether the place itself, not a number made of it, leaves the function."""
        return any(
            any(place in paths.prefixes(path) for path in carriers(event.value))
            for event in self.function.events()
            if isinstance(event, ir.Return)
        )


def _goes_over_part_of(inner: ir.Loop, outer: ir.Loop) -> bool:
    """Whether a loop goes over elements of what the outer one has drawn, and not over the keys of a dict, which are the same each time."""
    if inner.iterable is None or any(isinstance(n, ir.Call) and n.method in ("items", "keys") for n in ir.walk(inner.iterable)):
        return False
    return bool({paths.root(path) for path in ir.names(inner.iterable)} & set(outer.targets))


def _in_each_turn(event: ir.Event, loop: ir.Loop, store: ir.Event) -> bool:
    """Whether an event happens in a loop; beside a sum, with every turn in which that happens: a window of turns is growth."""
    if loop not in event.ctx.loops:
        return False
    if not isinstance(store, ir.Bind):
        return True
    shared = {(id(cond), arm) for cond, arm in store.ctx.conds_inside(loop)}
    return all((id(cond), arm) in shared for cond, arm in event.ctx.conds_inside(loop))


def empties(event: ir.Event, place: str) -> bool:
    """Whether an event gives a place a new value that is not made from the old one."""
    if isinstance(event, ir.Clear):
        return event.place in paths.prefixes(place)
    if not isinstance(event, ir.Bind) or event.place not in paths.prefixes(place):
        return False
    return event.kind != "augment" and event.place not in ir.names(event.value)


def concatenated(place: str, value: ir.Expr) -> ir.Expr | None:
    """What `buffer = torch.cat([buffer, x])` puts in addition to the place, also in one arm: `x if buffer is None else torch.cat(...)`."""
    if isinstance(value, ir.Op) and value.op == "if":
        return next((found for arm in value.args[1:] if (found := concatenated(place, arm)) is not None), None)
    if not isinstance(value, ir.Call) or value.method not in CONCATENATES or not value.operands:
        return None
    parts = value.operands[0]
    if not isinstance(parts, ir.Seq) or not any(isinstance(item, ir.Name) and item.path == place for item in parts.items):
        return None
    rest = tuple(item for item in parts.items if place not in ir.names(item))
    return ir.Seq("tuple", rest) if rest and len(rest) == len(parts.items) - 1 else None


def added(place: str, value: ir.Expr) -> ir.Expr | None:
    """What `total = total + x` adds: the other summands, None when the place is no summand."""
    if not isinstance(value, ir.Op) or value.op not in ("+", "-"):
        return _added_by_call(place, value)
    summands, pending, rest = 0, list(value.args), []
    while pending:
        arg = pending.pop()
        if isinstance(arg, ir.Name) and arg.path == place:
            summands += 1
        elif isinstance(arg, ir.Op) and arg.op in ("+", "-"):
            pending.extend(arg.args)
        elif isinstance(arg, ir.Op) and arg.op == "*" and any(isinstance(a, ir.Name) and a.path == place for a in arg.args):
            summands += 1
        else:
            rest.append(arg)
    if summands != 1 or not rest:
        return None
    return rest[0] if len(rest) == 1 else ir.Op("+", tuple(rest))


def _added_by_call(place: str, value: ir.Expr) -> ir.Expr | None:
    """The same of `torch.add(total, x)`, `total.add(x)` and `torch.stack([total, x]).sum()`."""
    if not isinstance(value, ir.Call):
        return None
    receiver = value.receiver
    if value.method == "sum" and isinstance(receiver, ir.Call) and receiver.method in ("stack", *CONCATENATES) and receiver.args:
        terms = ir.parts(receiver.args[0]) if isinstance(receiver.args[0], ir.Seq) else ()
    elif value.method == "add" and len(value.args) in (1, 2):
        terms = value.args if len(value.args) == 2 else (*((receiver,) if receiver is not None else ()), *value.args)
    else:
        return None
    rest = [term for term in terms if not (isinstance(term, ir.Name) and term.path == place)]
    return rest[0] if len(rest) == 1 and len(terms) == 2 else None
