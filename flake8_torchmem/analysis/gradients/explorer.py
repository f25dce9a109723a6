"""Walks every path of a function, and of the in-file functions it calls, through the gradient typestate."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import conditions, ir
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.flow import Budget, TooManyPathsError, explore
from flake8_torchmem.analysis.gradients import typestate
from flake8_torchmem.analysis.gradients.callees import Touch
from flake8_torchmem.analysis.gradients.observations import Observations, Verdict, Wipe, enclosing
from flake8_torchmem.analysis.gradients.owners import Frame, Owners
from flake8_torchmem.analysis.gradients.periods import Periods
from flake8_torchmem.analysis.gradients.plan import Plan
from flake8_torchmem.analysis.gradients.typestate import OTHERS, State, Suspect
from flake8_torchmem.analysis.summaries import Summaries

MAX_VISITS = 4000
MAX_VISITS_OF_FILE = MAX_VISITS + 1000  # training scripts take some hundreds in all
MAX_CALLS = 4
MORE_CALLS = 2  # one that uses gradients, one that adds to them, one that uses them again


class Explorer:
    """Explores one root function.

    Args:
        function: the root; nothing is known at its entry.
        bindings: what names stand for.
        summaries: what callees do.
        periods: reads the tests of windows.
        repeated: the function is the body of a loop that lies elsewhere.
        closed: owners that nothing outside of the function can clear between two calls.
        budget: visits that are left for the whole file.
    """

    def __init__(
        self,
        function: ir.Function,
        bindings: Bindings,
        summaries: Summaries,
        periods: Periods,
        repeated: bool = False,
        closed: frozenset[str] = frozenset(),
        budget: Budget | None = None,
    ) -> None:
        self.function = function
        self.bindings = bindings
        self.summaries = summaries
        self.periods = periods
        self.owners = Owners(bindings)
        self.seen = Observations(function)
        self.budget = Budget(MAX_VISITS, budget)
        self.body = ir.Loop("body", None, (), None, None)
        self.repeated = repeated
        self.closed = closed
        self.plans: dict[Frame, Plan] = {}
        self.turns: dict[ir.Backward, set[ir.Loop]] = {}
        self.exits: dict[tuple[Frame, State], set[State]] = {}
        self.losses = summaries.losses(function)

    def run(self) -> Observations | None:
        """All observations, None when there are too many paths."""
        frame = Frame(self.function, {}, "", (self.body,), ())
        try:
            given = (self.body,) if self.losses & set(self.function.params) else ()
            exits = self.enter(frame, {State(ready=given)})
            if self.repeated:
                stale = set(self.seen.stale)
                for _ in range(MORE_CALLS):
                    for state in exits:
                        self.settle(state.suspects, None)
                    exits = self.enter(frame, {self.called_again(state, frame, given) for state in exits})
                self.seen.stale = {seen for seen in self.seen.stale if seen in stale or seen[1] in self.closed}
        except (TooManyPathsError, RecursionError):
            return None
        for state in exits:
            self.settle(state.suspects, None)
        return self.seen

    def called_again(self, state: State, frame: Frame, ready: tuple[ir.Loop, ...]) -> State:
        """The state at the next call: attributes are what they were, arguments are not."""
        names = self.plan(frame).names
        kept = (fact for fact in state.facts if all(name.startswith("self.") for name in names.get(fact[0], ("",))))
        facts = frozenset(fact for fact in kept if fact[0] not in self.plan(frame).volatile)
        return typestate.next_turn(state, self.body)._replace(facts=facts, suspects=frozenset(), ready=ready)

    def enter(self, frame: Frame, states: Iterable[State]) -> set[State]:
        """The states after a call of the frame's function."""
        return explore(
            frame.function.blocks[0],
            states,
            lambda block, state: self.block(block, state, frame),
            lambda edge, state: self.follow(edge, state, frame),
            self.plan(frame).onward,
            self.budget,
        )

    def block(self, block: ir.Block, state: State, frame: Frame) -> Iterable[State]:
        """The states after a block's events: calls may leave several."""
        if block.raises:
            return ()
        states = {state}
        for event in self.plan(frame).events.get(block.index, ()):
            self.seen.frames.setdefault(event, frame)
            handler: Handler = HANDLERS[type(event)]
            states = {after for before in states for after in handler(self, event, before, frame)}
        return states

    def plan(self, frame: Frame) -> Plan:
        """What matters of the frame's function."""
        if frame not in self.plans:
            self.plans[frame] = Plan(frame, self.owners, self.summaries, self.losses)
        return self.plans[frame]

    def backward(self, event: ir.Backward, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function)
        if callee is not None and frame.depth < MAX_CALLS and "backward" in self.summaries.effects(callee):
            yield from self.call(event.call, callee, state, frame)
            return
        loops = frame.loops + event.ctx.loops
        self.turns.setdefault(event, set()).add(loops[-1])
        self.settle((suspect for suspect in state.suspects if suspect.turn in loops), event)
        self.settle((suspect for suspect in state.suspects if suspect.turn not in loops), None)
        yield typestate.backward(state._replace(suspects=frozenset()), event, loops)

    def step(self, event: ir.Step, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function) if event.call else None
        if callee is not None and self.summaries.effects(callee):
            yield from self.call(event.call, callee, state, frame)  # type: ignore[arg-type]
            return
        owner = self.owners.owner(event.owner, frame)
        if not (self.bindings.is_optimizer(event.owner, frame.function) or self.bindings.is_optimizer(owner, self.function)):
            yield state
            return
        closure = self.closure(event, frame)
        unseen = self.bindings.is_wrapped(event.owner, frame.function)
        if owner in self.bindings.engines or unseen or (event.closure and closure is None):
            yield typestate.forget(state, owner)._replace(claimed=True, ready=())
            return
        states: Iterable[State] = (state,)
        if closure is not None and event.call is not None:
            states = self.call(event.call, closure, state, frame)
        yield from (self.judge(event, owner, each, frame) for each in states)

    def closure(self, event: ir.Step, frame: Frame) -> ir.Function | None:
        """The in-file function that `step(closure)` evaluates."""
        argument = event.call.operands[0] if event.closure and event.call and event.call.operands else None
        found = self.bindings.function_at(argument.path, frame.function) if isinstance(argument, ir.Name) else None
        return found if found and "backward" in self.summaries.effects(found) else None

    def judge(self, event: ir.Step, owner: str, state: State, frame: Frame) -> State:
        """Note what this step uses, then use it."""
        held = state.of(owner)
        turn = self.turn_of(event, frame)
        fed = held.full & state.pending
        for backward in fed:
            self.seen.claims.setdefault(backward, set()).add(owner)
        if fed:
            self.seen.fed.setdefault((event, owner), set()).add(fed)
        self.seen.stale |= {(b, o, s) for b, o, s in state.dirty if o == owner and b in fed}
        lost = turn in state.ready
        # Another step has used what is there, and a new loss waits: this step was meant for that one.
        taken = lost and state.claimed
        if held.full and (turn in held.turns or not lost) and not taken:
            self.note(event, owner, Verdict("good", self.facts(state)))
        elif held.wasted and turn in held.wasted_turns and not taken:
            self.note(event, owner, Verdict("TM102", self.facts(state), held.empty))
            self.seen.fed.setdefault((event, owner), set()).add(held.wasted & state.pending)
        elif lost or held.empty is not None:
            suspect = Suspect(event, owner, turn, lost and not (taken and held.full), self.facts(state), state.loss)
            state = state._replace(suspects=state.suspects | {suspect})
        return typestate.step(state, owner, event)

    def facts(self, state: State) -> conditions.Facts:
        """The path's facts, and which loss it computed, where that was in a branch of its own."""
        if state.loss is None or not state.loss.ctx.conds:
            return state.facts
        mark = f"loss#{id(state.loss)}"
        return state.facts | {(mark, True)}

    def turn_of(self, event: ir.Event, frame: Frame) -> ir.Loop:
        """The loop whose turn a step belongs to: the innermost one that back-propagates."""
        loops = frame.loops + event.ctx.loops
        return next((loop for loop in reversed(loops) if loop in self.summaries.training_loops), self.body)

    def note(self, event: ir.Step, owner: str, verdict: Verdict) -> None:
        self.seen.steps.setdefault((event, owner), set()).add(verdict)

    def settle(self, suspects: Iterable[Suspect], backward: ir.Backward | None) -> None:
        """The turn has gone on, to a backward or to its end: say what was wrong with the steps before."""
        for suspect in suspects:
            if backward is not None:
                self.note(suspect.step, suspect.owner, Verdict("TM103", suspect.facts, backward))
            elif suspect.lost:
                self.note(suspect.step, suspect.owner, Verdict("TM104", suspect.facts, suspect.loss))

    def zero(self, event: ir.Zero, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function) if event.call else None
        if callee is not None:
            yield from self.call(event.call, callee, state, frame) if self.summaries.effects(callee) else (state,)  # type: ignore[arg-type]
            return
        owners, certain = self.owners.of_zero(event.owner, frame, state.known())
        for owner in owners:
            if certain and not event.written:
                each_turn = self.turns.keys() & state.of(owner).full
                within = {*frame.loops, *event.ctx.loops}
                self.seen.wiped |= {Wipe(event, frame, backward, owner) for backward in each_turn if self.turns[backward] & within}
                state = typestate.zero(state, owner, event)
            else:
                state = typestate.forget(state, owner)
        if OTHERS not in owners and self.owners.owner(event.owner or "", frame) not in owners:
            state = typestate.forget(state, OTHERS)
        if ir.BY_HAND not in owners:
            state = typestate.forget(state, ir.BY_HAND)  # whose parameters are moved by hand is not known
        yield state._replace(suspects=frozenset(), ready=()) if event.written else state

    def invoke(self, event: ir.Invoke, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function)
        if callee is not None:
            yield from self.call(event.call, callee, state, frame)
            return
        touch = self.plan(frame).touched[event]
        ready = () if touch is Touch.LOSS else state.ready
        yield typestate.forget_all(state)._replace(suspects=frozenset(), ready=ready)

    def call(self, call: ir.Call, callee: ir.Function, state: State, frame: Frame) -> Iterator[State]:
        """Go through an in-file callee, unless that leads too deep."""
        if frame.depth >= MAX_CALLS or callee in frame.stack:
            yield typestate.forget_all(state)._replace(suspects=frozenset(), ready=())
            return
        inner = self.owners.frame(call, callee, frame)
        if (inner, state) not in self.exits:
            self.exits[inner, state] = self.enter(inner, {state})
        for after in self.exits[inner, state]:
            # What the callee has learned holds on where this function says when it ends, or where it never does.
            lasting = (fact for fact in after.facts - state.facts if fact[0] in self.plan(frame).names or fact[0] in self.seen.stable)
            yield after._replace(facts=(after.facts & state.facts) | frozenset(lasting))

    def bind(self, event: ir.Bind, state: State, frame: Frame) -> Iterator[State]:
        plan, facts = self.plan(frame), state.facts
        stale = plan.overwrites.get(event)
        if stale is not None:
            facts = frozenset(fact for fact in facts if fact[0] not in stale) | plan.known[event]
        source = event.delta or event.value
        if event.place in self.losses and event.kind in ("assign", "augment") and not frame.depth and computed(source):
            if state.loss is not None and state.loss.place == event.place not in ir.names(event.value):
                over = {suspect for suspect in state.suspects if suspect.lost}  # the loss that was there for them is gone
                self.settle(over, None)
                state = state._replace(suspects=state.suspects - over)
            state = state._replace(ready=frame.loops + event.ctx.loops, loss=event)
        if plan.built(event):
            state = typestate.forget(state, self.owners.owner(event.place, frame))
        yield state._replace(facts=facts) if facts != state.facts else state

    def follow(self, edge: ir.Edge, state: State, frame: Frame) -> State | None:
        """The state beyond an edge: a new turn, or an arm of a branch."""
        if edge.turn is not None:
            over = {suspect for suspect in state.suspects if edge.turn in enclosing(suspect.turn)}
            self.settle(over, None)
            facts = frozenset(fact for fact in state.facts if fact[0] not in self.plan(frame).volatile)
            return typestate.next_turn(state, edge.turn)._replace(suspects=state.suspects - over, facts=facts)
        if edge.handler:
            return state._replace(ready=(), suspects=frozenset())
        test = self.plan(frame).tests.get(edge)
        if test is None:
            return state
        value = test.truth(state.facts)
        return self.assume(edge, test, state, frame) if value in (None, edge.arm) else None

    def assume(self, edge: ir.Edge, test: conditions.Test, state: State, frame: Frame) -> State:
        """Take an arm of an open condition; an arm that passes a clear by is trusted to know when."""
        if self.trusted(edge, test, state, frame):
            for owner in state.known():
                state = typestate.trust(state, owner)
        facts = frozenset(fact for fact in test.implied(edge.arm) if fact[0] in self.plan(frame).remembered)
        if edge.cond is not None and not conditions.changes(edge.cond, edge.loops or frame.loops):
            self.seen.stable.update(text for text, _ in facts)
        return state._replace(facts=state.facts | facts)

    def waited(self, step: ir.Step) -> Iterator[tuple[ir.Expr, ir.Function]]:
        """The conditions that a step waits for, with the functions where their names may be bound."""
        return ((cond, function) for cond, _ in self.seen.deciding(step) for function in self.seen.functions(step))

    def trusted(self, edge: ir.Edge, test: conditions.Test, state: State, frame: Frame) -> bool:
        """Whether skipping the clears of the other arm is no proof that they are missing."""
        plan = self.plan(frame)
        other = plan.siblings.get(edge)
        if other is None or edge.cond is None:
            return False
        here, there = plan.reachable(edge.target), plan.reachable(other.target)
        if not any("zero" in plan.effects(event) for event in there - here):
            return False
        trains = frozenset().union(*(plan.effects(event) for event in here - there))
        if {"backward", "step"} <= trains or conditions.once(edge.cond, edge.arm, edge.loops):
            return False
        if conditions.changes(edge.cond, edge.loops or frame.loops):
            used = [gradients.used for _, gradients in state.owners if gradients.used is not None]
            waits = any(self.periods.ends_window(cond, place) for step in used for cond, place in self.waited(step))
            return waits or not self.periods.ends_window(edge.cond, frame.function)
        related = any(text != test.text and plan.names.get(text, frozenset()) & test.names for text, _ in state.facts)
        return related or not {"backward", "step"} & trains


def computed(expr: ir.Expr) -> bool:
    """Whether a value is computed, or taken out of a result, here; a number for the log is no loss."""
    if isinstance(expr, ir.Call) and expr.method in torchapi.NUMBER_METHODS | torchapi.NUMBER_FUNCTIONS:
        return False
    return any(isinstance(node, (ir.Call, ir.Item)) or (isinstance(node, ir.Name) and node.path.endswith("]")) for node in ir.walk(expr))


Handler = Callable[[Explorer, Any, State, Frame], Iterator[State]]
HANDLERS: dict[type[ir.Event], Handler] = {
    ir.Backward: Explorer.backward, ir.Step: Explorer.step, ir.Zero: Explorer.zero, ir.Invoke: Explorer.invoke, ir.Bind: Explorer.bind,
}  # fmt: skip
