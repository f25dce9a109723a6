"""What mends gradients that are cleared too rarely, too early or too often: where the clear goes."""

from __future__ import annotations

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.conditions import spelled
from flake8_torchmem.analysis.flow import following
from flake8_torchmem.analysis.gradients.observations import Wipe
from flake8_torchmem.analysis.gradients.places import READS_GRADIENT, SPELLED, Places, conds_of, own_loop
from flake8_torchmem.remedies import Insert, Move, NoRemedy, Remedy, Remove, remedy

ELSEWHERE = NoRemedy("the optimizer has no name, or cannot clear, where the gradients are added")


class Clears(Places):
    """Where the clears of a function belong."""

    def missing_clear(self, backward: ir.Backward, owner: str, step: ir.Step) -> Remedy | NoRemedy:
        """A clear before the first backward of the turn; right after the step where that ends a window."""
        if step.owner == ir.BY_HAND:
            return self._clear_by_hand(step)
        if own_loop(step) is not None or self._waits(step, backward):
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
        if list(home.events()).index(end) < list(home.events()).index(first):  # it uses the gradients of the turn before
            site = self.end_of(user) if end is user else end.site
            return self._unless_needed(user, remedy(Insert(f"{spelled}.zero_grad()", site, after=True)))
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
        beyond = own_loop(step) not in clear.ctx.loops
        anchor = self.end_of(step, beyond) if end is step else end.site
        return self._unless_needed(step, remedy(Move(clear.site, anchor, beside=clear.site, whole=True)))

    def wiped(self, wipes: list[tuple[Wipe, list[ir.Step]]]) -> Remedy | NoRemedy:
        """All calls that lead to one clear are mended together."""
        found = [self._wiped(wipe, steps) for wipe, steps in wipes]
        failed = next((each for each in found if isinstance(each, NoRemedy)), None)
        return failed or remedy(*dict.fromkeys(action for each in found if isinstance(each, Remedy) for action in each.actions))

    def _wiped(self, wipe: Wipe, steps: list[ir.Step]) -> Remedy | NoRemedy:
        """The clear goes under the condition of the step, right after it; where several steps end windows, after each."""
        around = {(ir.text(cond), not arm) for cond, arm, _ in wipe.frame.around(wipe.zero.ctx).conds}
        steps = [each for each in steps if not around & spelled(self.seen.context(each).conds)] or steps
        home = self._home(wipe.zero, steps[0], (*wipe.frame.stack, wipe.frame.function))
        clear = self.carrier(wipe.zero, home, at=wipe.frame.ctx or wipe.zero.ctx)
        ends = [end for each in steps if (end := self._carrier_by(each, home, clear, before=False)) is not None]
        if clear is None or len(ends) < len(steps):
            return NoRemedy("the clear and the step are in functions of their own")
        alone = self._only(clear, "zero", home)
        if not alone and len(self.facts.summaries.callers.get(wipe.frame.function, ())) != 1:
            return NoRemedy("others call the function that clears")
        if all(map(self._is_cleared, steps)):
            return remedy(Remove(clear.site if alone else wipe.zero.site))
        if alone and not self._wait_apart(ends, home):
            beyond = own_loop(steps[0]) not in clear.ctx.loops
            anchor = self.end_of(steps[0], beyond) if ends == steps[:1] else ends[0].site
            return self._unless_needed(steps[0], remedy(Move(clear.site, anchor, beside=ends[1].site if ends[1:] else None, whole=True)))
        if wipe.zero.call is None or own_loop(wipe.zero) is not None or not all(SPELLED.match(step.owner) for step in steps):
            return NoRemedy("the clear cannot be spelled where the steps are")
        uncleared = [each for each in steps if not self._is_cleared(each)]
        inserts = [Insert(f"{each.owner}.zero_grad()", self.end_of(each), after=True) for each in uncleared]
        return self._unless_needed(steps[0], remedy(Remove(clear.site if alone else wipe.zero.site), *inserts))

    def _wait_apart(self, ends: list[ir.Event], home: ir.Function) -> bool:
        """Whether several steps wait for windows of their own: no block holds all that follows a window."""
        shared = set.intersection(*({id(cond) for cond, _, _ in end.ctx.conds} for end in ends))
        own = (cond for end in ends for cond, _, _ in end.ctx.conds if id(cond) not in shared)
        return any(self.facts.is_window(cond, home) for cond in own)

    def _is_cleared(self, step: ir.Step) -> bool:
        """Whether a clear of the same owner follows the step where it stands."""
        events = list(self.seen.functions(step)[-1].events())
        clears = (event for event in events[events.index(step) :] if isinstance(event, ir.Zero) and event.owner == step.owner)
        return any(conds_of(clear) == conds_of(step) and clear.ctx.loops == step.ctx.loops for clear in clears)


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
