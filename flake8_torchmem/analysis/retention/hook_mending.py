"""How hooks let go: what they keep goes in without its graph, and a hook of one turn is removed when the turn ends."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.hooks import Kept
from flake8_torchmem.analysis.retention.mending import DETACH, Mending, stored
from flake8_torchmem.analysis.values import Kind, Values
from flake8_torchmem.model import Safety
from flake8_torchmem.remedies import Action, Insert, NoRemedy, Remedy, Rewrite, Role, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

HANDLES = ("handle", "hook_handle", "registered_hook")


def kept(facts: FileFacts, found: Kept) -> Remedy | NoRemedy:
    """The remedy for what a hook stores; gradients have no graph, they can only leave the device."""
    hook = found.hook
    values = Values(hook.function, facts.evidence, tuple((param, Kind.GRAPH) for param in hook.seen))
    tensors = frozenset(hook.seen) if hook.event.call.method == "register_hook" else frozenset()
    place = stored(found.event)
    if place is None:
        return NoRemedy("what the hook stores is not in sight")
    whole = place.value.path if isinstance(place.value, ir.Name) else ""
    if whole in hook.seen and whole not in tensors and (hook.gradients or (whole == hook.params[1] and len(hook.params) > 2)):
        return NoRemedy("the hook gets a tuple here, and which of its tensors are wanted is not in sight")
    place = place._replace(container=found.place, home=found.home)
    mending = Mending(facts, hook.function, values, tensors)
    if not hook.gradients:
        return mending.detached(place, DETACH)
    mended = mending.detached(place, "{}.cpu()")
    return replace(mended, safety=Safety.UNSAFE) if isinstance(mended, Remedy) else mended


def registered(function: ir.Function, event: ir.Invoke, loop: ir.Loop | None) -> Remedy | NoRemedy:
    """The remedy for a hook that every turn registers: it is removed at the end of the turn."""
    inside = [other for other in function.events() if loop in other.ctx.loops]
    last = max(inside, key=lambda other: other.site.mark.number, default=None)
    if last is None or not all(_straight(each, loop) for each in (event, last)):
        return NoRemedy("where the hook's turn ends is for people to say")
    actions: list[Action] = []
    name = next((other.place for other in inside if isinstance(other, ir.Bind) and other.value is event.call), "")
    if not name:
        used = {path for other in function.events() for path in ir.reads(other)} | function.assigned
        name = next(each for each in (*HANDLES, "hook_of_this_turn") if each not in used)
        actions.append(Rewrite(event.site, Role.WHOLE, f"{name} = {{}}"))
    return remedy(*actions, Insert(f"{name}.remove()", last.site, after=True), safety=Safety.UNSAFE)


def _straight(event: ir.Event, loop: ir.Loop | None) -> bool:
    """Whether an event happens exactly once in each turn of a loop."""
    return loop is not None and event.ctx.loops[-1:] == (loop,) and not (loop.skips or event.ctx.conds_inside(loop) or event.ctx.handler)
