"""Walks every path of a function, and of the in-file functions it calls, through the gradient typestate."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import conditions, ir
from flake8_torchmem.analysis import gradients as typestate
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.callees import Touch, touches
from flake8_torchmem.analysis.flow import Budget, TooManyPaths, explore
from flake8_torchmem.analysis.gradients import State, Suspect
from flake8_torchmem.analysis.owners import Frame, Owners
from flake8_torchmem.analysis.summaries import Summaries

MAX_VISITS = 6000
MAX_CALLS = 4


@dataclass(frozen=True)
class Verdict:
    """What one step found on one path: `good`, or the code of the defect, with the event that caused it."""

    code: str
    facts: conditions.Facts
    cause: ir.Event | None = None


@dataclass
class Observations:
    """What was seen on all paths from one function.

    Attributes:
        function: where the paths start.
        stale: backwards that add to gradients which the step has used.
        wiped: clears of gradients that no step had used, with the backward.
        steps: per step and owner, what each path found.
        claims: which owners a backward has fed.
        stable: texts of conditions that cannot change between turns.
    """

    function: ir.Function
    stale: set[tuple[ir.Backward, str, ir.Step]] = field(default_factory=set)
    wiped: set[tuple[ir.Zero, ir.Backward, str]] = field(default_factory=set)
    steps: dict[tuple[ir.Step, str], set[Verdict]] = field(default_factory=dict)
    claims: dict[ir.Backward, set[str]] = field(default_factory=dict)
    stable: set[str] = field(default_factory=set)


    def defects(self, code: str) -> Iterator[tuple[ir.Step, str, Verdict]]:
        """Steps that are wrong in this way on every path, or on every path under one unchanging condition."""
        for (step, owner), verdicts in self.steps.items():
            wrong = [verdict for verdict in verdicts if verdict.code == code and self._fed(verdict, owner)]
            if wrong and (len(wrong) == len(verdicts) or self._wrong_arm(wrong, verdicts)):
                yield step, owner, wrong[0]

    def _wrong_arm(self, wrong: list[Verdict], verdicts: set[Verdict]) -> bool:
        facts = {fact for verdict in wrong for fact in verdict.facts if fact[0] in self.stable}
        return any(all(verdict in wrong for verdict in verdicts if fact in verdict.facts) for fact in facts)

    def _fed(self, verdict: Verdict, owner: str) -> bool:
        """Whether the backward in question can be this owner's: no other owner alone has claimed it."""
        cause = verdict.cause
        return not isinstance(cause, ir.Backward) or owner in self.claims.get(cause, {owner})


class Explorer:
    """Explores one root function.

    Args:
        function: the root; nothing is known at its entry.
        bindings: what names stand for.
        summaries: what callees do.
        repeated: the function is the body of a loop that lies elsewhere.
    """

    def __init__(self, function: ir.Function, bindings: Bindings, summaries: Summaries, repeated: bool = False) -> None:
        self.function = function
        self.bindings = bindings
        self.summaries = summaries
        self.owners = Owners(bindings)
        self.seen = Observations(function)
        self.budget = Budget(MAX_VISITS)
        self.body = ir.Loop("body", None, (), None, None)
        self.repeated = repeated
        self.tests: dict[tuple[ir.Edge, Frame], conditions.Test] = {}
        self.losses = {ir.root(path) for event in function.events() if isinstance(event, ir.Backward) for path in ir.names(event.value)}
        self.reach: dict[tuple[ir.Block, ir.Function], frozenset[ir.Event]] = {}

    def run(self) -> Observations | None:
        """All observations, None when there are too many paths."""
        frame = Frame(self.function, {}, "", (self.body,), ())
        try:
            exits = self.enter(frame, {State()})
            if self.repeated:
                exits = self.enter(frame, {replace(typestate.next_turn(state, self.body), facts=frozenset()) for state in exits})
        except (TooManyPaths, RecursionError):
            return None
        for state in exits:
            self.settle(state.suspects, None)
        return self.seen

    def enter(self, frame: Frame, states: Iterable[State]) -> set[State]:
        """The states after a call of the frame's function."""
        return explore(
            frame.function.blocks[0],
            states,
            lambda block, state: self.block(block, state, frame),
            lambda edge, state: self.follow(edge, state, frame),
            self.budget,
        )

    def block(self, block: ir.Block, state: State, frame: Frame) -> Iterable[State]:
        """The states after a block's events: calls may leave several."""
        states = {state}
        for event in block.events:
            handler = HANDLERS.get(type(event))
            if handler is not None:
                states = {after for before in states for after in handler(self, event, before, frame)}
        return states

    def backward(self, event: ir.Backward, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function)
        if callee is not None and frame.depth < MAX_CALLS and "backward" in self.summaries.effects(callee):
            yield from self.call(event.call, callee, state, frame)
            return
        loops = frame.loops + event.ctx.loops
        self.settle(state.suspects, event)
        yield typestate.backward(replace(state, suspects=frozenset()), event, loops)

    def step(self, event: ir.Step, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function) if event.call else None
        if callee is not None and callee.owner and self.summaries.effects(callee):
            yield from self.call(event.call, callee, state, frame)  # type: ignore[arg-type]
            return
        if not self.bindings.is_optimizer(event.owner, frame.function):
            yield state
            return
        for owner in self.owners.of_step(event.owner, frame):
            if event.closure or owner in self.owners.engines:
                state = replace(typestate.forget(state, owner), claimed=True, ready=())
            else:
                state = self.judge(event, owner, state, frame)
        yield state

    def judge(self, event: ir.Step, owner: str, state: State, frame: Frame) -> State:
        """Note what this step uses, then use it."""
        held = state.of(owner)
        turn = self.turn_of(event, frame)
        for backward in held.full:
            self.seen.claims.setdefault(backward, set()).add(owner)
        self.seen.stale |= {(b, o, s) for b, o, s in state.dirty if o == owner and b in held.full}
        lost = turn in state.ready
        if held.full and (turn in held.turns or not lost):
            self.note(event, owner, Verdict("good", state.facts))
        elif held.wasted and turn in held.wasted_turns:
            self.note(event, owner, Verdict("TM102", state.facts, held.empty))
        elif lost or held.empty is not None:
            suspect = Suspect(event, owner, turn, lost, state.facts)
            state = replace(state, suspects=state.suspects | {suspect})
        return typestate.step(state, owner, event)

    def turn_of(self, event: ir.Event, frame: Frame) -> ir.Loop:
        """The loop whose turn a step belongs to: the innermost one that back-propagates."""
        loops = frame.loops + event.ctx.loops
        return next((loop for loop in reversed(loops) if loop in self.owners.training_loops(self.summaries)), self.body)

    def note(self, event: ir.Step, owner: str, verdict: Verdict) -> None:
        self.seen.steps.setdefault((event, owner), set()).add(verdict)

    def settle(self, suspects: Iterable[Suspect], backward: ir.Backward | None) -> None:
        """The turn has gone on, to a backward or to its end: say what was wrong with the steps before."""
        for suspect in suspects:
            if backward is not None:
                self.note(suspect.step, suspect.owner, Verdict("TM103", suspect.facts, backward))
            elif suspect.lost:
                self.note(suspect.step, suspect.owner, Verdict("TM104", suspect.facts))

    def zero(self, event: ir.Zero, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function) if event.call else None
        if callee is not None and "zero" in self.summaries.effects(callee):
            yield from self.call(event.call, callee, state, frame)  # type: ignore[arg-type]
            return
        owners, certain = self.owners.of_zero(event.owner, frame, state.known())
        for owner in owners:
            if certain:
                self.seen.wiped |= {(event, backward, owner) for backward in state.of(owner).full}
            state = typestate.zero(state, owner, event)
        yield state if certain else replace(state, suspects=frozenset())

    def invoke(self, event: ir.Invoke, state: State, frame: Frame) -> Iterator[State]:
        callee = self.bindings.callee(event.call, frame.function)
        if callee is not None:
            effects = self.summaries.effects(callee)
            yield from self.call(event.call, callee, state, frame) if effects else (state,)
            return
        touch = touches(event.call, frame, self.owners, self.losses)
        if touch is not Touch.NOTHING:
            for owner in state.known():
                state = typestate.forget(state, owner)
            state = replace(state, suspects=frozenset())
        yield replace(state, ready=()) if touch is Touch.LOSS else state

    def call(self, call: ir.Call, callee: ir.Function, state: State, frame: Frame) -> Iterator[State]:
        """Go through an in-file callee, unless that leads too deep."""
        if frame.depth >= MAX_CALLS or callee in frame.stack:
            for owner in state.known():
                state = typestate.forget(state, owner)
            yield replace(state, suspects=frozenset(), ready=())
            return
        yield from self.enter(self.owners.frame(call, callee, frame), {state})

    def bind(self, event: ir.Bind, state: State, frame: Frame) -> Iterator[State]:
        place = self.owners.canonical(event.place, frame)
        stale = {fact for fact in state.facts if any(place in ir.prefixes(name) for name in self.fact_names.get(fact[0], ()))}
        if stale:
            state = replace(state, facts=state.facts - stale)
        if event.place in self.losses and frame.depth == 0 and any(isinstance(node, ir.Call) for node in ir.walk(event.value)):
            state = replace(state, ready=frame.loops + event.ctx.loops)
        yield state

    @property
    def fact_names(self) -> dict[str, frozenset[str]]:
        return {part.text: part.names for test in self.tests.values() for part in (test, *test.parts)}

    def follow(self, edge: ir.Edge, state: State, frame: Frame) -> State | None:
        """The state beyond an edge: a new turn, or an arm of a branch."""
        if edge.turn is not None:
            self.settle((suspect for suspect in state.suspects if suspect.turn is edge.turn), None)
            state = typestate.next_turn(state, edge.turn)
            return replace(state, facts=frozenset(fact for fact in state.facts if "(" not in fact[0] or fact[0].startswith("(")))
        if edge.cond is None:
            return state
        test = self.tests.get((edge, frame))
        if test is None:
            test = self.tests[edge, frame] = conditions.compile_test(edge.cond, lambda path: self.owners.canonical(path, frame))
        value = test.truth(state.facts)
        if value is not None:
            return state if value is edge.arm else None
        return self.assume(edge, test, state, frame)

    def assume(self, edge: ir.Edge, test: conditions.Test, state: State, frame: Frame) -> State:
        """Take an arm of an open condition; an arm that passes a clear by is trusted to know when."""
        if self.trusted(edge, test, state, frame):
            for owner in state.known():
                state = typestate.trust(state, owner)
        facts = frozenset(test.implied(edge.arm))
        if edge.cond is not None and not conditions.changes(edge.cond, edge.loops or frame.loops):
            self.seen.stable.update(text for text, _ in facts)
        return replace(state, facts=state.facts | facts)

    def trusted(self, edge: ir.Edge, test: conditions.Test, state: State, frame: Frame) -> bool:
        """Whether skipping the clears of the other arm is no proof that they are missing."""
        other = next((e for e in self.siblings(edge, frame.function) if e is not edge), None)
        if other is None or edge.cond is None:
            return False
        here, there = self.reachable(edge.target, frame.function), self.reachable(other.target, frame.function)
        if not any(isinstance(event, ir.Zero) or self._zeroes(event, frame) for event in there - here):
            return False
        if conditions.changes(edge.cond, edge.loops or frame.loops):
            used = [g.used for _, g in state.owners if g.used is not None]
            always = all(not any(conditions.window_like(c) for c, _, _ in step.ctx.conds) for step in used)
            return not (conditions.window_like(edge.cond) and always)
        related = any(fact != test.text and names & test.names for fact, names in self._facts(state))
        own = any(isinstance(event, (ir.Backward, ir.Step)) or self._trains(event, frame) for event in here - there)
        return related or not own

    def _facts(self, state: State) -> Iterator[tuple[str, frozenset[str]]]:
        known = self.fact_names
        return ((text, known.get(text, frozenset())) for text, _ in state.facts)

    def _zeroes(self, event: ir.Event, frame: Frame) -> bool:
        return "zero" in self._effects(event, frame)

    def _trains(self, event: ir.Event, frame: Frame) -> bool:
        return bool({"backward", "step"} & self._effects(event, frame))

    def _effects(self, event: ir.Event, frame: Frame) -> frozenset[str]:
        callee = self.bindings.callee(event.call, frame.function) if isinstance(event, ir.Invoke) else None
        return self.summaries.effects(callee) if callee else frozenset()

    def siblings(self, edge: ir.Edge, function: ir.Function) -> list[ir.Edge]:
        """The edges that leave the same block."""
        return next((block.edges for block in function.blocks if edge in block.edges), [])

    def reachable(self, block: ir.Block, function: ir.Function) -> frozenset[ir.Event]:
        """Events that can still happen in this turn."""
        key = (block, function)
        if key not in self.reach:
            found, pending, seen = set(block.events), [block], {block}
            while pending:
                for edge in pending.pop().edges:
                    if edge.turn is None and edge.target not in seen:
                        seen.add(edge.target)
                        pending.append(edge.target)
                        found.update(edge.target.events)
            self.reach[key] = frozenset(found)
        return self.reach[key]


HANDLERS = {
    ir.Backward: Explorer.backward, ir.Step: Explorer.step, ir.Zero: Explorer.zero, ir.Invoke: Explorer.invoke, ir.Bind: Explorer.bind,
}  # fmt: skip
