"""Recurrent states: values that a model is called with and hands back, followed over the turns of a loop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.flow import within_turn
from flake8_torchmem.analysis.makers import makers
from flake8_torchmem.analysis.retention.evaluation import evaluates, goes_over_data, proves_no_grad, returns_graph
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

STATE_NAME = Words(r"^(?:h|c|hc|hx|cx|hn|cn|h_?\d|c_?\d|[hc]_\w{1,4})$|hidden|(?:^|_)(?:hid|states?|carry)(?:$|_|\d)", re.I)
CELL_NAME = Words(r"rnn|lstm|gru|recurrent|(?:^|_)cell(?:$|_)", re.I)
CELL_FACTORY = Words(r"^torch\.nn\.(?:RNN|LSTM|GRU)(?:Cell)?$")


class Carried(NamedTuple):
    """A state that goes from turn to turn with its graph.

    Attributes:
        event: the call of the model.
        state: its path.
        backward: what goes through the graph of the turn before again; None where nothing back-propagates.
        steps: whether an optimizer moves the parameters between two backwards.
        seen: whether the model is in sight, or said to be used so: one out of sight that trains may well detach by itself.
        loop: whose turns it goes over; None where the loop lies elsewhere.
        states: all states that go into the call with their graphs.
    """

    event: ir.Invoke
    state: str
    backward: ir.Backward | None
    steps: bool
    seen: bool
    loop: ir.Loop | None = None
    states: tuple[str, ...] = ()


class Recurrence:
    """The states of one function.

    Args:
        facts: of the file.
        function: where to look.
    """

    def __init__(self, facts: FileFacts, function: ir.Function) -> None:
        self.facts = facts
        self.function = function
        self._sources: dict[ir.Bind, tuple[list[set[ir.Bind]], Callable[[Iterable[bool]], bool]]] = {}

    def carried(self) -> Iterator[Carried]:
        """All states that keep graphs over turns of a loop, or over calls of a method that runs once per batch."""
        if self.function.name in ("forward", "__call__") and self.function.owner is not None:
            return
        for event in self.facts.calls(self.function):
            comes_back = event.ctx.loops or self.function.owner is not None
            if not comes_back or event.call.ctx.grad is not ir.Grad.ON or event.call.star:
                continue
            # What is made of a result is followed only where a result is bound and a state goes in: few calls get there.
            bound = event.call in self.results
            states = [state for state in dict.fromkeys(_operands(event.call)) if self._may_carry(event, state)] if bound else []
            made = self.made(event.call) if states else set()
            found = [self._over_turns(event, state, made) or self._over_calls(event, state, made) for state in states]
            carried = [each for each in found if each is not None]
            if carried and self._is_model(event):  # asked last: few calls hand on what they made
                yield carried[0]._replace(states=tuple(each.state for each in carried))

    @cached_property
    def binds(self) -> list[ir.Bind]:
        """The bindings of the function."""
        return [event for event in self.function.events() if isinstance(event, ir.Bind)]

    @cached_property
    def spines(self) -> dict[ir.Bind, ir.Expr]:
        """What each binds, or a part of it."""
        return {bind: _spine(bind.value) for bind in self.binds}

    @cached_property
    def results(self) -> set[ir.Call]:
        """Calls whose results, or parts of them, are bound to names."""
        return {spine for spine in self.spines.values() if isinstance(spine, ir.Call)}

    def _may_carry(self, event: ir.Invoke, state: str) -> bool:
        """Whether something may come back to a call, by a loop around it or as an attribute, that is a state."""
        comes_back = event.ctx.loops or (self.function.owner is not None and state.startswith("self."))
        return bool(comes_back) and self._is_state(event, state)

    def _is_model(self, event: ir.Invoke) -> bool:
        """Whether a call runs a model that hands its state back with the graph."""
        call = event.call
        if torchapi.CRITERION_NAME.search(call.method) or torchapi.DETACHES_BY_NAME.search(call.method):
            return False
        callee = self.facts.bindings.callee(call, self.function)
        if callee is not None:
            return callee.name in ("forward", "__call__") and callee.grad is ir.Grad.ON and not self._cuts(callee)
        func = call.receiver if call.method == "forward" and call.receiver is not None else call.func
        known = self.facts.values(self.function).at(func, event) is Kind.MODULE or CELL_NAME.search(torchapi.last(call.path or ""))
        return bool(known) and not any(forward is not None and self._cuts(forward) for forward in self.forwards(model_of(call)))

    def _in_sight(self, call: ir.Call) -> bool:
        """Whether what the model does with the state can be seen."""
        callee = self.facts.bindings.callee(call, self.function)
        return callee is not None or any(True for _ in self.forwards(model_of(call)))

    def forwards(self, path: str) -> Iterator[ir.Function | None]:
        """What runs when a model is called, as what makes it shows; None for what detaches nothing."""
        known = self.facts.bindings.class_of(path, self.function)
        for name in (known.full if known is not None else "", *makers(self.facts, path, self.function)):
            cls = self.facts.program.classes.get(name)
            forward = self.facts.bindings.method(cls, "forward") if cls is not None else None
            if forward is not None or CELL_FACTORY.match(name) or self.facts.evidence.module_class(name):
                yield forward

    def _cuts(self, forward: ir.Function) -> bool:
        """Whether a model detaches something of its own, by itself or in what it calls."""
        reached = [forward]
        for function in reached:
            called = (self.facts.bindings.callee(event.call, function) for event in function.events() if isinstance(event, ir.Invoke))
            reached += [callee for callee in dict.fromkeys(called) if callee is not None and callee not in reached]
        return any(_cuts(event) for function in reached for event in function.events())

    def made(self, call: ir.Call) -> set[ir.Bind]:
        """Bindings that hold the call's result or a part of it, or what another model made of that, graph and all."""
        made = {bind for bind in self.binds if self.spines[bind] is call}
        pending = list(made)
        while pending:
            more = [bind for bind in self._readers.get(pending.pop(), ()) if bind not in made and self._passes_on(bind, made)]
            made.update(more)
            pending += more
        return made

    @cached_property
    def _readers(self) -> dict[ir.Bind, list[ir.Bind]]:
        """The bindings that may be made of each binding."""
        found: dict[ir.Bind, list[ir.Bind]] = {}
        for bind in self.binds:
            self._sources[bind] = self._read_by(bind)
            for source in {source for sources in self._sources[bind][0] for source in sources}:
                found.setdefault(source, []).append(bind)
        return found

    def _passes_on(self, bind: ir.Bind, made: set[ir.Bind]) -> bool:
        found, asked = self._sources[bind]
        return bool(found) and asked(not each.isdisjoint(made) for each in found)

    def _read_by(self, bind: ir.Bind) -> tuple[list[set[ir.Bind]], Callable[[Iterable[bool]], bool]]:
        """What a binding may be made of, and whether any or all of that has to be a result for the binding to be one."""
        source = self.spines[bind]
        if isinstance(source, ir.Call) and source.path not in ("tuple", "list"):
            if torchapi.CRITERION_NAME.search(source.method) or self.facts.values(self.function).at(source.func, bind) is not Kind.MODULE:
                return [], any
            return [self._reached(path, bind) for path in _operands(source)], any
        return [self._reached(path, bind) for path in _same(bind.value)], all

    def _reached(self, path: str, event: ir.Event) -> set[ir.Bind]:
        """Bindings of a path, or of what it is a part of, that an event can see."""
        env = self.facts.evidence.reaching(self.function).at.get(event, {})
        return {bind for prefix in paths.prefixes(path) for bind in env.get(prefix, ())}

    def _over_turns(self, event: ir.Invoke, state: str, made: set[ir.Bind]) -> Carried | None:
        """The state goes over the turns of the innermost loop that back-propagates, or of one that evaluates."""
        if not event.ctx.loops or not self._reached(state, event) & made:
            return None
        for loop in reversed(event.ctx.loops):
            backward = next((other for other in self._backwards(loop) if self._goes_through(other, event, made)), None)
            if backward is not None:
                if not self._survives(event, state, made, loop) or (retains(backward) and self._sums_up(loop)):
                    return None
                return self._found(event, state, backward, loop)
            if self.facts.effect_in(loop, self.function, "backward"):
                return None
        loop = next((loop for loop in event.ctx.loops if goes_over_data(self.facts, loop, self.function)), event.ctx.loops[0])
        if self._survives(event, state, made, loop) and self._evaluates(loop):
            return Carried(event, state, None, steps=False, seen=True, loop=loop)
        return None

    def _over_calls(self, event: ir.Invoke, state: str, made: set[ir.Bind]) -> Carried | None:
        """The state is an attribute, and the method that updates it is the body of a loop elsewhere."""
        function, cls = self.function, self.function.owner
        if event.ctx.loops or cls is None or not state.startswith("self."):
            return None
        own = [bind for bind in self.binds if bind.place == state]
        if not own or not set(own) & made or not all(bind in made or _starts(bind, state, function.params) for bind in own):
            return None
        if not self.facts.lifetimes(function).per_batch() or self._touched_elsewhere(cls, torchapi.last(state)):
            return None
        backward = next((other for other in self._backwards(None) if self._goes_through(other, event, made)), None)
        return self._found(event, state, backward) if backward is not None else None

    def _touched_elsewhere(self, cls: ir.Class, name: str) -> bool:
        """Whether anything but the constructor and this method sets the attribute, or cuts its graph."""
        for function in self.facts.functions:
            if function is self.function or (function.owner is cls and function.name == "__init__"):
                continue
            for event in function.events():
                if isinstance(event, ir.Bind) and f".{name}" in event.place:
                    return True
        return any(isinstance(event, ir.Invoke) and event.call.method == "detach_" for event in self.function.events())

    def _sums_up(self, loop: ir.Loop) -> bool:
        """Whether steps come only after the loop: what each time step's retained backward adds is the sum's gradient, as it should be."""
        inside = self.facts.effect_in(loop, self.function, "step")
        around = loop.parent is not None and self.facts.effect_in(loop.parent, self.function, "step")
        return around and not inside

    def _found(self, event: ir.Invoke, state: str, backward: ir.Backward, loop: ir.Loop | None = None) -> Carried:
        around = backward.ctx.loops[-1:]
        steps = [other for other in self.function.events() if isinstance(other, ir.Step) and set(around) <= set(other.ctx.loops)]
        return Carried(event, state, backward, bool(steps), retains(backward) or self._in_sight(event.call), loop)

    def _is_state(self, event: ir.Invoke, state: str) -> bool:
        """Whether what goes in and out is a state: the model is seen to hand it back, or the name says so."""
        if STATE_NAME.search(torchapi.last(state)):
            return True
        return any(map(CELL_FACTORY.match, makers(self.facts, event.call.path or "", self.function)))

    def _backwards(self, loop: ir.Loop | None) -> Iterator[ir.Backward]:
        """Backwards of this loop's own turns, none of an inner loop."""
        for event in self.function.events():
            if isinstance(event, ir.Backward) and (event.ctx.loops[-1] if event.ctx.loops else None) is loop:
                yield event

    def _goes_through(self, backward: ir.Backward, event: ir.Invoke, made: set[ir.Bind]) -> bool:
        """Whether a backward follows in the same turn and its loss is made from the call's results."""
        feeding = self.facts.evidence.feeds_backward(self.function)
        fed = any(bind.place in feeding for bind in made) or any(node is event.call for node in ir.walk(backward.value))
        blocks = {id(other): block for block in self.function.blocks for other in block.events if other is event or other is backward}
        first, last = blocks[id(event)], blocks[id(backward)]
        follows = first.events.index(event) < first.events.index(backward) if first is last else last in set(within_turn(first))
        loop = backward.ctx.loops[-1] if backward.ctx.loops else None
        again = loop is None or any(edge.turn is loop for block in within_turn(last) for edge in block.edges)
        return fed and follows and again

    def _survives(self, event: ir.Invoke, state: str, made: set[ir.Bind], loop: ir.Loop) -> bool:
        """Whether nothing in the loop gives the state another value or cuts its graph."""
        cycle = self._cycle(event, state, made)
        for other in self.function.events():
            if loop not in other.ctx.loops:
                continue
            if isinstance(other, (ir.Bind, ir.Store)) and other not in made and any(_related(other.place, place) for place in cycle):
                if not (isinstance(other, ir.Bind) and _starts(other, state, loop.targets, loop)):
                    return False
            elif isinstance(other, ir.Invoke) and self._cuts_cycle(other, cycle, event):
                return False
        return True

    def _cycle(self, event: ir.Invoke, state: str, made: set[ir.Bind]) -> set[str]:
        """The places through which the call's result comes back to it."""
        cycle, pending = {state}, [bind for bind in self._reached(state, event) if bind in made]
        seen = set(pending)
        while pending:
            bind = pending.pop()
            cycle.add(bind.place)
            source = _spine(bind.value)
            sources = _operands(source) if isinstance(source, ir.Call) and source is not event.call else _same(bind.value)
            more = {other for path in sources for other in self._reached(path, bind) & made} - seen
            seen |= more
            pending.extend(more)
        return cycle

    def _cuts_cycle(self, other: ir.Invoke, cycle: set[str], event: ir.Invoke) -> bool:
        """`h.detach_()`, also for each part, `detach_states(hidden)`, `model.detach_hidden()`."""
        if not torchapi.DETACHES_BY_NAME.search(other.call.method):
            return False
        named = {path for expr in (other.call.func, *other.call.operands) for path in ir.names(expr)}
        targets = {bind for path in named for bind in self._reached(path, other) if bind.kind == "target"}
        named |= {path for bind in targets for path in _same(bind.value)}
        own = paths.root(event.call.path or "") in {paths.root(path) for path in named}
        return own or any(_related(path, place) for path in named for place in cycle)

    def _evaluates(self, loop: ir.Loop) -> bool:
        """Whether a loop runs with gradients on though nobody back-propagates what it makes."""
        facts, function = self.facts, self.function
        if function.grad is not ir.Grad.ON or facts.guarded_by_callers(function) or facts.effect_in(loop, function, "backward"):
            return False
        if facts.needs_gradients(function) or proves_no_grad(facts, function) or returns_graph(facts, function):
            return False
        return evaluates(facts, loop, function)


def retains(backward: ir.Backward) -> bool:
    """Whether a backward keeps its graph, as written."""
    value = backward.call.kwargs.get("retain_graph")
    return isinstance(value, ir.Const) and value.value is True


def _related(path: str, other: str) -> bool:
    return path in paths.prefixes(other) or other in paths.prefixes(path)


def _spine(expr: ir.Expr) -> ir.Expr:
    """What a value is a part of, or the same tensor in another form of."""
    while True:
        if isinstance(expr, (ir.Item, ir.Attr)):
            expr = expr.base
        elif isinstance(expr, ir.Call) and expr.receiver is not None and expr.method in torchapi.TENSOR_METHODS:
            expr = expr.receiver
        else:
            return expr


def _same(expr: ir.Expr) -> Iterator[str]:
    """Paths whose graph a value keeps as it is: names, parts, displays of them."""
    source = _spine(expr)
    if isinstance(source, ir.Name):
        yield source.path
    elif isinstance(source, ir.Seq):
        for item in source.items:
            yield from _same(item)
    elif isinstance(source, ir.Call) and source.path in ("tuple", "list") and source.args:
        yield from _same(source.args[0])


def _operands(call: ir.Call) -> list[str]:
    return [path for arg in call.operands for path in _same(arg)]


def model_of(call: ir.Call) -> str:
    """The path of the model that a call runs."""
    return (call.path or "").removesuffix(".forward")


def _cuts(event: ir.Event) -> bool:
    """Whether an event detaches something, or takes place without gradients."""
    if event.ctx.grad is not ir.Grad.ON or (isinstance(event, ir.Invoke) and torchapi.DETACHES_BY_NAME.search(event.call.method)):
        return True
    value = event.value if isinstance(event, (ir.Bind, ir.Store, ir.Return)) else event.call if isinstance(event, ir.Invoke) else None
    return value is not None and any(path.endswith(".data") for path in ir.names(value))


def _starts(bind: ir.Bind, state: str, counters: tuple[str, ...], loop: ir.Loop | None = None) -> bool:
    """Whether a binding only gives the state its first value: `if hidden is None`, `if batch == 0`."""
    for cond, arm in bind.ctx.conds_inside(loop):
        if not isinstance(cond, ir.Op) or len(cond.args) != 2 or not arm:
            continue
        left, right = cond.args
        if isinstance(left, ir.Name) and isinstance(right, ir.Const):
            absent = cond.op == "is" and right.value is None and _related(state, left.path)
            if absent or (cond.op == "==" and right.value == 0 and left.path in counters):
                return True
    return False
