"""Reaching definitions: which bindings of a place can be seen at an event."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.flow import solve

Env = Mapping[str, frozenset[ir.Bind]]


class Reaching:
    """Definitions that reach each event of one function.

    Args:
        function: analysed once, on construction.
    """

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        # What hangs on a place: a binding of the place hides it.
        self.inner: dict[str, set[str]] = {}
        for event in function.events():
            if isinstance(event, ir.Bind):
                for prefix in paths.prefixes(event.place):
                    self.inner.setdefault(prefix, set()).add(event.place)
        self.at: dict[ir.Event, Env] = {}
        nothing: Env = {}
        self.entry = solve(function.blocks[0], nothing, self._after, _join)
        for block in function.blocks:
            env: Env = self.entry.get(block.index, nothing)
            for event in block.events:
                self.at[event] = env
                if isinstance(event, ir.Bind):
                    env = self._bound(dict(env), event)

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
        binds = [event for event in block.events if isinstance(event, ir.Bind)]
        after = dict(env) if binds else env
        for event in binds:
            after = self._bound(after, event)  # type: ignore[arg-type]
        return after

    def _bound(self, env: dict[str, frozenset[ir.Bind]], event: ir.Bind) -> dict[str, frozenset[ir.Bind]]:
        """The environment after a binding: it hides what hung on the old value. The given one is changed."""
        for path in self.inner[event.place]:
            env.pop(path, None)
        env[event.place] = frozenset((event,))
        return env


def in_order(binds: Iterable[ir.Bind]) -> list[ir.Bind]:
    """Bindings in the order of the program: sets have none, and where values are made of one another the first one asked decides."""
    found = list(binds)
    if len(found) > 1:
        found.sort(key=lambda bind: bind.site.mark.number)
    return found


def _places(events: list[ir.Event]) -> frozenset[str]:
    return frozenset(event.place for event in events if isinstance(event, ir.Bind))


def _join(first: Env, second: Env) -> tuple[Env, bool]:
    """Most joins bring nothing new, and cost no copy."""
    if first is second:
        return first, False
    nothing: frozenset[ir.Bind] = frozenset()
    fresh = {path: binds for path, binds in second.items() if (known := first.get(path, nothing)) is not binds and not binds <= known}
    return ({**first, **{path: first.get(path, nothing) | binds for path, binds in fresh.items()}}, True) if fresh else (first, False)
