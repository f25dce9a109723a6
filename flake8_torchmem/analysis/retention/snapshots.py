"""Snapshots of weights that are none: state dicts without a copy, followed until what they share is trained and they are read.

`Module.state_dict()` hands out the parameters' own memory. So a name that holds one is stale once an optimizer steps or
other weights are loaded into the module; `copy()`, `dict()` and a comprehension that passes the tensors on change nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.evidence import carriers
from flake8_torchmem.analysis.flow import solve
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

BEST = Words(r"(?:^|_)best(?:$|_|[A-Z])", re.I)
MEANT_TO_STAY = Words(r"best|init|orig|start|before|old|prev|backup|saved|snapshot|clean|pretrained", re.I)
TRAINS_BY_NAME = Words(r"(?:^|_)(?:train|fit|finetune|fine_tune|optimi[sz]e|learn)(?:$|_)(?!.*(?:eval|valid|test|mode))", re.I)
SHALLOW = frozenset({"dict", "OrderedDict", "collections.OrderedDict", "copy.copy"})
WRAPPERS = (".module", "._orig_mod")
UNWRAPS = Words(r"unwrap|de_?parallel|^getattr$")
MOVES = frozenset({"cpu", "to", "cuda", "half", "float", "double", "bfloat16"})
READS_PARTS = frozenset({"items", "values", "get"})


class Held(NamedTuple):
    """A place that shares memory with a module.

    Attributes:
        origin: the assignment or append that took it.
        module: the module's path.
        place: what holds it, an alias of the first place included.
        changed: what has trained or overwritten the module since, if anything.
    """

    origin: ir.Bind | ir.Store
    module: str
    place: str
    changed: ir.Event | None = None


State = frozenset[Held]


class Stale(NamedTuple):
    """A snapshot that is read after it has changed; `restores`: by loading it back into its own module, which does nothing."""

    held: Held
    read: ir.Event
    restores: bool

    @property
    def goes_on(self) -> bool:
        """Whether training goes on from the weights once they are loaded back: in a loop, or after others were swapped in."""
        change = self.held.changed
        if not self.restores or change is None:
            return False
        swapped = isinstance(change, ir.Invoke) and change.call.method == "load_state_dict"
        return swapped or bool(self.read.ctx.loops)


class Snapshots:
    """The state dicts that one function holds.

    Args:
        facts: of the file.
        function: where to look.
    """

    def __init__(self, facts: FileFacts, function: ir.Function) -> None:
        self.facts = facts
        self.function = function
        self.bindings = facts.bindings
        self.taken = {event: tuple(self._taken(event)) for event in function.events() if isinstance(event, (ir.Bind, ir.Store))}
        self.at: dict[ir.Event, State] = {}
        self.exit: set[Held] = set()
        if any(self.taken.values()) and not any(event.call.method == "state_dict_type" for event in facts.calls(function)):
            self._solve()

    def _solve(self) -> None:
        nothing: State = frozenset()
        before = solve(self.function.blocks[0], nothing, self._after, lambda a, b: (a | b, not b <= a))
        for block in self.function.blocks:
            state = before.get(block.index, frozenset())
            for event in block.events:
                self.at[event] = state
                state = self._step(event, state)
            if not block.edges or any(isinstance(event, ir.Return) for event in block.events):
                self.exit |= state

    def _after(self, block: ir.Block, state: State) -> State:
        for event in block.events:
            state = self._step(event, state)
        return state

    def _step(self, event: ir.Event, state: State) -> State:
        """What is held after an event."""
        after = {found for held in state for found in self._survives(event, held, state)}
        if isinstance(event, ir.Bind):
            kept = self._shares(event.value)
            after |= {held._replace(place=event.place + inner) for held in state for path, inner in kept if held.place == path}
        if isinstance(event, (ir.Bind, ir.Store)):
            after |= set(self.taken[event])
        return frozenset(after)

    def _survives(self, event: ir.Event, held: Held, state: State) -> Iterator[Held]:
        """The place after an event: as it was, changed, or gone."""
        if isinstance(event, ir.Bind):
            gone = event.place in paths.prefixes(held.place) or held.place in paths.prefixes(event.place)
            renewed = held.changed is None and event.place in paths.prefixes(held.module)
            if gone or renewed:
                return
        if isinstance(event, ir.Clear) and event.place == held.place:
            return
        replaces = isinstance(event, ir.Store) and event.kind == "setitem" and event.place in paths.prefixes(held.place)
        if replaces and not isinstance(held.origin, ir.Store):
            return
        if isinstance(event, ir.Invoke):
            receiver = event.call.receiver
            path = receiver.path if isinstance(receiver, ir.Name) else ""
            if path == held.place and event.call.method in ("update", "pop", "clear"):
                return
            callee = self.bindings.callee(event.call, self.function)
            if callee is not None and path == "self" and held.module in callee.assigned and held.changed is None:
                return
            if event.call.method in MOVES and held.changed is None and self._module(receiver) == held.module and self._leaves_device():
                return
        if held.changed is None and self.changes(event, held, state):
            held = held._replace(changed=event)
        yield held

    def _leaves_device(self) -> bool:
        """Whether the function moves modules to the host and back: that makes new memory, so what was taken before stays."""
        return any(event.call.method == "cpu" and not event.call.args for event in self.facts.calls(self.function))

    def _taken(self, event: ir.Bind | ir.Store) -> Iterator[Held]:
        """What an assignment or append takes of a module without a copy."""
        value = event.value
        if isinstance(event, ir.Store):
            if event.kind in ("append", "setitem"):
                yield from (Held(event, module, event.place) for module, _ in self._live(value))
            return
        if event.kind != "assign":
            return
        yield from (Held(event, module, event.place + inner) for module, inner in self._live(value))
        module = self._module(value) if isinstance(value, ir.Name) and BEST.search(torchapi.last(event.place)) else None
        if module is not None and event.ctx.conds and event.ctx.loops:
            yield Held(event, module, event.place)

    def _live(self, value: ir.Expr) -> Iterator[tuple[str, str]]:
        """Modules whose memory a value shares, each with the key under which it holds it."""
        if isinstance(value, ir.Call) and value.method == "state_dict":
            module = self._module(value.receiver)
            if module is not None:
                yield module, ""
        for part, inner in _parts(value):
            yield from ((module, inner + deeper) for module, deeper in self._live(part))

    def _shares(self, value: ir.Expr) -> tuple[tuple[str, str], ...]:
        """Paths whose memory a value shares, each with the key under which it holds it."""
        if isinstance(value, ir.Name):
            return ((value.path, ""),)
        return tuple((path, inner + deeper) for part, inner in _parts(value) for path, deeper in self._shares(part))

    def _module(self, expr: ir.Expr | None) -> str | None:
        """The path of a module, wrappers taken off."""
        if isinstance(expr, ir.Call) and UNWRAPS.search(expr.method) and expr.args:
            expr = expr.args[0]
        if not isinstance(expr, ir.Name):
            return None
        path = expr.path
        for suffix in WRAPPERS:
            path = path.removesuffix(suffix)
        return self.bindings.canonical(path, self.function) if self.facts.evidence.is_module(path, self.function) else None

    def changes(self, event: ir.Event, held: Held, state: State) -> bool:
        """Whether an event trains the module, or loads other weights into it."""
        if isinstance(event, ir.Step):
            return self._steps(event.owner, held.module)
        if not isinstance(event, ir.Invoke):
            return False
        call = event.call
        if call.method == "load_state_dict":
            own = {other.place for other in state if other.origin is held.origin}
            given = {path for arg in call.args for path in ir.names(arg)}
            replaced = "assign" in call.kwargs or any(overlap(path, place) for path in given for place in own)
            return self._module(call.receiver) == held.module and not replaced
        callee = self.bindings.callee(call, self.function)
        if callee is not None:
            trains = {"step", "backward"} <= self.facts.summaries.effects(callee)
            return trains and (self._in_hand(call, held.module) or self._outside(call, callee, held.module))
        if isinstance(held.origin.value, ir.Name):  # no state dict says that the model is one of torch's, and is not built anew
            return bool(TRAINS_BY_NAME.search(call.method)) and held.module in {arg.path for arg in call.args if isinstance(arg, ir.Name)}
        return bool(TRAINS_BY_NAME.search(call.method)) and self._in_hand(call, held.module) and call.path != f"{held.module}.train"

    def _steps(self, owner: str, module: str) -> bool:
        """Whether an optimizer moves a module's parameters: not if it was built from others in sight."""
        if not self.bindings.is_optimizer(owner, self.function) and owner != module:
            return False
        linked = self.bindings.links.get(self.bindings.canonical(owner, self.function)) or set()
        names = {torchapi.last(path.removesuffix(".module")) for path in linked}
        related = any(overlap(path, module) for path in linked) or torchapi.last(module) in names
        return not linked or related

    def _in_hand(self, call: ir.Call, module: str) -> bool:
        """Whether a callee gets the module: as an argument, or by the object that it is a method of."""
        given = [arg.path for arg in call.operands if isinstance(arg, ir.Name)]
        if isinstance(call.receiver, ir.Name):
            given.append(call.receiver.path)
            built = self.bindings.binds(call.receiver.path, self.function)
            given += [path for bind in built if isinstance(bind.value, ir.Call) for arg in bind.value.operands for path in ir.names(arg)]
        return any(self.bindings.canonical(path, self.function) in paths.prefixes(module) for path in given)

    def _outside(self, call: ir.Call, callee: ir.Function, module: str) -> bool:
        """Whether a plain callee finds the module in an outer scope."""
        root = paths.root(module)
        shared = self.function.name == "<module>" or callee.parent is self.function or root not in self.function.locals
        return call.receiver is None and shared and root != "self" and root not in callee.locals

    def stale(self) -> Iterator[Stale]:
        """Reads of snapshots that have changed, in order."""
        for event, state in self.at.items():
            for held in sorted((held for held in state if held.changed is not None), key=self._change):
                if _last_turn_only(held.origin) or self._same_branch(held.origin, event):
                    continue
                restores = self._restores(event, held)
                kept = _kept_over_training(held) and _is_read(event, held)
                meant = MEANT_TO_STAY.search(torchapi.last(held.place)) and saves(event, held)
                if (restores or kept or meant) and not self._sometimes_copied(event, held):
                    yield Stale(held, event, restores)

    @cached_property
    def _numbers(self) -> dict[ir.Event | None, int]:
        return {event: index for index, event in enumerate(self.function.events())}

    def _change(self, held: Held) -> tuple[int, str, int]:
        """In which order to tell of what has changed: for one snapshot, by what changes it soonest after it was taken."""
        taken, changed = self._numbers[held.origin], self._numbers[held.changed]
        return taken, held.place, (changed - taken) % len(self._numbers)

    def _restores(self, event: ir.Event, held: Held) -> bool:
        """`model.load_state_dict(best)`, back into the module that it was taken from."""
        if not isinstance(event, ir.Invoke) or event.call.method != "load_state_dict" or not event.call.args:
            return False
        given = event.call.args[0]
        whole = isinstance(given, ir.Name) and held.place in paths.prefixes(given.path)
        mixed = isinstance(given, ir.Comp) and held.place in ir.names(given.element) and MEANT_TO_STAY.search(torchapi.last(held.place))
        return (whole or bool(mixed)) and self._module(event.call.receiver) == held.module

    def _same_branch(self, origin: ir.Event, read: ir.Event) -> bool:
        """Whether a later read stands under the conditions of the origin again: then this turn has renewed it."""
        if not origin.ctx.loops or origin.ctx.loops != read.ctx.loops or isinstance(origin, ir.Store):
            return False
        loop = origin.ctx.loops[-1]
        taken = {(ir.text(cond), arm) for cond, arm in origin.ctx.conds_inside(loop)}
        return bool(taken) and taken <= {(ir.text(cond), arm) for cond, arm in read.ctx.conds_inside(loop)}

    def _sometimes_copied(self, event: ir.Event, held: Held) -> bool:
        """Whether the place may hold a copy as well: then the alias is what it starts from."""
        if isinstance(held.origin, ir.Store):
            return False
        reaching = self.facts.evidence.reaching(self.function).at[event].get(held.place, frozenset())
        others = [bind for bind in reaching if bind is not held.origin and not self.taken.get(bind)]
        return any(not isinstance(bind.value, (ir.Const, ir.Name)) for bind in others)


def _parts(value: ir.Expr) -> Iterator[tuple[ir.Expr, str]]:
    """What a value is a shallow copy or a display of, with the key under which it holds each part."""
    if isinstance(value, ir.Seq):
        for index, item in enumerate(value.items):
            key = value.keys[index] if index < len(value.keys) else None
            yield item, f"[{key.value!r}]" if isinstance(key, ir.Const) else ""
    elif isinstance(value, ir.Op) and value.op in ("if", "or"):
        yield from ((arg, "") for arg in (value.args[1:] if value.op == "if" else value.args))
    elif isinstance(value, ir.Call) and value.method == "copy" and value.receiver is not None and not value.args:
        yield value.receiver, ""
    elif isinstance(value, ir.Call) and value.path in SHALLOW and value.args:
        yield value.args[0], ""
    elif isinstance(value, ir.Comp) and value.kind == "DictComp" and passes_on(value):
        iterable = value.loop.iterable
        if isinstance(iterable, ir.Call) and iterable.method == "items" and iterable.receiver is not None:
            yield iterable.receiver, ""


def passes_on(comp: ir.Comp) -> bool:
    """Whether a comprehension keeps the tensors as they are: `v`, `v.data`, `v.detach()`."""
    element = comp.element
    if isinstance(element, ir.Call) and element.method == "detach" and element.receiver is not None:
        element = element.receiver
    return isinstance(element, ir.Name) and "#" in element.path and "." not in element.path.removesuffix(".data")


def overlap(path: str, other: str) -> bool:
    """Whether one of two places is, or lies in, the other."""
    return path in paths.prefixes(other) or other in paths.prefixes(path)


def _kept_over_training(held: Held) -> bool:
    """Whether it was taken under a condition, or stored among others, in a loop that trains: it is to outlive turns."""
    shared = [loop for loop in held.origin.ctx.loops if held.changed is not None and loop in held.changed.ctx.loops]
    return bool(shared) and (isinstance(held.origin, ir.Store) or bool(held.origin.ctx.conds_inside(shared[0])))


def _last_turn_only(origin: ir.Event) -> bool:
    """Whether it is taken in one certain turn: `if epoch == epochs - 1`, not `if phase == "val"` of every epoch."""
    outer = {target for loop in origin.ctx.loops[:1] for target in loop.targets}
    targets = {target for loop in origin.ctx.loops for target in loop.targets}
    return any(
        arm and isinstance(node, ir.Op) and node.op == "==" and {path for arg in node.args for path in ir.names(arg)}
        & (outer if any(isinstance(arg, ir.Const) and isinstance(arg.value, str) for arg in node.args) else targets)
        and not any(isinstance(inner, ir.Op) and inner.op == "%" for inner in ir.walk(node))
        for cond, arm, _ in origin.ctx.conds
        for node in ir.walk(cond)
    )  # fmt: skip


def _is_read(event: ir.Event, held: Held) -> bool:
    """Whether an event makes use of the weights: returns, passes on, stores or goes through them."""
    if isinstance(event, ir.Return):
        return any(overlap(path, held.place) for path in carriers(event.value))
    if isinstance(event, (ir.Bind, ir.Store)):
        if event.kind == "target" and isinstance(held.origin, ir.Store):
            return held.place in carriers(event.value)
        place = event.place
        outlives = place.startswith("self.") or isinstance(event, ir.Store)
        return outlives and event is not held.origin and any(held.place == path for path in carriers(event.value))
    if not isinstance(event, ir.Invoke) or event.call.method in torchapi.NUMBER_FUNCTIONS:
        return False
    call = event.call
    receiver = call.receiver
    if isinstance(receiver, ir.Name) and receiver.path == held.place and call.method in READS_PARTS:
        return True
    return any(path != "self" and overlap(path, held.place) for arg in call.operands for path in carriers(arg))


def saves(event: ir.Event, held: Held) -> bool:
    """Whether an event writes the weights to a file or returns them."""
    if isinstance(event, ir.Return):
        return any(path == held.place for path in carriers(event.value))
    named = isinstance(event, ir.Invoke) and re.search(r"save|dump", event.call.method)
    return bool(named) and isinstance(event, ir.Invoke) and any(
        overlap(path, held.place) for arg in event.call.operands for path in carriers(arg)
    )  # fmt: skip
