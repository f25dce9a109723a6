"""What mends backwards that come too late or on some paths only: which statement goes where."""

from __future__ import annotations

from collections.abc import Iterator

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.flow import following
from flake8_torchmem.analysis.gradients.places import READS_GRADIENT, SPELLED, Places, binds, conds_of, is_with
from flake8_torchmem.lazy import Words
from flake8_torchmem.remedies import Insert, Move, NoRemedy, Remedy, remedy

NO_SYNC = Words(r"^no_\w*sync$")


class Backwards(Places):
    """Where the backwards of a function belong."""

    def late_backward(self, backward: ir.Event, step: ir.Step) -> Remedy | NoRemedy:
        """The backward goes before the step and before what belongs to it; the step below the backward where the loss comes later."""
        home = self._home(backward, step)
        events = list(home.events())
        end = self.carrier(step, home)
        moved = self._carrier_by(backward, home, end, before=False)
        if moved is None or end is None or not self._only(moved, "backward", home):
            return NoRemedy("the backward is in a function that does more than that")
        own = (cond for cond, arm, _ in moved.ctx.conds if (ir.text(cond), arm) not in conds_of(end))
        read = set(ir.reads(moved)) | {path for cond in own for path in ir.names(cond)}
        start = self._start_of(end, home)
        between = events[events.index(start) : events.index(moved)]
        along = list(self._late(moved, [end, *between], home))
        later = {each.site.mark for each in along}
        if any(READS_GRADIENT.search(path) for event in following(home, moved) if event.site.mark not in later for path in ir.reads(event)):
            return NoRemedy("gradients are read after the backward")
        if not binds(between, read):
            return remedy(*(Move(each.site, start.site, after=False, beside=moved.site, whole=True) for each in along))
        if end.ctx.conds != moved.ctx.conds or end.ctx.loops != moved.ctx.loops:
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
            if free and conds_of(event) == conds_of(moved) and not binds(between[1:], set(ir.reads(event))):
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
        possible = [each for each in carriers if not {(text, not arm) for text, arm in conds_of(loss)} & conds_of(each)]
        carriers = possible or carriers
        if all(conds_of(loss) <= conds_of(each) for each in (*carriers, end)):
            return self._hoisted(carriers, end, home)
        if end is not step:
            return NoRemedy("the step is in another function than the loss")
        return self._propagated(carriers, step, loss, home)

    def _hoisted(self, carriers: list[ir.Event], end: ir.Event, home: ir.Function) -> Remedy | NoRemedy:
        moved, events = carriers[0], list(home.events())
        if not all(self._only(each, "backward", home) for each in carriers) or (len(carriers) > 1 and not _are_arms(carriers, end, events)):
            return NoRemedy("several branches back-propagate")
        apart, before = conds_of(moved) - conds_of(end), events[: events.index(moved)]
        branch = [event for event in before if apart & conds_of(event)] if apart else before[events.index(end) :]
        if binds([event for event in branch if not is_with(event) and conds_of(event) <= conds_of(moved)], set(ir.reads(moved))):
            return NoRemedy("what is back-propagated is computed in the branch")
        if any(_enters(manager, moved) for manager in home.managers):
            return remedy(Move(moved.site, self._start_of(end, home).site, after=False, keep=True))
        first, second = sorted((moved, end), key=events.index)
        return remedy(Move(moved.site, first.site, after=False, beside=second.site, whole=len(carriers) > 1))

    def _propagated(self, carriers: list[ir.Event], step: ir.Step, loss: ir.Bind, home: ir.Function) -> Remedy | NoRemedy:
        """A loss that one arm drops: the backward of the other arm goes below both, or the arm gets one of its own."""
        other = carriers[0]
        scaler = step.call.receiver if step.call is not None and step.call.args else None
        if not isinstance(other, ir.Backward) or not SPELLED.match(loss.place) or (scaler is not None and not isinstance(scaler, ir.Name)):
            return NoRemedy("it is not certain how this loss would be back-propagated")
        scaled = isinstance(other.call.receiver, ir.Call) and other.call.receiver.method == "scale"
        alike = scaled == (scaler is not None)
        outside = not conds_of(step) - (conds_of(loss) & conds_of(other))
        if outside and alike and len(carriers) == 1 and isinstance(other.value, ir.Name) and other.value.path == loss.place:
            return remedy(Move(other.site, other.site, beside=step.site))
        if other.engine is not None and alike and SPELLED.match(other.engine):
            code = f"{other.engine}.{other.call.method}({loss.place})"
        elif isinstance(other.value, ir.Name) and any(is_with(event, other.value.path) for event in home.events()):
            return NoRemedy("it is not certain how this loss would be back-propagated")
        else:
            code = f"{scaler.path}.scale({loss.place}).backward()" if isinstance(scaler, ir.Name) else f"{loss.place}.backward()"
        if outside:
            return remedy(Insert(code, loss.site, after=True))
        return remedy(Insert(code, self._start_of(step, home).site))

    def _backwards(self, home: ir.Function) -> Iterator[ir.Event]:
        return (event for event in home.events() if "backward" in self.facts.summaries.effects_of(event, home))


def _enters(manager: ir.Expr, event: ir.Event) -> bool:
    """Whether an event is right inside of `with model.no_sync():`, which is not for the micro-batch that steps."""
    if not isinstance(manager, ir.Call) or not NO_SYNC.match(manager.method):
        return False
    return manager.site.mark.number == event.site.mark.number - 1


def _are_arms(carriers: list[ir.Event], end: ir.Event, events: list[ir.Event]) -> bool:
    """Whether events behind another one are the arms of one `if`."""
    arms: list[set[tuple[int, bool]]] = [{(id(cond), arm) for cond, arm, _ in each.ctx.conds} for each in carriers]
    own = {cond for arm in arms for cond, _ in arm - arms[0].intersection(*arms)}
    return len(own) == 1 and len(carriers) == 2 and events.index(end) < events.index(carriers[0])
