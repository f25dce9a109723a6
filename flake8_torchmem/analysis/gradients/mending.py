"""What mends gradients that are cleared, stepped and back-propagated in the wrong order: which statement goes where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.flow import following
from flake8_torchmem.analysis.gradients.clipping import CLIPS_IN_PLACE
from flake8_torchmem.analysis.gradients.observations import Observations, Wipe
from flake8_torchmem.remedies import Insert, Move, NoRemedy, Remedy, Remove, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

SPELLED = re.compile(r"^[A-Za-z_][\w.]*(?:\[(?:'[^'\[\]]*'|\d+)\])*(?:\(\))?$")
READS_GRADIENT = re.compile(r"\.grad(?:$|[.\[])")
NO_SYNC = re.compile(r"^no_\w*sync$")
ELSEWHERE = NoRemedy("the optimizer has no name where the gradients are added")
Conds = set[tuple[str, bool]]


class Mending:
    """Remedies for what was seen on the paths from one function.

    Args:
        facts: of the file.
        seen: what was seen.
    """

    def __init__(self, facts: FileFacts, seen: Observations) -> None:
        self.facts = facts
        self.seen = seen

    def missing_clear(self, backward: ir.Backward, owner: str, step: ir.Step) -> Remedy | NoRemedy:
        """A clear before the first backward of the turn; right after the step where that ends a window."""
        if step.owner == ir.BY_HAND:
            return self._clear_by_hand(step)
        if _own_loop(step) is not None or self._waits(step, backward):
            return self._clear_after(step)
        mine = {user: groups for (user, name), groups in self.seen.fed.items() if name == owner}
        user = next((user for user, groups in mine.items() if any(backward in group for group in groups)), step)
        group = {backward}.union(*(group for group in mine.get(user, ()) if backward in group))
        home = self._home(backward, user)
        end = self.carrier(user, home)
        carriers = [carrier for each in group if (carrier := self._carrier_by(each, home, end, before=True)) is not None]
        spelled = self._spelled(user, owner, home)
        if spelled is None or not carriers or end is None:
            return ELSEWHERE
        first = min(carriers, key=list(home.events()).index)
        if first is end:
            return self._clear_in_closure(group, spelled, home)
        if not _is_bound(spelled, home, first):
            return self._clear_after(step)
        return remedy(Insert(f"{spelled}.zero_grad()", first.site, beside=end.site))

    def _clear_in_closure(self, group: set[ir.Backward], owner: str, home: ir.Function) -> Remedy | NoRemedy:
        """The step evaluates its loss itself, maybe more than once: each time begins with a clear."""
        functions = {self.seen.functions(backward)[-1] for backward in group}
        closure = functions.pop()
        if functions or closure.parent is not home or paths.root(owner) in closure.locals:
            return ELSEWHERE
        first = min(group, key=list(closure.events()).index)
        site = next((loop.site for loop in first.ctx.loops if loop.site is not None), first.site)
        return remedy(Insert(f"{owner}.zero_grad()", site))

    def _clear_after(self, step: ir.Step) -> Remedy | NoRemedy:
        if not SPELLED.match(step.owner):
            return ELSEWHERE
        return self._unless_needed(step, remedy(Insert(f"{step.owner}.zero_grad()", self.end_of(step), after=True)))

    def _unless_needed(self, step: ir.Step, found: Remedy) -> Remedy | NoRemedy:
        """A clear right after a step, unless gradients are read later, or another owner's backward adds to them in between."""
        function = self.seen.functions(step)[-1]
        by_hand = {event.site.mark for event in function.events() if isinstance(event, ir.Step)}
        later = (event for event in following(function, step) if not isinstance(event, ir.Zero) and event.site.mark not in by_hand)
        if any(READS_GRADIENT.search(path) for event in later for path in ir.reads(event)):
            return NoRemedy("gradients are read after the step")
        names = {name for each, name in self.seen.steps if each is step} or {step.owner}
        loops = self.seen.context(step).loops
        for backward, owners in self.seen.claims.items():
            if not owners & names and any(loop in self.seen.context(backward).loops for loop in loops[-1:]):
                return NoRemedy("the backward of another optimizer may add to the same gradients before they are used")
        return found

    def _clear_by_hand(self, step: ir.Step) -> Remedy | NoRemedy:
        """Updates that are written out are followed by `p.grad = None`, those of one block together."""
        function = self.seen.functions(step)[-1]
        blocks: dict[tuple[object, ...], list[tuple[ir.Step, str]]] = {}
        for other in function.events():
            if isinstance(other, ir.Step) and other.owner == ir.BY_HAND:
                place = _moved_by(other, function)
                if place is None or not SPELLED.match(place):
                    return NoRemedy("the parameters that are moved by hand have no plain names")
                blocks.setdefault((other.ctx.loops, other.ctx.conds), []).append((other, place))
        inserts = []
        for steps in blocks.values():
            places = dict.fromkeys(place for _, place in steps)
            last = max((each for each, _ in steps), key=list(function.events()).index)
            inserts.append(Insert("\n".join(f"{place}.grad = None" for place in places), last.site, after=True))
        return self._unless_needed(step, remedy(*inserts))

    def clear_between(self, zero: ir.Event, step: ir.Step) -> Remedy | NoRemedy:
        """The clear goes before the first backward; after the step where that ends a window."""
        home = self._home(zero, step)
        end = self.carrier(step, home)
        clear = self._carrier_by(zero, home, end, before=True)
        if clear is None or end is None or not self._only(clear, "zero", home):
            return NoRemedy("the clear is in a function that does more than that")
        group = {backward for (user, _), found in self.seen.fed.items() if user is step for fed in found for backward in fed}
        carriers = [carrier for each in group if (carrier := self._carrier_by(each, home, end, before=True)) is not None]
        if carriers and not any(self._waits(step, each) for each in group):
            first = min(carriers, key=list(home.events()).index)
            if not _is_bound_before(clear, home, first):
                return NoRemedy("what it clears is not there before the backward")
            return remedy(Move(clear.site, first.site, after=False, beside=end.site, whole=True))
        beyond = _own_loop(step) not in clear.ctx.loops
        anchor = self.end_of(step, beyond) if end is step else end.site
        return self._unless_needed(step, remedy(Move(clear.site, anchor, beside=clear.site, whole=True)))

    def wiped(self, wipe: Wipe, steps: list[ir.Step]) -> Remedy | NoRemedy:
        """The clear goes under the condition of the step, right after it; where several steps end windows, after each."""
        around = {(ir.text(cond), not arm) for cond, arm, _ in wipe.frame.around(wipe.zero.ctx).conds}
        steps = [each for each in steps if not around & _spelled(self.seen.context(each).conds)] or steps
        home = self._home(wipe.zero, steps[0], (*wipe.frame.stack, wipe.frame.function))
        clear = self.carrier(wipe.zero, home, at=wipe.frame.ctx or wipe.zero.ctx)
        ends = [end for each in steps if (end := self._carrier_by(each, home, clear, before=False)) is not None]
        if clear is None or len(ends) < len(steps):
            return NoRemedy("the clear and the step are in functions of their own")
        alone = self._only(clear, "zero", home)
        if not alone and len(self.facts.summaries.callers().get(wipe.frame.function, ())) != 1:
            return NoRemedy("others call the function that clears")
        if all(map(self._is_cleared, steps)):
            return remedy(Remove(clear.site if alone else wipe.zero.site))
        if alone and not self._wait_apart(ends, home):
            beyond = _own_loop(steps[0]) not in clear.ctx.loops
            anchor = self.end_of(steps[0], beyond) if ends == steps[:1] else ends[0].site
            return self._unless_needed(steps[0], remedy(Move(clear.site, anchor, beside=ends[1].site if ends[1:] else None, whole=True)))
        if wipe.zero.call is None or _own_loop(wipe.zero) is not None or not all(SPELLED.match(step.owner) for step in steps):
            return NoRemedy("the clear cannot be spelled where the steps are")
        uncleared = [each for each in steps if not self._is_cleared(each)]
        inserts = [Insert(f"{each.owner}.zero_grad()", self.end_of(each), after=True) for each in uncleared]
        return self._unless_needed(steps[0], remedy(Remove(clear.site if alone else wipe.zero.site), *inserts))

    def _wait_apart(self, ends: list[ir.Event], home: ir.Function) -> bool:
        """Whether several steps wait for windows of their own: no block holds all that follows a window."""
        shared = set.intersection(*({id(cond) for cond, _, _ in end.ctx.conds} for end in ends))
        own = (cond for end in ends for cond, _, _ in end.ctx.conds if id(cond) not in shared)
        return any(self.facts.is_window(cond, home) for cond in own)

    def late_backward(self, backward: ir.Event, step: ir.Step) -> Remedy | NoRemedy:
        """The backward goes before the step and before what belongs to it; the step below the backward where the loss comes later."""
        home = self._home(backward, step)
        events = list(home.events())
        end = self.carrier(step, home)
        moved = self._carrier_by(backward, home, end, before=False)
        if moved is None or end is None or not self._only(moved, "backward", home):
            return NoRemedy("the backward is in a function that does more than that")
        own = (cond for cond, arm, _ in moved.ctx.conds if (ir.text(cond), arm) not in _conds(end))
        read = set(ir.reads(moved)) | {path for cond in own for path in ir.names(cond)}
        start = self._start_of(end, home)
        between = events[events.index(start) : events.index(moved)]
        along = list(self._late(moved, [end, *between], home))
        later = {each.site.mark for each in along}
        if any(READS_GRADIENT.search(path) for event in following(home, moved) if event.site.mark not in later for path in ir.reads(event)):
            return NoRemedy("gradients are read after the backward")
        if not _binds(between, read):
            return remedy(*(Move(each.site, start.site, after=False, beside=moved.site, whole=True) for each in along))
        if _conds(end) - _conds(moved) or end.ctx.loops != moved.ctx.loops:
            return NoRemedy("the loss is computed after the step, which waits for a condition")
        after = self._belonging(end, home)
        if any(isinstance(event, ir.Bind) and event.place in {name for each in after for name in ir.reads(each)} for event in between):
            return NoRemedy("what belongs to the step is computed between it and the backward")
        return remedy(*(Move(each.site, moved.site, beside=end.site) for each in after))

    def _late(self, moved: ir.Event, between: list[ir.Event], home: ir.Function) -> Iterator[ir.Event]:
        """The clear before the backward, that, others beside it that no owner has claimed, and the clips behind them."""
        others = {event.owner for event in home.events() if isinstance(event, ir.Step)} - {getattr(between[0], "owner", None)}
        clears = (event for event in between if self._only(event, "zero", home) and getattr(event, "owner", None) not in others)
        yield from (clear for clear in clears if clear.ctx.conds == moved.ctx.conds and clear.ctx.loops == moved.ctx.loops)
        yield moved
        events = list(home.events())
        for event in events[events.index(moved) + 1 :]:
            if "step" in self.facts.summaries.effects_of(event, home):
                return
            if self._prepares(event, home):
                yield event
            free = isinstance(event, ir.Backward) and not self.seen.claims.get(event) and event.ctx.loops == moved.ctx.loops
            if free and _conds(event) == _conds(moved) and not _binds(between[1:], set(ir.reads(event))):
                yield event

    def _belonging(self, step: ir.Event, home: ir.Function) -> list[ir.Event]:
        """Unscaling, clips, the step, and the updates of scaler and schedule: what goes with the step, in order."""
        events = list(home.events())
        first = events.index(self._start_of(step, home))
        found = [event for event in events[first : events.index(step)] if self._prepares(event, home)] + [step]
        for event in events[events.index(step) + 1 :]:
            follows = isinstance(event, ir.Invoke) and event.call.method in ("update", "step") and event.ctx.conds == step.ctx.conds
            if isinstance(event, (ir.Zero, ir.Backward)) or not isinstance(event, (ir.Invoke, ir.Step)):
                break
            if follows:
                found.append(event)
        return found

    def skipped(self, step: ir.Step, loss: ir.Event | None) -> Remedy | NoRemedy:
        """The backward leaves its branch; where each branch computes its loss, the one that drops it back-propagates too."""
        home = self.seen.function
        end = self.carrier(step, home)
        mine = {owner for each, owner in self.seen.steps if each is step}
        claimed = [backward for backward, owners in self.seen.claims.items() if owners & mine]
        carriers = [carrier for each in claimed or self._backwards(home) if (carrier := self.carrier(each, home)) is not None]
        carriers = sorted(set(carriers), key=list(home.events()).index)
        if home.file.linked or end is None or not carriers or not isinstance(loss, ir.Bind):
            return NoRemedy("the backward is in another function")
        if all(_conds(loss) <= _conds(each) for each in (*carriers, end)):
            return self._hoisted(carriers, end, home)
        if end is not step:
            return NoRemedy("the step is in another function than the loss")
        return self._propagated(carriers, step, loss, home)

    def _hoisted(self, carriers: list[ir.Event], end: ir.Event, home: ir.Function) -> Remedy | NoRemedy:
        moved, events = carriers[0], list(home.events())
        if len(carriers) != 1 or not self._only(moved, "backward", home):
            return NoRemedy("several branches back-propagate")
        apart, before = _conds(moved) - _conds(end), events[: events.index(moved)]
        branch = [event for event in before if apart & _conds(event)] if apart else before[events.index(end) :]
        if _binds([event for event in branch if not _is_with(event) and _conds(event) <= _conds(moved)], set(ir.reads(moved))):
            return NoRemedy("what is back-propagated is computed in the branch")
        if any(_enters(manager, moved) for manager in home.managers):
            return remedy(Move(moved.site, self._start_of(end, home).site, after=False, keep=True))
        first, second = sorted((moved, end), key=events.index)
        return remedy(Move(moved.site, first.site, after=False, beside=second.site))

    def _propagated(self, carriers: list[ir.Event], step: ir.Step, loss: ir.Bind, home: ir.Function) -> Remedy | NoRemedy:
        """A loss that one arm drops: the backward of the other arm goes below both, or the arm gets one of its own."""
        other = carriers[0]
        scaler = step.call.receiver if step.call is not None and step.call.args else None
        if not isinstance(other, ir.Backward) or not SPELLED.match(loss.place) or (scaler is not None and not isinstance(scaler, ir.Name)):
            return NoRemedy("it is not certain how this loss would be back-propagated")
        scaled = isinstance(other.call.receiver, ir.Call) and other.call.receiver.method == "scale"
        alike = scaled == (scaler is not None)
        outside = not _conds(step) - (_conds(loss) & _conds(other))
        if outside and alike and len(carriers) == 1 and isinstance(other.value, ir.Name) and other.value.path == loss.place:
            return remedy(Move(other.site, other.site, beside=step.site))
        if other.engine is not None and alike and SPELLED.match(other.engine):
            code = f"{other.engine}.{other.call.method}({loss.place})"
        elif isinstance(other.value, ir.Name) and any(_is_with(event, other.value.path) for event in home.events()):
            return NoRemedy("it is not certain how this loss would be back-propagated")
        else:
            code = f"{scaler.path}.scale({loss.place}).backward()" if isinstance(scaler, ir.Name) else f"{loss.place}.backward()"
        if outside:
            return remedy(Insert(code, loss.site, after=True))
        return remedy(Insert(code, self._start_of(step, home).site))

    def carrier(self, event: ir.Event, function: ir.Function, at: ir.Context | None = None) -> ir.Event | None:
        """The event of a function that this one is, or that leads to it; of several the one in a context, or else the first."""
        found = self._carriers(event, function)
        if at is None or event in found:
            return found[0] if found else None
        found = [other for other in found if set(other.ctx.loops) <= set(at.loops) and _conds(other) <= _spelled(at.conds)]
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
        name = step.owner if function is home or same_self else owner if home is self.seen.function else ""
        return name if SPELLED.match(name) else None

    def _only(self, event: ir.Event, effect: str, home: ir.Function) -> bool:
        return self.facts.summaries.effects_of(event, home) == {effect}

    def _backwards(self, home: ir.Function) -> Iterator[ir.Event]:
        return (event for event in home.events() if "backward" in self.facts.summaries.effects_of(event, home))

    def _waits(self, step: ir.Step, event: ir.Event) -> bool:
        """Whether the step ends a window of what happens at the event."""
        around, at_step = self.seen.context(event), self.seen.context(step)
        if any(loop not in at_step.loops for loop in around.loops if loop.kind != "comp" and not _targets(loop, event)):
            return True
        shared = _spelled(around.conds)
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
            if isinstance(event, (ir.Zero, ir.Backward, ir.Step)) or event.ctx.loops != step.ctx.loops or _conds(event) ^ _conds(step):
                break
            if self._prepares(event, home):
                found = event
        return found

    def _is_cleared(self, step: ir.Step) -> bool:
        """Whether a clear of the same owner follows the step where it stands."""
        events = list(self.seen.functions(step)[-1].events())
        clears = (event for event in events[events.index(step) :] if isinstance(event, ir.Zero) and event.owner == step.owner)
        return any(_conds(clear) == _conds(step) and clear.ctx.loops == step.ctx.loops for clear in clears)

    def end_of(self, step: ir.Step, beyond: bool = False) -> ir.Site:
        """Behind what something can follow a step: the update of its scaler; `beyond`: the loop over optimizers that it is in."""
        loop = _own_loop(step)
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


def _own_loop(event: ir.Event) -> ir.Loop | None:
    """The loop over optimizers that a step or clear is made in."""
    owner = getattr(event, "owner", None) or ""
    return next((loop for loop in event.ctx.loops if paths.root(owner) in loop.targets), None)


def _targets(loop: ir.Loop, event: ir.Event) -> bool:
    return _own_loop(event) is loop


def _conds(event: ir.Event) -> Conds:
    return _spelled(event.ctx.conds)


def _spelled(conds: tuple[tuple[ir.Expr, bool, int], ...]) -> Conds:
    return {(ir.text(cond), arm) for cond, arm, _ in conds}


def _binds(events: list[ir.Event], read: set[str]) -> bool:
    """Whether something that is read gets its value here."""
    places = {event.place for event in events if isinstance(event, ir.Bind)}
    return any(prefix in places for path in read for prefix in paths.prefixes(path))


def _is_with(event: ir.Event, place: str | None = None) -> bool:
    return isinstance(event, ir.Bind) and event.kind == "with" and place in (None, event.place)


def _enters(manager: ir.Expr, event: ir.Event) -> bool:
    """Whether an event is right inside of `with model.no_sync():`, which is not for the micro-batch that steps."""
    if not isinstance(manager, ir.Call) or not NO_SYNC.match(manager.method):
        return False
    return manager.site.mark.number == event.site.mark.number - 1


def _is_bound(path: str, function: ir.Function, event: ir.Event) -> bool:
    """Whether a name has its value before an event."""
    root = paths.root(path)
    if root not in function.locals or root in function.params:
        return True
    binds = (other for other in function.events() if isinstance(other, ir.Bind) and other.place == root)
    return any(bind.site.mark.number < event.site.mark.number for bind in binds)


def _is_bound_before(clear: ir.Event, function: ir.Function, event: ir.Event) -> bool:
    """Whether what a clear reads has its value before an event; the targets of loops around it come along."""
    own = {target for loop in clear.ctx.loops if loop not in event.ctx.loops for target in loop.targets}
    return all(_is_bound(path, function, event) for path in ir.reads(clear) if paths.root(path) not in own)


def _moved_by(step: ir.Step, function: ir.Function) -> str | None:
    """The parameter that an update by hand moves."""
    if step.call is not None:
        receiver = step.call.receiver
        place = receiver.path if isinstance(receiver, ir.Name) else None
    else:
        place = next((event.place for event in function.events() if isinstance(event, ir.Bind) and event.site is step.site), None)
        if place is None:
            marks = (e.place for e in function.events() if isinstance(e, ir.Bind) and e.site.mark is step.site.mark)
            place = next(marks, None)
    return place.removesuffix(".data") if place else None
