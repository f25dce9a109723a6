"""All that rules read of one file, computed when first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.evidence import Evidence
from flake8_torchmem.analysis.flow import Budget
from flake8_torchmem.analysis.memo import memoized
from flake8_torchmem.analysis.retention.lifetime import Lifetimes
from flake8_torchmem.analysis.summaries import EFFECTS, Summaries
from flake8_torchmem.analysis.turns import MAX_CALLS, Turn, turn_around
from flake8_torchmem.analysis.values import Values

if TYPE_CHECKING:
    from flake8_torchmem.analysis.gradients.observations import Observations, Verdict
    from flake8_torchmem.analysis.gradients.periods import Periods
    from flake8_torchmem.analysis.gradients.reductions import Reductions
    from flake8_torchmem.analysis.gradients.windows import Window
    from flake8_torchmem.analysis.loading.placement import Placement
    from flake8_torchmem.analysis.mended import Remedies
    from flake8_torchmem.analysis.retention.later_uses import LaterUses
    from flake8_torchmem.analysis.retention.outputs import Outputs
    from flake8_torchmem.analysis.retention.readers import Readers
    from flake8_torchmem.analysis.retention.retained import Retained


# Most files that are analysed hold no training: what only that needs is imported where it is first asked for.
class FileFacts:
    """The facts of one file.

    Args:
        program: the lowered file.
        bases: full base names of every class of the file.
        guarded: classes whose calls run without gradients by themselves.
        fixing: rules are to say what mends their findings, as well.
    """

    def __init__(
        self,
        program: ir.Program,
        bases: dict[str, tuple[str, ...]],
        guarded: frozenset[str] = frozenset(),
        fixing: bool = False,
    ) -> None:
        self.program = program
        self.fixing = fixing
        self.bindings = Bindings(program)
        self.summaries = Summaries(self.bindings)
        self.evidence = Evidence(self.bindings, bases, guarded)
        self.functions = tuple(program.own_functions())
        self._given = frozenset(vars(self))

    def release(self) -> None:
        """Let go of all answers: some of them have the facts in turn, and the collector would need long to find that out."""
        for name in vars(self).keys() - self._given:
            delattr(self, name)

    @cached_property
    def trains(self) -> bool:
        """Whether a backward, step or clear is anywhere in sight: without one there is nothing to say about gradients."""
        events = (event for function in self.program.all_functions() for event in function.events())
        return any(isinstance(event, EFFECTS) for event in events)

    @cached_property
    def remedies(self) -> Remedies:
        """What mends findings; to be asked only when `fixing`."""
        from flake8_torchmem.analysis.mended import Remedies

        return Remedies(self)

    @cached_property
    def readers(self) -> Readers:
        """Which functions read or call what."""
        from flake8_torchmem.analysis.retention.readers import Readers

        return Readers(self.bindings)

    @memoized
    def later_uses(self, function: ir.Function, place: str, boxed: bool = False) -> LaterUses:
        """What becomes of what a place holds, or of what is in it: asked for every value that is stored there."""
        from flake8_torchmem.analysis.retention.later_uses import LaterUses

        return LaterUses(self, function, place, boxed)

    @cached_property
    def budget(self) -> Budget:
        """Visits for all paths of the file."""
        from flake8_torchmem.analysis.gradients.explorer import MAX_VISITS_OF_FILE

        return Budget(MAX_VISITS_OF_FILE)

    @cached_property
    def periods(self) -> Periods:
        """Which conditions are true once in so many turns."""
        from flake8_torchmem.analysis.gradients.periods import Periods

        return Periods(self.bindings)

    @memoized
    def values(self, function: ir.Function) -> Values:
        """The values of a function."""
        return Values(function, self.evidence)

    @memoized
    def lifetimes(self, function: ir.Function) -> Lifetimes:
        """The lifetimes of a function."""
        return Lifetimes(function, self.evidence, self.turn(function))

    @memoized
    def turn(self, function: ir.Function, calls: int = MAX_CALLS) -> Turn | None:
        """The turn of a loop elsewhere that a function is called in, over so many calls."""
        return turn_around(self, function, calls)

    @memoized
    def placement(self, function: ir.Function) -> Placement:
        """Where the values of a function are, on the host or on the device."""
        from flake8_torchmem.analysis.loading.placement import Placement

        return Placement(function, self)

    @memoized
    def outputs(self, function: ir.Function) -> Outputs:
        """Which values of a function are outputs of models."""
        from flake8_torchmem.analysis.retention.outputs import Outputs

        return Outputs(function, self)

    @memoized
    def needs_gradients(self, function: ir.Function) -> bool:
        """Whether gradients are taken of something in a function, or of what it returns."""
        from flake8_torchmem.analysis.retention.evaluation import needs_gradients

        return needs_gradients(self, function)

    @memoized
    def forwards(self, function: ir.Function) -> tuple[ir.Invoke, ...]:
        """Calls of models in a function."""
        from flake8_torchmem.analysis.retention.evaluation import model_calls

        return tuple(model_calls(self, function))

    @cached_property
    def retained(self) -> tuple[Retained, ...]:
        """Tensors with graph that growing places keep: several rules ask for them."""
        from flake8_torchmem.analysis.retention.retained import retained

        return tuple(retained(self))

    @cached_property
    def gradients(self) -> tuple[Observations, ...]:
        """What was seen on the paths of every function that steps or back-propagates, itself or in what it calls."""
        found = []
        for function in self.functions:
            observations = self.observations(function) if {"backward", "step"} & self.summaries.effects(function) else None
            if observations is not None:
                for entry in set(observations.entries.values()):
                    callee = self.bindings.callee(entry, function)
                    seen_alone = self.observations(callee) if callee is not None else None
                    if seen_alone is not None:
                        observations.without(seen_alone)
                found.append(observations)
        return tuple(found)

    @memoized
    def observations(self, function: ir.Function) -> Observations | None:
        """What was seen on the paths from one function; None when there are too many."""
        from flake8_torchmem.analysis.gradients.explorer import Explorer

        closed = self.closed_owners(function)
        return Explorer(function, self.bindings, self.summaries, self.periods, self.per_batch(function), closed, self.budget).run()

    def per_batch(self, function: ir.Function) -> bool:
        """Whether a method steps outside of any loop, and nothing in its file calls it: it is the body of a loop elsewhere."""
        called = any(not caller.file.linked for caller, _ in self.summaries.callers.get(function, ()))
        known = function.owner is not None and function.name != "__init__" and not called
        return known and self.summaries.steps_once(function)

    def closed_owners(self, function: ir.Function) -> frozenset[str]:
        """Optimizers of a method that trains once per call which nothing but the method itself could clear.

        Its own class builds them, and no other clear in the file can mean them. Then the loop lies elsewhere, and the next
        call finds what this one left.
        """
        if not self.per_batch(function) or self._is_test(function):
            return frozenset()
        reached = self.summaries.reached(function)
        steps = {event.owner for inner in reached for event in inner.events() if isinstance(event, ir.Step)}
        unused = reached | self._overridden(function)
        others = (other for other in self.program.all_functions() if other not in unused and not self._within(reached, other))
        zeros = [event.owner for other in others for event in other.events() if isinstance(event, ir.Zero)]
        named = {zero for zero in zeros if zero is not None and torchapi.looks_like_optimizer(zero) and not zero.endswith("]")}
        if len(named) < len(set(zeros)):
            return frozenset()
        cleared = {torchapi.last(zero) for zero in named}
        return frozenset(owner for owner in steps if self._built_here(owner, function) and torchapi.last(owner) not in cleared)

    def _is_test(self, function: ir.Function) -> bool:
        """Whether a method may be a test, which begins with a new optimizer each time."""
        lineage = self.bindings.lineage(function.owner) if function.owner is not None else ()
        return any(not torchapi.SETS_UP_TESTS.isdisjoint(cls.methods) for cls in lineage)

    def _overridden(self, function: ir.Function) -> frozenset[ir.Function]:
        """The methods of base classes that a method stands for; none if it may call them."""
        bases = self.bindings.lineage(function.owner)[1:] if function.owner is not None else ()
        if any(event.call.method == function.name for event in self.calls(function)):
            return frozenset()
        return frozenset(base.methods[function.name] for base in bases if function.name in base.methods)

    def _within(self, reached: frozenset[ir.Function], helper: ir.Function) -> bool:
        """Whether nothing but these functions calls a helper, whose name says that it is private."""
        callers = {caller for caller, _ in self.summaries.callers.get(helper, ())}
        return helper.name.startswith("_") and callers <= reached

    def _built_here(self, owner: str, function: ir.Function) -> bool:
        """Whether an optimizer is an attribute that the class builds, or one of Lightning's."""
        lightning = any(
            isinstance(bind.value, ir.Call) and bind.value.method == "optimizers" for bind in self.bindings.binds(owner, function)
        )
        return owner in self.bindings.links or lightning

    def is_window(self, cond: ir.Expr, function: ir.Function) -> bool:
        """Whether a condition is true once per accumulation window."""
        return self.periods.ends_window(cond, function)

    @cached_property
    def windows(self) -> tuple[Window, ...]:
        """The accumulation windows of the file, one per step."""
        from flake8_torchmem.analysis.gradients.windows import Windows

        windows = Windows(self.periods, self.evidence, self.summaries)
        return tuple(window for seen in self.gradients for window in windows.seen(seen))

    @cached_property
    def reductions(self) -> Reductions:
        """How losses were reduced."""
        from flake8_torchmem.analysis.gradients.reductions import Reductions

        return Reductions(self.evidence, self.summaries)

    @cached_property
    def clips(self) -> bool:
        """Whether anything in sight clips gradients."""
        from flake8_torchmem.analysis.gradients.clipping import clips

        return any(clips(self, function, event.call) for function in self.program.all_functions() for event in function.calls())

    @cached_property
    def clip_effects(self) -> dict[ir.Function, frozenset[str]]:
        """What functions do to gradients, clips and unscaling included."""
        from flake8_torchmem.analysis.gradients import clipping

        return clipping.effects(self)

    def order_defects(self, code: str) -> Iterator[tuple[Observations, ir.Step, Verdict]]:
        """Steps whose turn is in the wrong order, by the code of the defect."""
        for observations in self.gradients:
            yield from ((observations, step, verdict) for step, verdict in observations.defects(code))

    def effect_in(self, loop: ir.Loop, function: ir.Function, effect: str) -> bool:
        """Whether a loop has a backward, step or zero, itself or in an in-file callee."""
        return any(effect in effects and loop in event.ctx.loops for event, effects in self.summaries.acting(function).items())

    def trains_each_turn(self, loop: ir.Loop, function: ir.Function) -> bool:
        """Whether every turn of the loop is one backward's worth: no further loop lies between, here or in the callee."""
        for event in function.events():
            if not event.ctx.loops or event.ctx.loops[-1] is not loop:
                continue
            if isinstance(event, ir.Backward):
                return True
            callee = self.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) else None
            if callee is not None and any(isinstance(inner, ir.Backward) and not inner.ctx.loops for inner in callee.events()):
                return True
        return False

    def homes(self, sites: Iterable[ir.Site]) -> list[ir.Function]:
        """The functions that places lie in, and those of the file from which they are reached."""
        marks = {site.mark for site in sites}
        pending = [function for function in self.functions if any(event.site.mark in marks for event in function.events())]
        for function in pending:
            callers = [caller for caller, _ in self.summaries.callers.get(function, ())]
            around = [function.parent] if function.parent is not None else []
            pending += [other for other in dict.fromkeys([*callers, *around]) if other not in pending]
        return pending

    def calls(self, function: ir.Function) -> tuple[ir.Invoke, ...]:
        """The plain calls of a function, in order."""
        return function.calls()

    def guarded_by_callers(self, function: ir.Function) -> bool:
        """Whether the function runs without gradients wherever it is called from, or whether that is decided out of sight.

        Every caller in the file guards, or is guarded; or nobody calls, and it is `_prescribed`.
        """
        reached = {function: None}
        pending = [function]
        while pending:
            each = pending.pop()
            callers = self.summaries.callers.get(each, ())
            others = [(caller, call) for caller, call in callers if caller is not each]
            begins = not others and (each is function or not callers)
            if "backward" in self.summaries.effects(each) or (begins and not self._prescribed(each)):
                return False
            fresh = dict.fromkeys(caller for caller, call in others if call.ctx.grad is ir.Grad.ON and caller not in reached)
            reached |= fresh
            pending += fresh
        return True

    def _prescribed(self, function: ir.Function) -> bool:
        """Whether its class's users or base class call a function: methods of modules, and what a base class of another file prescribes."""
        if function.name.startswith("_") and not function.name.startswith("__"):
            return True
        cls = function.owner
        if cls is None:
            return False
        prescribed = not self.bindings.complete(cls) and not torchapi.EVAL_NAME.search(function.name)
        inside = self.evidence.module_class(cls.full) and not any(
            isinstance(event, ir.Invoke) and event.call.path == "self.eval" for event in function.events()
        )
        return prescribed or inside
