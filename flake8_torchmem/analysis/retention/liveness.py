"""Whether a variable is read again after an event."""

from __future__ import annotations

from collections.abc import Iterator

from flake8_torchmem.analysis import ir, paths


def read_after(function: ir.Function, event: ir.Event, name: str) -> bool:
    """Whether a plain name may be read after an event before it gets a new value, by the function or by what is nested in it."""
    if any(name in _roots(manager) for manager in function.managers) or _read_inside(function, name):
        return True
    pending = [(block, block.events.index(event) + 1) for block in function.blocks if event in block.events]
    seen: set[int] = set()
    while pending:
        block, start = pending.pop()
        outcome = _first_use(block.events[start:], name)
        if outcome is not None:
            if outcome:
                return True
            continue
        for edge in block.edges:
            if edge.cond is not None and name in _roots(edge.cond):
                return True
            if edge.target.index not in seen:
                seen.add(edge.target.index)
                pending.append((edge.target, 0))
    return False


def _first_use(events: list[ir.Event], name: str) -> bool | None:
    """True when the first use among events is a read, False when it is a new value, None without one."""
    for event in events:
        if any(name in _roots(value) for value in _values(event)):
            return True
        if isinstance(event, ir.Bind) and event.place == name:
            return False
        if isinstance(event, (ir.Bind, ir.Store, ir.Clear)) and paths.root(event.place) == name:
            return True
    return None


def _values(event: ir.Event) -> Iterator[ir.Expr]:
    """The expressions that an event evaluates."""
    if isinstance(event, (ir.Bind, ir.Store, ir.Return, ir.Backward)):
        yield event.value
    if isinstance(event, ir.Store) and event.key is not None:
        yield event.key
    call = event.call if isinstance(event, (ir.Invoke, ir.Backward, ir.Step, ir.Zero)) else None
    if call is not None:
        yield call


def _roots(expr: ir.Expr) -> set[str]:
    return {paths.root(path) for path in ir.names(expr)}


def _read_inside(function: ir.Function, name: str) -> bool:
    """Whether a nested function reads the name."""
    pending = list(function.nested.values())
    for inner in pending:
        pending.extend(inner.nested.values())
        if any(name in _roots(value) for event in inner.events() for value in _values(event)):
            return True
    return False
