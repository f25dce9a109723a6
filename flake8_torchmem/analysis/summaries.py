"""What a function does to its surroundings, found once per function and through calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.evidence import direct
from flake8_torchmem.analysis.memo import memoized

MAX_CALLS = 4
EFFECTS = (ir.Backward, ir.Step, ir.Zero)
ACTS = (*EFFECTS, ir.Invoke)
NOTHING: frozenset[str] = frozenset()


class Summaries:
    """Answers about the functions of one program.

    Args:
        bindings: resolves their calls.
    """

    def __init__(self, bindings: Bindings) -> None:
        self.bindings = bindings

    def effects(self, function: ir.Function) -> frozenset[str]:
        """Which of backward, step, zero happen in a function or in what it calls, recursion included."""
        return self._effects.get(function, frozenset())

    @cached_property
    def _effects(self) -> dict[ir.Function, frozenset[str]]:
        return self.spread(
            lambda function: frozenset(type(event).__name__.lower() for event in function.events() if isinstance(event, EFFECTS))
        )

    def spread(self, own: Callable[[ir.Function], frozenset[str]]) -> dict[ir.Function, frozenset[str]]:
        """What all functions do, by what each does itself: the least fixed point where callers do what their callees do."""
        found = {function: own(function) for function in self.bindings.program.all_functions()}
        pending = [function for function in found if found[function]]
        while pending:
            function = pending.pop()
            for caller, _ in self.callers.get(function, ()):
                if found[function] - found[caller]:
                    found[caller] |= found[function]
                    pending.append(caller)
        return found

    @cached_property
    def training_loops(self) -> frozenset[ir.Loop]:
        """Loops that back-propagate, themselves or in what they call."""
        found: set[ir.Loop] = set()
        for function in self.bindings.program.all_functions():
            for event, effects in self.acting(function).items():
                # What is written as a step may be a method in sight that does it all.
                callee = self.bindings.callee(event.call, function) if isinstance(event, ir.Step) and event.call else None
                if "backward" in (effects | self.effects(callee) if callee is not None else effects):
                    found.update(event.ctx.loops)
        return frozenset(found)

    @memoized
    def reached(self, function: ir.Function) -> frozenset[ir.Function]:
        """The function and all in-file functions that it calls, and those call."""
        pending, seen = [function], {function}
        while pending:
            callees = self.callees(pending.pop()) - seen
            seen |= callees
            pending.extend(callees)
        return frozenset(seen)

    @memoized
    def callees(self, function: ir.Function) -> frozenset[ir.Function]:
        """The in-file functions that a function calls."""
        calls = (event.call for event in function.events() if isinstance(event, (ir.Invoke, ir.Step, ir.Backward)))
        found = (self.bindings.callee(call, function) for call in calls if call is not None)
        return frozenset(callee for callee in found if callee is not None)

    @memoized
    def out_of_sight(self, function: ir.Function) -> tuple[ir.Invoke, ...]:
        """The calls of a function into the unknown that may change gradients, depending on who calls the function."""
        from flake8_torchmem.analysis.gradients.callees import may_touch

        unseen = (event for event in function.calls() if self.bindings.callee(event.call, function) is None)
        return tuple(event for event in unseen if may_touch(event.call, function, self.bindings))

    def effects_of(self, event: ir.Event, function: ir.Function) -> frozenset[str]:
        """Which of backward, step, zero an event is, or leads to through an in-file call."""
        return self.acting(function).get(event, NOTHING)

    @memoized
    def acting(self, function: ir.Function) -> dict[ir.Event, frozenset[str]]:
        """The events that are, or lead to, a backward, step or zero, with which of them; few are, and all rules ask."""
        found = {event: self._effects_of(event, function) for event in function.events() if isinstance(event, ACTS)}
        return {event: effects for event, effects in found.items() if effects}

    def _effects_of(self, event: ir.Event, function: ir.Function) -> frozenset[str]:
        if isinstance(event, EFFECTS):
            return frozenset({type(event).__name__.lower()})
        callee = self.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) else None
        return self.effects(callee) if callee is not None else NOTHING

    @memoized
    def steps_once(self, function: ir.Function, calls: int = MAX_CALLS) -> bool:
        """Whether a function steps, itself or in a callee, and never in a loop."""
        stepping = [event for event, effects in self.acting(function).items() if "step" in effects]
        return bool(stepping) and all(not event.ctx.loops and self._once(event, function, calls) for event in stepping)

    def _once(self, event: ir.Event, function: ir.Function, calls: int) -> bool:
        callee = self.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) else None
        return callee is None or (calls > 0 and self.steps_once(callee, calls - 1))

    @memoized
    def losses(self, function: ir.Function, calls: int = MAX_CALLS) -> frozenset[str]:
        """Variables that hold what is back-propagated, here or in a callee; `scaled` and the `loss` that it was bound to alike."""
        found = {path for event in function.events() for path in self._lost(event, function, calls)}
        for event in function.events():
            if isinstance(event, ir.Bind) and event.place in found and isinstance(event.value, ir.Name):
                found.add(event.value.path)
        return frozenset(prefix for path in found for prefix in paths.prefixes(path)) - {"self"}

    def back_propagates(self, function: ir.Function) -> bool:
        """Whether a function back-propagates, itself or by a callee that it hands the loss."""
        return bool(self.losses(function)) or any(isinstance(event, ir.Backward) for event in function.events())

    def _lost(self, event: ir.Event, function: ir.Function, calls: int) -> Iterator[str]:
        """What an event back-propagates, or hands to a callee that does."""
        if isinstance(event, ir.Backward):
            yield from direct(event.value)
        callee = self.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) and calls else None
        if callee is not None and "backward" in self.effects(callee):
            inner = self.losses(callee, calls - 1)
            yield from (path for param, arg in callee.arguments(event.call) if param in inner for path in direct(arg))  # type: ignore[attr-defined]

    @cached_property
    def callers(self) -> dict[ir.Function, list[tuple[ir.Function, ir.Call]]]:
        """Who calls a function, and where, as far as can be seen; a call on `self` may be of what derived classes make of the method."""
        found = {function: list(calls) for function, calls in self.bindings.program.outside.items()}
        for function in self.bindings.program.all_functions():
            for event in function.events():
                call = event.call if isinstance(event, (ir.Invoke, ir.Step, ir.Backward)) else None
                if call is None:
                    continue
                callee = self.bindings.callee(call, function)
                for each in dict.fromkeys((*((callee,) if callee is not None else ()), *self.bindings.overriding(call, function))):
                    found.setdefault(each, []).append((function, call))
        return found
