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
        self.entry = solve(function.blocks[0], {}, self._after, _join)
        for block in function.blocks:
            env = self.entry.get(block.index, {})
            for event in block.events:
                self.at[event] = env
                env = _bound(env, event)

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


def _join(first: Env, second: Env) -> tuple[Env, bool]:
    merged = dict(first)
    for path, binds in second.items():
        merged[path] = merged.get(path, frozenset()) | binds
    return merged, any(merged[path] != first.get(path) for path in second)
