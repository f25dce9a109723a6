"""Reaching definitions: which bindings of a place can be seen at an event."""

from __future__ import annotations

from collections.abc import Mapping

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.flow import solve

Env = Mapping[str, frozenset[ir.Bind]]


class Reaching:
    """Definitions that reach each event of one function.

    Args:
        function: analysed once, on construction.
    """

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self.at: dict[ir.Event, Env] = {}
        nothing: Env = {}
        self.entry = solve(function.blocks[0], nothing, self._after, _join)
        for block in function.blocks:
            env: Env = self.entry.get(block.index, nothing)
            for event in block.events:
                self.at[event] = env
                env = _bound(env, event)

    def rebound(self, loop: ir.Loop) -> dict[ir.Event, frozenset[str]]:
        """For each event that a turn of the loop leads to: places that have surely been bound since the turn began."""
        start = next((edge.target for block in self.function.blocks for edge in block.edges if edge.turn is loop), None)
        if start is None:
            return {}
        empty: frozenset[str] = frozenset()
        before = solve(start, empty, lambda block, bound: bound | _places(block.events), lambda a, b: (a & b, not a <= b))
        found: dict[ir.Event, frozenset[str]] = {}
        for block in self.function.blocks:
            for index, event in enumerate(block.events):
                if block.index in before and loop in event.ctx.loops:
                    found[event] = before[block.index] | _places(block.events[:index])
        return found

    def _after(self, block: ir.Block, env: Env) -> Env:
        for event in block.events:
            env = _bound(env, event)
        return env


def _bound(env: Env, event: ir.Event) -> Env:
    """The environment after an event: a binding hides what hung on the old value."""
    if not isinstance(event, ir.Bind):
        return env
    place = event.place
    inner = (f"{place}.", f"{place}[")
    after = {path: binds for path, binds in env.items() if not path.startswith(inner)}
    after[place] = frozenset((event,))
    return after


def _places(events: list[ir.Event]) -> frozenset[str]:
    return frozenset(event.place for event in events if isinstance(event, ir.Bind))


def _join(first: Env, second: Env) -> tuple[Env, bool]:
    merged = dict(first)
    for path, binds in second.items():
        merged[path] = merged.get(path, frozenset()) | binds
    return merged, any(merged[path] != first.get(path) for path in second)
