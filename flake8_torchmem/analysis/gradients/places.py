"""Where gradient events stand: which statement of a function leads to them, what readies a step, and where it is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.conditions import Spelled, spelled
from flake8_torchmem.analysis.gradients.clipping import CLIPS_IN_PLACE
from flake8_torchmem.analysis.gradients.observations import Observations
from flake8_torchmem.lazy import Words, regex

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

SPELLED = regex(r"^[A-Za-z_][\w.]*(?:\[(?:'[^'\[\]]*'|\d+)\])*(?:\(\))?$")
READS_GRADIENT = Words(r"\.grad(?:$|[.\[])")


class Places:
    """Places on the paths from one function.

    Args:
        facts: of the file.
        seen: what was seen on the paths.
    """

    def __init__(self, facts: FileFacts, seen: Observations) -> None:
        self.facts = facts
        self.seen = seen

    def carrier(self, event: ir.Event, function: ir.Function, at: ir.Context | None = None) -> ir.Event | None:
        """The event of a function that this one is, or that leads to it; of several the one in a context, or else the first."""
        found = self._carriers(event, function)
        if at is None or event in found:
            return found[0] if found else None
        found = [other for other in found if set(other.ctx.loops) <= set(at.loops) and conds_of(other) <= spelled(at.conds)]
        return max(found, key=lambda other: len(other.ctx.conds) + len(other.ctx.loops), default=None)

    def _carrier_by(self, event: ir.Event, function: ir.Function, near: ir.Event | None, before: bool) -> ir.Event | None:
        """The carrier that is next to another event: before it, or behind it."""
        events, found = list(function.events()), self._carriers(event, function)
        if near is None or len(found) < 2:
            return found[0] if found else None
        place = events.index(near)
        beside = [other for other in found if (events.index(other) < place) == before]
        return min(beside or found, key=lambda other: (len(set(near.ctx.loops) - set(other.ctx.loops)), abs(events.index(other) - place)))

    def _carriers(self, event: ir.Event, function: ir.Function) -> list[ir.Event]:
        events = list(function.events())
        return [event] if event in events else [other for other in events if self._leads_to(other, event, function)]

    def _leads_to(self, other: ir.Event, event: ir.Event, function: ir.Function) -> bool:
        call = getattr(other, "call", None)
        reached = {home for callee in self._called(call, function) for home in self.facts.summaries.reached(callee)} if call else set()
        return any(event in set(home.events()) for home in reached)

    def _called(self, call: ir.Call, function: ir.Function) -> Iterator[ir.Function]:
        """What a call runs: its callee, and the closure that a step is given."""
        named = (arg.path for arg in call.operands if isinstance(arg, ir.Name) and call.method == "step")
        for callee in (self.facts.bindings.callee(call, function), *(self.facts.bindings.function_at(path, function) for path in named)):
            if callee is not None:
                yield callee

    def _home(self, one: ir.Event, other: ir.Event, stack: tuple[ir.Function, ...] = ()) -> ir.Function:
        """The innermost function that leads to both."""
        home = self.seen.function
        for first, second in zip(stack or self.seen.functions(one), self.seen.functions(other), strict=False):
            if first is not second:
                break
            home = first
        return home

    def _spelled(self, step: ir.Step, owner: str, home: ir.Function) -> str | None:
        """The step's owner as a function calls it that leads to the step."""
        function = self.seen.functions(step)[-1]
        same_self = step.owner.startswith("self.") and home.owner is not None and home.owner is function.owner
        scopes = [home]
        while scopes[-1].parent is not None and scopes[-1] is not self.seen.function:
            scopes.append(scopes[-1].parent)
        hidden = any(paths.root(owner) in scope.locals for scope in scopes[:-1])
        seen_here = scopes[-1] is self.seen.function and not hidden
        name = step.owner if function is home or same_self else owner if seen_here else ""
        return name if SPELLED.match(name) and self._clears(name, home) else None

    def _clears(self, owner: str, home: ir.Function) -> bool:
        """Whether an owner can be asked to clear: a class in sight that steps for an optimizer may have no such method."""
        cls = self.facts.bindings.class_of(owner, home)
        if cls is None or self.facts.bindings.method(cls, "zero_grad") is not None:
            return True
        known = self.facts.program.classes
        return any(base not in known and base != "object" for each in self.facts.bindings.lineage(cls) for base in each.bases)

    def _only(self, event: ir.Event, effect: str, home: ir.Function) -> bool:
        return self.facts.summaries.effects_of(event, home) == {effect}

    def _waits(self, step: ir.Step, event: ir.Event) -> bool:
        """Whether the step ends a window of what happens at the event."""
        around, at_step = self.seen.context(event), self.seen.context(step)
        if any(loop not in at_step.loops for loop in around.loops if loop.kind != "comp" and not _targets(loop, event)):
            return True
        shared = spelled(around.conds)
        own = [cond for cond, arm in self.seen.deciding(step) if (ir.text(cond), arm) not in shared]
        return any(self.facts.is_window(cond, function) for cond in own for function in self.seen.functions(step))

    def _prepares(self, event: ir.Event, home: ir.Function) -> bool:
        """Whether an event readies gradients for the step: unscales or clips them."""
        if not isinstance(event, ir.Invoke):
            return False
        callee = self.facts.bindings.callee(event.call, home)
        if callee is not None:
            effects = self.facts.clip_effects[callee]
            return bool(effects) and effects <= {"clip", "unscale"}
        return (
            "unscale" in event.call.method
            or event.call.method.startswith("clip_grad")
            or bool(CLIPS_IN_PLACE.search(event.call.path or ""))
        )

    def _start_of(self, step: ir.Event, home: ir.Function) -> ir.Event:
        """The step, or the first of what readies its gradients."""
        found, events = step, list(home.events())
        for event in reversed(events[: events.index(step)]):
            if isinstance(event, (ir.Zero, ir.Backward, ir.Step)) or event.ctx.loops != step.ctx.loops or conds_of(event) ^ conds_of(step):
                break
            if self._prepares(event, home):
                found = event
        return found

    def end_of(self, step: ir.Step, beyond: bool = False) -> ir.Site:
        """Behind what something can follow a step: the update of its scaler; `beyond`: the loop over optimizers that it is in."""
        loop = own_loop(step)
        if beyond and loop is not None and loop.site is not None:
            return loop.site
        scaler = step.call.receiver if step.call is not None and step.call.args else None
        events = list(self.seen.functions(step)[-1].events())
        for event in events[events.index(step) + 1 :] if isinstance(scaler, ir.Name) else ():
            if not isinstance(event, ir.Invoke) or event.ctx.conds != step.ctx.conds or event.ctx.loops != step.ctx.loops:
                break
            if event.call.path == f"{scaler.path}.update":  # type: ignore[union-attr]
                return event.site
        return step.site


def own_loop(event: ir.Event) -> ir.Loop | None:
    """The loop over optimizers that a step or clear is made in."""
    owner = getattr(event, "owner", None) or ""
    return next((loop for loop in event.ctx.loops if paths.root(owner) in loop.targets), None)


def _targets(loop: ir.Loop, event: ir.Event) -> bool:
    return own_loop(event) is loop


def conds_of(event: ir.Event) -> Spelled:
    """The conditions that an event stands under, as they are spelled."""
    return spelled(event.ctx.conds)


def binds(events: list[ir.Event], read: set[str]) -> bool:
    """Whether something that is read gets its value here."""
    places = {event.place for event in events if isinstance(event, ir.Bind)}
    return any(prefix in places for path in read for prefix in paths.prefixes(path))


def is_with(event: ir.Event, place: str | None = None) -> bool:
    """Whether a `with` gives a name its value, or this name."""
    return isinstance(event, ir.Bind) and event.kind == "with" and place in (None, event.place)
