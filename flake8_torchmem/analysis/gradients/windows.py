"""Accumulation windows: micro-batches are back-propagated turn by turn, then one step uses the sum of their gradients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.evidence import Evidence
from flake8_torchmem.analysis.flow import within_turn
from flake8_torchmem.analysis.gradients.observations import Observations
from flake8_torchmem.analysis.gradients.periods import Period, Periods, increment
from flake8_torchmem.analysis.summaries import Summaries
from flake8_torchmem.lazy import Words

ENDLESS = Words(r"cycle|infinite|forever|endless|repeat|^count$|stream|islice", re.I)
CHUNKS = frozenset({"chunk", "split", "tensor_split"})


class Fires(Enum):
    """After which micro-batch of a window the step comes: the last, the first, the last but one, or after all but one."""

    LAST = "last"
    FIRST = "first"
    EARLY = "early"
    INVERTED = "inverted"
    UNKNOWN = "unknown"


@dataclass(frozen=True, eq=False)
class Window:
    """One step, and the backwards of several turns that it waits for.

    Attributes:
        function: where the step stands.
        step: ends the window.
        owner: of the step.
        backwards: whose gradients the step uses, here or in callees.
        carriers: the events of the function that are these backwards or lead to them.
        loop: whose turns are the micro-batches; None when the loop lies elsewhere.
        period: the test that the step waits for; None when it stands after a loop over micro-batches.
        site: of that test.
        size: micro-batches per window, None when it is not visible.
        fires: after which micro-batch the step comes.
        inside: blocks that only a step at the end of a window leads through.
        fresh: each run of the loop begins a new window.
        clears: what may empty the owner's gradients.
        alone: no other step uses what this one leaves.
        test: the condition that the period was read from.
        first: the counter's value at the first micro-batch, where that can be seen.
    """

    function: ir.Function
    step: ir.Step
    owner: str
    backwards: tuple[ir.Backward, ...]
    carriers: tuple[ir.Event, ...]
    loop: ir.Loop | None
    period: Period | None
    site: ir.Site
    size: ir.Expr | None
    fires: Fires
    inside: frozenset[ir.Block] = frozenset()
    fresh: bool = True
    clears: tuple[ir.Event, ...] = ()
    alone: bool = True
    test: ir.Expr | None = None
    first: int | None = None

    @property
    def wiped(self) -> bool:
        """Whether a clear outside of the step's branch runs under the very test that the step waits for."""
        outside = [clear for clear in self.clears if clear.ctx.conds and not self.with_step(clear)]
        tests = {ir.text(cond) for cond, _ in self.step.ctx.conds_inside(self.loop)}
        return any(ir.text(cond) in tests for clear in outside for cond, _ in clear.ctx.conds_inside(self.loop))

    def with_step(self, clear: ir.Event) -> bool:
        """Whether an event happens only where the window ends."""
        return any(clear in block.events for block in self.inside)


class Windows:
    """Finds the windows of one program.

    Args:
        periods: reads conditions.
        evidence: knows which bindings reach an event.
        summaries: what callees do.
    """

    def __init__(self, periods: Periods, evidence: Evidence, summaries: Summaries) -> None:
        self.periods = periods
        self.evidence = evidence
        self.summaries = summaries

    def seen(self, seen: Observations) -> Iterator[Window]:
        """The windows among the steps of one exploration's own function."""
        blocks = {event: block for block in seen.function.blocks for event in block.events}
        for step, owner in seen.steps_in_order:
            if step not in blocks:
                continue
            backwards = tuple(backward for backward, owners in seen.claims.items() if owner in owners)
            carriers = tuple(self._carriers(backwards, seen.function))
            if not carriers or any(event.ctx.accumulate or event.ctx.handler for event in (step, *carriers)):
                continue
            window = self._tested(seen.function, step, owner, backwards, carriers, blocks) or self._nested(
                seen.function, step, owner, backwards, carriers
            )
            if window is not None:
                clears = tuple(self._clears(window, seen))
                others = [other for other in blocks if isinstance(other, ir.Step) and other.owner == step.owner and other is not step]
                others = [other for other in others if blocks[other] not in window.inside]
                alone = not others
                if self._sums(window, clears, blocks) and not any(_otherwise(other, window) for other in others):
                    yield replace(window, clears=clears, alone=alone)

    def _carriers(self, backwards: tuple[ir.Backward, ...], function: ir.Function) -> Iterator[ir.Event]:
        for event in function.events():
            if event in backwards or (isinstance(event, ir.Invoke) and "backward" in self.summaries.effects_of(event, function)):
                yield event

    def _tested(
        self,
        function: ir.Function,
        step: ir.Step,
        owner: str,
        backwards: tuple[ir.Backward, ...],
        carriers: tuple[ir.Event, ...],
        blocks: dict[ir.Event, ir.Block],
    ) -> Window | None:
        """A step under a test that is true once per window, while every turn back-propagates."""
        loop = step.ctx.loops[-1] if step.ctx.loops else None
        if any(loop not in carrier.ctx.loops for carrier in carriers if loop is not None):
            return None
        for cond, period, site, inside in self._waits_for(step, carriers, blocks, function):
            first, fresh = self._first(period, step, function, loop)
            one_deep = all(carrier.ctx.loops[-1:] == (() if loop is None else (loop,)) for carrier in carriers)
            size = period.size if one_deep else None
            place = period.read.site if period.read else site or step.site
            fires = self._fires(period, first, function)
            return Window(
                function, step, owner, backwards, carriers, loop, period, place, size, fires, inside, fresh, test=cond, first=first
            )
        return None

    def _waits_for(
        self, step: ir.Step, carriers: tuple[ir.Event, ...], blocks: dict[ir.Event, ir.Block], function: ir.Function
    ) -> Iterator[tuple[ir.Expr, Period, ir.Site | None, frozenset[ir.Block]]]:
        """Periodic tests between the backwards and the step, each with where it stands and what it alone leads to."""
        turn = list(within_turn(blocks[carriers[-1]]))
        if blocks[step] not in turn:
            return
        for edge, others in ((edge, [other for other in block.edges if other is not edge]) for block in turn for edge in block.edges):
            period = self.periods.read(edge.cond, function, edge.arm) if edge.cond is not None else None
            if edge.cond is not None and period is not None:
                passing = {block for other in others for block in within_turn(other.target)}
                inside = frozenset(within_turn(edge.target)) - passing
                if blocks[step] in inside:
                    yield edge.cond, period, edge.site, inside
        shared = {id(cond) for carrier in carriers for cond, _, _ in carrier.ctx.conds}
        for cond, arm in step.ctx.conds_inside(step.ctx.loops[-1] if step.ctx.loops else None):
            period = self.periods.read(cond, function, arm) if id(cond) not in shared else None
            if period is not None:
                yield cond, period, None, frozenset()

    def _nested(
        self, function: ir.Function, step: ir.Step, owner: str, backwards: tuple[ir.Backward, ...], carriers: tuple[ir.Event, ...]
    ) -> Window | None:
        """A step after a loop over micro-batches: `for _ in range(accumulate)`, or over the chunks of a batch."""
        loops = {carrier.ctx.loops[-1:] for carrier in carriers}
        loop = carriers[0].ctx.loops[-1] if carriers[0].ctx.loops else None
        around = step.ctx.loops[-1] if step.ctx.loops else None
        if len(loops) != 1 or loop is None or loop in step.ctx.loops or loop.parent is not around or loop.kind != "for":
            return None
        size = self._parts(loop.iterable, function) if loop.iterable is not None else None
        if size is None or loop.site is None:
            return None
        return Window(function, step, owner, backwards, carriers, loop, None, loop.site, size, Fires.LAST)

    def _parts(self, iterable: ir.Expr, function: ir.Function) -> ir.Expr | None:
        """How many micro-batches a loop goes over, where it says that they are some."""
        for node in ir.walk(iterable):
            if not isinstance(node, ir.Call):
                continue
            if node.method in CHUNKS and node.args:
                return node.args[-1] if node.method == "chunk" else ir.Opaque()
            if node.method in ("range", "trange") and len(node.args) == 1 and self.periods.ends_window(node.args[0], function):
                return node.args[0]
        return None

    def _sums(self, window: Window, clears: tuple[ir.Event, ...], blocks: dict[ir.Event, ir.Block]) -> bool:
        """Whether gradients are cleared once per window and no more often."""
        inner = window.loop
        if not clears:
            return False
        if window.period is None:
            return not any(inner in clear.ctx.loops for clear in clears)
        within = [clear for clear in clears if inner is None or inner in clear.ctx.loops]
        return bool(within) and all(blocks[clear] in window.inside or self._waits(clear, window) for clear in within)

    def _waits(self, clear: ir.Event, window: Window) -> bool:
        """Whether a clear stands under a test of its own for a window."""
        return any(self.periods.ends_window(cond, window.function) for cond, _ in clear.ctx.conds_inside(window.loop))

    def _clears(self, window: Window, seen: Observations) -> Iterator[ir.Event]:
        """Clears that may be the owner's: not those of another optimizer that steps as well."""
        others = {owner for _, owner in seen.steps} - {window.owner}
        for event in window.function.events():
            if isinstance(event, ir.Zero):
                name = self.periods.bindings.canonical(event.owner, window.function) if event.owner else None
                if name not in others or name is None:
                    yield event
            elif isinstance(event, ir.Invoke) and "zero" in self.summaries.effects_of(event, window.function):
                yield event

    def _fires(self, period: Period, first: int | None, function: ir.Function) -> Fires:
        """After which micro-batch the test comes true, from what the counter is at the first one."""
        if period.residue is None:
            return Fires.UNKNOWN
        size = self.periods.number(period.size, function)
        dividend, residue = self.periods.shifted(period.counter, function), self.periods.shifted(period.residue, function)
        if not period.holds and size != 2:
            return Fires.INVERTED if residue is not None else Fires.UNKNOWN
        if first is None or dividend is None or residue is None:
            return Fires.UNKNOWN
        base, amount = residue
        if base is not None and (period.size is None or ir.text(base) != ir.text(period.size)):
            return Fires.UNKNOWN
        turn = amount - dividend[1] - first + (0 if period.holds else 1)
        if size is not None and size >= 1:
            turn = (turn + 2) % int(size) - 2 if size > 2 else (turn + 1) % int(size) - 1
        return {-1: Fires.LAST, 0: Fires.FIRST, -2: Fires.EARLY}.get(turn, Fires.UNKNOWN)

    def _first(self, period: Period, step: ir.Step, function: ir.Function, loop: ir.Loop | None) -> tuple[int | None, bool]:
        """The counter's value at the first micro-batch, and whether it begins there anew with each run of the loop."""
        shifted = self.periods.shifted(period.counter, function)
        if shifted is None or not isinstance(shifted[0], ir.Name):
            return None, False
        path = shifted[0].path
        if path in function.params:
            return (0, False) if function.name == "training_step" and function.params[2:3] == (path,) else (None, False)
        if loop is None:
            return self._first_call(path, period.read or step, function), False
        at = self.evidence.reaching(function).at
        binds = at.get(period.read or step, {}).get(path, frozenset())
        inside = [bind for bind in binds if loop in bind.ctx.loops]
        before, more = [bind for bind in binds if loop not in bind.ctx.loops], 0
        if not before:
            if len(inside) != 1 or not _by_one(inside[0]) or inside[0].ctx.conds_inside(loop):
                return None, False
            before = [bind for bind in at[inside[0]].get(path, ()) if loop not in bind.ctx.loops]
            more = 1
        starts = {self.periods.number(bind.value, function) for bind in before if not increment(bind)}
        start = starts.pop() if len(starts) == 1 else None
        fresh = all(bind.ctx.loops == step.ctx.loops[: step.ctx.loops.index(loop)] for bind in before)
        return (None if start is None else int(start) + more), fresh

    def _first_call(self, path: str, event: ir.Event, function: ir.Function) -> int | None:
        """The first value of a counter on self that a method counts up, once per call."""
        binds = self.periods.binds(path, function)
        before = [bind for bind in binds if bind in self.evidence.reaching(function).at.get(event, {}).get(path, ())]
        counts = [bind for bind in binds if increment(bind)]
        starts = {self.periods.number(bind.value, function) for bind in binds if not increment(bind)}
        if len(counts) != 1 or len(starts) != 1 or not _by_one(counts[0]) or counts[0].ctx.conds or None in starts:
            return None
        if counts[0] not in self.periods.bindings.assigned(function).get(path, ()):
            return None  # counted by another method, before or after this one
        return int(starts.pop() or 0) + (1 if before else 0)


def _otherwise(step: ir.Event, window: Window) -> bool:
    """Whether this step is taken in every turn that passes the window's own by."""
    inside = window.loop is None or window.loop in step.ctx.loops
    return inside and all(cond is window.test for cond, _ in step.ctx.conds_inside(window.loop))


def _by_one(bind: ir.Bind) -> bool:
    """Whether a binding counts up by one."""
    found = increment(bind)
    if found is None and bind.kind == "target" and isinstance(bind.value, ir.Op):
        return True
    return found is not None and found[0] == "+" and isinstance(found[1], ir.Const) and found[1].value == 1


def spelled(size: ir.Expr | None) -> str:
    """The number of micro-batches as the code calls it."""
    return f"`{size.path}`" if isinstance(size, ir.Name) else str(size.value) if isinstance(size, ir.Const) else "n"


def tail_dropped(window: Window, summaries: Summaries) -> ir.Event | None:
    """The first clear that a last, partial window meets; None when there is no such window, or something sees to it."""
    loop, period = window.loop, window.period
    if loop is None or period is None or period.tails or not window.fresh or not window.alone or window.fires is not Fires.LAST:
        return None
    counter, size = set(ir.names(period.counter)), set(ir.names(period.size)) if period.size is not None else set()
    leaves = any(counter & set(ir.names(cond)) for cond in loop.skips if cond is not window.test)
    if not _finite(loop) or size & set(ir.names(loop.iterable or ir.Opaque())) or _steps_elsewhere(window, summaries):
        return None
    return None if leaves else min(window.clears, key=window.with_step)


def _steps_elsewhere(window: Window, summaries: Summaries) -> bool:
    """Whether a caller, or something called after the loop, may step on what is left."""
    function, loop = window.function, window.loop
    callers = [caller for caller, _ in summaries.callers.get(function, ())]
    if any(isinstance(event, ir.Step) and event.owner for caller in callers for event in caller.events()):
        return True
    after = (event for event in function.events() if isinstance(event, ir.Invoke) and loop not in event.ctx.loops)
    optimizer = window.step.owner
    return any(
        "step" in summaries.effects_of(event, function) or any(optimizer in ir.names(arg) for arg in event.call.operands) for event in after
    )


def _finite(loop: ir.Loop) -> bool:
    """Whether a loop goes over a data set, and over it once, as far as its text says."""
    if loop.kind != "for" or loop.iterable is None:
        return False
    calls = {node.method for node in ir.walk(loop.iterable) if isinstance(node, ir.Call)}
    names = [torchapi.last(path) for path in ir.names(loop.iterable)]
    if calls & {"range", "trange"} and "len" not in calls:
        return False
    return any(map(torchapi.DATA_NAME.search, names)) and not any(map(ENDLESS.search, names))
