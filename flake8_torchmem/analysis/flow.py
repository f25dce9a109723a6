"""One way through the control-flow graph, with states kept apart (path facts) or joined (values)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from heapq import heappop, heappush
from typing import TypeVar

from flake8_torchmem.analysis.ir import Block, Edge, Event, Function

S = TypeVar("S", bound=Hashable)
J = TypeVar("J")


class TooManyPathsError(Exception):
    """The state space is larger than the budget: nothing is known."""


class Budget:
    """Counts visited states over nested explorations.

    Args:
        limit: visits before `TooManyPathsError` is raised.
        whole: a budget that this one is a part of.
    """

    def __init__(self, limit: int, whole: Budget | None = None) -> None:
        self.left = limit
        self.whole = whole

    def spend(self) -> None:
        """Count one visit."""
        if self.whole is not None:
            self.whole.spend()
        self.left -= 1
        if self.left < 0:
            raise TooManyPathsError


def explore(
    entry: Block,
    states: Iterable[S],
    transfer: Callable[[Block, S], Iterable[S]],
    follow: Callable[[Edge, S], S | None],
    onward: Callable[[Block], Iterable[Block]],
    budget: Budget,
) -> set[S]:
    """Every state that can reach the exit, path by path.

    Args:
        entry: first block.
        states: states at its start.
        transfer: states after a block's events.
        follow: the state beyond an edge, None when the edge is infeasible.
        onward: the next blocks, a given one included, that may change a state or lead somewhere else by it.
        budget: limit on visits.

    Raises:
        TooManyPathsError: the budget is spent.
    """
    work = deque((block, state) for state in states for block in onward(entry))
    seen = set(work)
    exits: set[S] = set()
    while work:
        block, state = work.popleft()
        budget.spend()
        for after in transfer(block, state):
            if not block.edges:
                exits.add(after)
            for edge in block.edges:
                beyond = follow(edge, after)
                reached = [(target, beyond) for target in onward(edge.target)] if beyond is not None else []
                for visit in (visit for visit in reached if visit not in seen):
                    seen.add(visit)
                    work.append(visit)
    return exits


def within_turn(start: Block) -> Iterator[Block]:
    """The blocks that can follow a block, itself first, before any loop starts over."""
    pending, seen = [start], {start}
    while pending:
        block = pending.pop()
        yield block
        for edge in block.edges:
            if edge.turn is None and edge.target not in seen:
                seen.add(edge.target)
                pending.append(edge.target)


def following(function: Function, event: Event) -> Iterator[Event]:
    """The events that can follow an event, before any loop starts over."""
    start = next(block for block in function.blocks if event in block.events)
    yield from start.events[start.events.index(event) + 1 :]
    yield from (other for block in within_turn(start) if block is not start for other in block.events)


def solve(entry: Block, initial: J, transfer: Callable[[Block, J], J], join: Callable[[J, J], tuple[J, bool]]) -> dict[int, J]:
    """The joined state at the start of every reachable block, to a fixed point.

    Args:
        entry: first block.
        initial: state at its start.
        transfer: state after a block.
        join: the joined state, and whether it differs from the first argument.
    """
    before: dict[int, J] = {entry.index: initial}
    # Blocks are numbered as they stand in the source: what comes first is settled first.
    work, blocks = [entry.index], {entry.index: entry}
    waiting = {entry.index}
    while work:
        index = heappop(work)
        waiting.discard(index)
        block = blocks[index]
        after = transfer(block, before[block.index])
        for edge in block.edges:
            index = edge.target.index
            if index not in before:
                before[index], changed = after, True
            else:
                before[index], changed = join(before[index], after)
            if changed and index not in waiting:
                waiting.add(index)
                blocks[index] = edge.target
                heappush(work, index)
    return before
