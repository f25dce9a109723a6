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
        groups = [(user, group) for (user, name), found in self.seen.fed.items() if name == owner for group in found if backward in group]
        user, group = groups[0] if groups else (step, frozenset({backward}))
        home = self._home(backward, user)
        carriers = [carrier for each in group if (carrier := self.carrier(each, home)) is not None]
        end = self.carrier(user, home)
        spelled = self._spelled(user, owner, home)
        if spelled is None or not carriers or end is None:
            return ELSEWHERE
        first = min(carriers, key=list(home.events()).index)
        if first is end:
            return self._clear_in_closure(group, spelled, home)
        if not _is_bound(spelled, home, first):
            return self._clear_after(step)
        return remedy(Insert(f"{spelled}.zero_grad()", first.site, beside=end.site))

    def _clear_in_closure(self, group: frozenset[ir.Backward], owner: str, home: ir.Function) -> Remedy | NoRemedy:
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
        if any(".grad" in path for event in later for path in ir.reads(event)):
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
        clear, end = self.carrier(zero, home), self.carrier(step, home)
        if clear is None or end is None or not self._only(clear, "zero", home):
            return NoRemedy("the clear is in a function that does more than that")
        group = {backward for (user, _), found in self.seen.fed.items() if user is step for fed in found for backward in fed}
        carriers = [carrier for each in group if (carrier := self.carrier(each, home)) is not None]
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
        steps = [each for each in steps if not around & {(ir.text(cond), arm) for cond, arm, _ in self.seen.context(each).conds}] or steps
        uncleared = [each for each in steps if not self._is_cleared(each)]
        if not uncleared:
            return remedy(Remove(wipe.zero.site))
        step = steps[0]
        home = self._home(wipe.zero, step, (*wipe.frame.stack, wipe.frame.function))
        clear, end = self.carrier(wipe.zero, home), self.carrier(step, home)
        if clear is None or end is None:
            return NoRemedy("the clear and the step are in functions of their own")
        if len(steps) == 1 and self._only(clear, "zero", home):
            beyond = _own_loop(step) not in clear.ctx.loops
            found = remedy(Move(clear.site, self.end_of(step, beyond) if end is step else end.site, whole=True))
            return self._unless_needed(step, found)
        function = wipe.frame.function
        callers = self.facts.summaries.callers().get(function, ())
        if function is not home and len(callers) != 1:
            return NoRemedy("others call the function that clears")
        if wipe.zero.call is None or _own_loop(wipe.zero) is not None or not all(SPELLED.match(step.owner) for step in steps):
            return NoRemedy("the clear cannot be spelled where the steps are")
        inserts = [Insert(f"{each.owner}.zero_grad()", self.end_of(each), after=True) for each in uncleared]
        return self._unless_needed(step, remedy(Remove(wipe.zero.site), *inserts))

    def late_backward(self, backward: ir.Event, step: ir.Step) -> Remedy | NoRemedy:
        """The backward goes before the step and before what belongs to it; the step below the backward where the loss comes later."""
        home = self._home(backward, step)
        events = list(home.events())
        moved, end = self.carrier(backward, home), self.carrier(step, home)
        if moved is None or end is None or not self._only(moved, "backward", home):
            return NoRemedy("the backward is in a function that does more than that")
        own = (cond for cond, arm, _ in moved.ctx.conds if (ir.text(cond), arm) not in _conds(end))
        read = set(ir.reads(moved)) | {path for cond in own for path in ir.names(cond)}
        start = self._start_of(end, home)
        between = events[events.index(start) : events.index(moved)]
        later = {each.site.mark for each in self._late(moved, between, home)}
        if any(".grad" in path for event in following(home, moved) if event.site.mark not in later for path in ir.reads(event)):
            return NoRemedy("gradients are read after the backward")
        if not _binds(between, read):
            return remedy(
                *(Move(each.site, start.site, after=False, beside=moved.site, whole=True) for each in self._late(moved, between, home))
            )
        if _conds(end) - _conds(moved) or end.ctx.loops != moved.ctx.loops:
            return NoRemedy("the loss is computed after the step, which waits for a condition")
        after = self._belonging(end, home)
        if any(isinstance(event, ir.Bind) and event.place in {name for each in after for name in ir.reads(each)} for event in between):
            return NoRemedy("what belongs to the step is computed between it and the backward")
        return remedy(*(Move(each.site, moved.site, beside=end.site) for each in after))

    def _late(self, moved: ir.Event, between: list[ir.Event], home: ir.Function) -> Iterator[ir.Event]:
        """The backward, those beside it that no other owner has claimed, and the clips behind them."""
        yield moved
        events = list(home.events())
        for event in events[events.index(moved) + 1 :]:
            if "step" in self.facts.summaries.effects_of(event, home):
                return
            if self._prepares(event, home):
                yield event
            free = isinstance(event, ir.Backward) and not self.seen.claims.get(event) and event.ctx.loops == moved.ctx.loops
            if free and _conds(event) == _conds(moved) and not _binds(between, set(ir.reads(event))):
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
        carriers = list(dict.fromkeys(carriers))
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

    def carrier(self, event: ir.Event, function: ir.Function) -> ir.Event | None:
        """The event of a function that this one is, or that leads to it."""
        homes = {id(found) for found in self.facts.program.all_functions() if event in set(found.events())}
        for other in function.events():
            if other is event:
                return other
            call = getattr(other, "call", None)
            for callee in self._called(call, function) if call is not None else ():
                if any(id(reached) in homes for reached in self.facts.summaries.reached(callee)):
                    return other
        return None

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
        shared = {(ir.text(cond), arm) for cond, arm, _ in around.conds}
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
    return {(ir.text(cond), arm) for cond, arm, _ in event.ctx.conds}


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
