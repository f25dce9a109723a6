"""What matters of one function to the gradients: the events, the conditions that decide about them, and nothing else.

Most branches of training code log, print or save. Facts about those would only multiply paths.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from flake8_torchmem.analysis import conditions, ir
from flake8_torchmem.analysis.flow import within_turn
from flake8_torchmem.analysis.gradients.callees import Touch, touches
from flake8_torchmem.analysis.gradients.owners import Frame, Owners
from flake8_torchmem.analysis.summaries import Summaries


class Plan:
    """The part of a function that an exploration walks through.

    Args:
        frame: the call.
        owners: names things.
        summaries: what callees do.
        losses: variables that the root function back-propagates.

    Attributes:
        touched: calls into the unknown that may change gradients.
        tests: conditions by edge, where they decide about an event or a jump.
        volatile: texts of conditions that may differ in the next turn without an assignment.
        names: access paths by condition text.
        overwrites: condition texts that a binding makes stale.
        known: conditions that a binding of a constant decides, with their value.
        events: by block, in order.
        remembered: texts of conditions that are worth a fact: they come again, in this turn or unchanged in the next.
        siblings: the other arm of an edge.
    """

    def __init__(self, frame: Frame, owners: Owners, summaries: Summaries, losses: frozenset[str]) -> None:
        self.frame = frame
        self.owners = owners
        self.summaries = summaries
        function = frame.function
        self.touched = dict(self._touching(losses))
        returns = (event for event in function.events() if isinstance(event, ir.Return))
        self._acting: frozenset[ir.Event] = frozenset((*self.touched, *summaries.acting(function), *returns))
        self._deciding = {id(cond) for event in self._acting for cond, _, _ in event.ctx.conds}
        self._deciding |= {id(cond) for loop in function.loops for cond in loop.skips}
        self.siblings: dict[ir.Edge, ir.Edge] = {}
        self.tests: dict[ir.Edge, conditions.Test] = {}
        self._branches()
        parts = [part for test in self.tests.values() for part in _all_parts(test)]
        self.names = {part.text: part.names for part in parts}
        self.volatile = frozenset(part.text for part in parts if part.volatile)
        counts = Counter(part.text for edge, test in self.tests.items() if edge.arm for part in _all_parts(test))
        stable = {part.text for edge, test in self.tests.items() if not self._changes(edge) for part in _all_parts(test)}
        # A plain name may come again in a callee.
        self.remembered = frozenset(text for text in self.names if text in stable or counts[text] > 1 or text.isidentifier())
        binds = (event for event in function.events() if isinstance(event, ir.Bind)) if self.names else ()
        self.overwrites = {event: stale for event in binds if (stale := self._stale(event))}
        self.known = {event: frozenset(self._decided(event, parts)) for event in self.overwrites}
        self.events = {block.index: found for block in function.blocks if (found := tuple(self._kept(block, losses)))}
        self._reach: dict[ir.Block, frozenset[ir.Event]] = {}
        self._onward: dict[ir.Block, tuple[ir.Block, ...]] = {}

    def _touching(self, losses: frozenset[str]) -> Iterator[tuple[ir.Invoke, Touch]]:
        for event in self.summaries.out_of_sight(self.frame.function):
            touch = touches(event.call, self.frame, self.owners, losses)
            if touch is not Touch.NOTHING:
                yield event, touch

    def effects(self, event: ir.Event) -> frozenset[str]:
        """Which gradient events an event is, or leads to."""
        return self.summaries.effects_of(event, self.frame.function)

    def built(self, event: ir.Bind) -> bool:
        """Whether a binding makes a new optimizer: what the old one's parameters held is of no interest."""
        bindings = self.summaries.bindings
        return isinstance(event.value, ir.Call) and event.kind == "assign" and bindings.is_optimizer_factory(event.value)

    def _branches(self) -> None:
        for block in self.frame.function.blocks:
            for edge in block.edges:
                if edge.cond is None:
                    continue
                other = next((other for other in block.edges if other is not edge), None)
                if other is not None:
                    self.siblings[edge] = other
                if id(edge.cond) in self._deciding:
                    self.tests[edge] = conditions.compile_test(edge.cond, self._rename)

    def _changes(self, edge: ir.Edge) -> bool:
        return edge.cond is not None and conditions.changes(edge.cond, edge.loops or self.frame.loops)

    def _rename(self, path: str) -> str:
        return self.owners.canonical(path, self.frame)

    def _stale(self, event: ir.Bind) -> frozenset[str]:
        place = self._rename(event.place)
        inner = (f"{place}.", f"{place}[")
        return frozenset(text for text, names in self.names.items() if any(name == place or name.startswith(inner) for name in names))

    def _decided(self, event: ir.Bind, parts: list[conditions.Test]) -> Iterator[tuple[str, bool]]:
        """`i == 0` once `i` is 0, in the first turn of a loop. What is bound once is a switch: both arms are of interest."""
        again = len(self.summaries.bindings.assigned(self.frame.function)[event.place]) > 1
        if isinstance(event.value, ir.Const) and event.kind in ("assign", "target") and again:
            for part in parts:
                if part.expr is not None:
                    value = conditions.value_of(part.expr, event.place, event.value.value)
                    if value is not conditions.UNKNOWN:
                        yield part.text, bool(value)

    def _kept(self, block: ir.Block, losses: frozenset[str]) -> Iterator[ir.Event]:
        for event in block.events:
            if isinstance(event, ir.Bind):
                if event in self.overwrites or (event.place in losses and not self.frame.depth) or self.built(event):
                    yield event
            elif event in self._acting and not isinstance(event, ir.Return):
                yield event

    def reachable(self, block: ir.Block) -> frozenset[ir.Event]:
        """Events that can still happen in this turn from the start of a block."""
        if block not in self._reach:
            events = (event for reached in within_turn(block) for event in reached.events)
            self._reach[block] = frozenset(event for event in events if event in self._acting)
        return self._reach[block]

    def onward(self, block: ir.Block) -> tuple[ir.Block, ...]:
        """The next blocks, this one included, that may change a state: branches that log, print or save are passed over."""
        if block not in self._onward:
            found, pending, seen = [], [block], {block}
            while pending:
                current = pending.pop()
                if self._changes_states(current):
                    found.append(current)
                    continue
                ahead = [edge.target for edge in current.edges if edge.target not in seen]
                seen.update(ahead)
                pending += ahead
            self._onward[block] = tuple(found)
        return self._onward[block]

    def _changes_states(self, block: ir.Block) -> bool:
        """Whether a block has events, ends the function, or has an edge with a say."""
        if block.index in self.events or block.raises or not block.edges:
            return True
        return any(edge.turn is not None or edge.handler or edge in self.tests for edge in block.edges)


def _all_parts(test: conditions.Test) -> Iterator[conditions.Test]:
    yield test
    for part in test.parts:
        yield from _all_parts(part)
