"""Functions that are the body of a loop which lies elsewhere, and what else happens in the same turn of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import frameworks, ir

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAX_CALLS = 3


class Turn(NamedTuple):
    """One turn of a loop around a function. `events`: what the same turn does elsewhere; `trains`: a backward among it, or after it."""

    events: tuple[ir.Event, ...]
    trains: bool


def turn_around(facts: FileFacts, function: ir.Function, calls: int) -> Turn | None:
    """The turn that a function is called in, None where no loop over batches is in sight or known.

    Args:
        facts: of its file.
        function: the function.
        calls: how many calls may lie between the loop and the function.
    """
    if frameworks.calls_per_batch(facts.bindings, function):
        others = (other for other in facts.bindings.relatives(function) if frameworks.calls_per_batch(facts.bindings, other))
        trains = any(True for _ in frameworks.returned_losses(facts.bindings, function)) or _named_for_training(facts, function)
        return Turn(tuple(event for other in others for event in other.events()), trains)
    if backpropagates(function) and function.owner is not None and function.name != "__init__":
        return Turn((), trains=True)
    return _called(facts, function, calls) if calls else None


def _named_for_training(facts: FileFacts, function: ir.Function) -> bool:
    return function.name not in torchapi.EVALUATION_STEPS or "backward" in facts.summaries.effects(function)


def backpropagates(function: ir.Function) -> bool:
    """Whether a call of the function is one backward's worth."""
    return any(isinstance(event, ir.Backward) and not event.ctx.loops for event in function.events())


def _called(facts: FileFacts, function: ir.Function, calls: int) -> Turn | None:
    """The turn of a caller's loop that trains, or of the turn that the caller itself is in."""
    for caller, call in facts.summaries.callers.get(function, ()):
        if caller is function:
            continue
        loop = call.ctx.loops[-1] if call.ctx.loops else None
        if loop is not None and facts.trains_each_turn(loop, caller):
            return Turn(tuple(_events(facts, caller, loop)), trains=True)
        around = facts.turn(caller, calls - 1) if loop is None else None
        if around is not None:
            return Turn((*around.events, *_events(facts, caller, None)), around.trains)
    return None


def _events(facts: FileFacts, function: ir.Function, loop: ir.Loop | None) -> Iterator[ir.Event]:
    """What a turn of a loop, or a call of the function, does: itself and in what it calls."""
    for event in function.events():
        if loop is None or loop in event.ctx.loops:
            yield event
            callee = facts.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) else None
            if callee is not None:
                yield from callee.events()
