"""What a function does to its surroundings, found once per function and through calls."""

from __future__ import annotations

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.memo import memoized


class Summaries:
    """Answers about the functions of one program.

    Args:
        bindings: resolves their calls.
    """

    def __init__(self, bindings: Bindings) -> None:
        self.bindings = bindings

    @memoized
    def effects(self, function: ir.Function) -> frozenset[str]:
        """Which of backward, step, zero happen in a function or in what it calls, recursion included."""
        found: set[str] = set()
        pending, seen = [function], {function}
        while pending:
            current = pending.pop()
            for event in current.events():
                if isinstance(event, (ir.Backward, ir.Step, ir.Zero)):
                    found.add(type(event).__name__.lower())
                call = event.call if isinstance(event, (ir.Invoke, ir.Step, ir.Backward)) else None
                callee = self.bindings.callee(call, current) if call else None
                if callee is not None and callee not in seen:
                    seen.add(callee)
                    pending.append(callee)
        return frozenset(found)

    def effects_of(self, event: ir.Event, function: ir.Function) -> frozenset[str]:
        """Which of backward, step, zero an event is, or leads to through an in-file call."""
        if isinstance(event, (ir.Backward, ir.Step, ir.Zero)):
            return frozenset({type(event).__name__.lower()})
        callee = self.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) else None
        return self.effects(callee) if callee is not None else frozenset()

    @memoized
    def callers(self) -> dict[ir.Function, list[tuple[ir.Function, ir.Call]]]:
        """Who calls a function, and where, as far as the file shows."""
        found: dict[ir.Function, list[tuple[ir.Function, ir.Call]]] = {}
        for function in self.bindings.program.all_functions():
            for event in function.events():
                call = event.call if isinstance(event, (ir.Invoke, ir.Step, ir.Backward)) else None
                callee = self.bindings.callee(call, function) if call else None
                if callee is not None and call is not None:
                    found.setdefault(callee, []).append((function, call))
        return found
