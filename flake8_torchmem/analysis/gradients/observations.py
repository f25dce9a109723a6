"""What the walk through the gradient typestate saw, and what of it is a defect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from flake8_torchmem.analysis import conditions, ir
from flake8_torchmem.analysis.gradients.owners import Frame

ORDER_DEFECTS = ("TM102", "TM103", "TM104")


class Verdict(NamedTuple):
    """What one step found on one path: `good`, or the code of the defect, with the event that caused it."""

    code: str
    facts: conditions.Facts
    cause: ir.Event | None = None


class Wipe(NamedTuple):
    """A clear of gradients that no step had used, in the loop of the backward that added them; `frame`: where it happened."""

    zero: ir.Zero
    frame: Frame
    backward: ir.Backward
    owner: str


@dataclass(eq=False)
class Observations:
    """What was seen on all paths from one function.

    Attributes:
        function: where the paths start.
        stale: backwards that add to gradients which the step has used.
        wiped: clears of what a later step should have used.
        steps: per step and owner, what each path found.
        claims: which owners a backward has fed.
        fed: per step and owner, the backwards that were added together for it.
        stable: texts of conditions that cannot change between turns.
        frames: the call in which an event was met first.
    """

    function: ir.Function
    stale: set[tuple[ir.Backward, str, ir.Step]] = field(default_factory=set)
    wiped: set[Wipe] = field(default_factory=set)
    steps: dict[tuple[ir.Step, str], set[Verdict]] = field(default_factory=dict)
    claims: dict[ir.Backward, set[str]] = field(default_factory=dict)
    fed: dict[tuple[ir.Step, str], set[frozenset[ir.Backward]]] = field(default_factory=dict)
    stable: set[str] = field(default_factory=set)
    frames: dict[ir.Event, Frame] = field(default_factory=dict)

    @property
    def entries(self) -> dict[ir.Event, ir.Call]:
        """For events of linked files, the call in the checked file that led there."""
        return {event: frame.entry for event, frame in self.frames.items() if frame.entry is not None}

    # Paths are explored in no particular order: what is reported must not depend on it.

    @property
    def stale_in_order(self) -> list[tuple[ir.Backward, str, ir.Step]]:
        """The stale backwards as they stand in the file."""
        return sorted(self.stale, key=lambda found: (number_of(found[0]), number_of(found[2])))

    @property
    def wiped_in_order(self) -> list[Wipe]:
        """The clears as they stand in the file."""
        return sorted(self.wiped, key=lambda wipe: (number_of(wipe.zero), number_of(wipe.backward)))

    @property
    def steps_in_order(self) -> list[tuple[ir.Step, str]]:
        """The steps as they stand in the file."""
        return sorted(self.steps, key=lambda key: (number_of(key[0]), key[1]))

    def context(self, event: ir.Event) -> ir.Context:
        """The loops and conditions around an event, those around the calls that lead to it included."""
        return self.frames[event].around(event.ctx)

    def functions(self, event: ir.Event) -> tuple[ir.Function, ...]:
        """Those that were being executed when an event was met, outermost first."""
        frame = self.frames[event]
        return (*frame.stack, frame.function)

    def deciding(self, event: ir.Event, loop: ir.Loop | None = None) -> Iterator[tuple[ir.Expr, bool]]:
        """Conditions, inside of the loop, that say whether an event happens: around it, or cutting its turn short before."""
        context, frame = self.context(event), self.frames[event]
        yield from context.conds_inside(loop)
        yield from ((cond, False) for around in context.loops for cond in around.skips if loop in (None, *enclosing(around)))
        for function in (*frame.stack[1:], frame.function):
            leaving = (other.ctx.conds for other in function.events() if isinstance(other, ir.Return))
            yield from ((cond, not arm) for conds in leaving for cond, arm, _ in conds)

    def without(self, other: Observations) -> None:
        """Forget what can be seen in a linked function alone: that is its own file's affair."""
        self.stale = {found for found in self.stale if found[0] not in {seen[0] for seen in other.stale}}
        self.wiped = {
            found for found in self.wiped if (found.zero, found.backward) not in {(seen.zero, seen.backward) for seen in other.wiped}
        }
        wrong = {step for code in ORDER_DEFECTS for step, _ in other.defects(code)}
        self.steps = {key: verdicts for key, verdicts in self.steps.items() if key[0] not in wrong}

    def defects(self, code: str) -> Iterator[tuple[ir.Step, Verdict]]:
        """Steps that are wrong in this way on every path, or on every path under one unchanging condition."""
        for step, owner in self.steps_in_order:
            verdicts = self.steps[step, owner]
            ordered = sorted(verdicts, key=lambda verdict: number_of(verdict.cause))
            wrong = [verdict for verdict in ordered if verdict.code == code and self._fed(verdict, owner)]
            # A path that drops its loss is no proof that the others are right.
            everywhere = all(verdict in wrong or verdict.code == "TM104" for verdict in verdicts)
            if wrong and (everywhere or self._wrong_arm(wrong, verdicts)):
                yield step, wrong[0]

    def _wrong_arm(self, wrong: list[Verdict], verdicts: set[Verdict]) -> bool:
        # A backward under a switch of the user's own is an option; an arm that computes its own loss is not.
        own = wrong[0].code != "TM104"
        facts = {fact for verdict in wrong for fact in verdict.facts if fact[0].startswith("loss#") or (own and fact[0] in self.stable)}
        return any(all(verdict in wrong for verdict in verdicts if fact in verdict.facts) for fact in facts)

    def _fed(self, verdict: Verdict, owner: str) -> bool:
        """Whether the backward in question can be this owner's: no other owner alone has claimed it."""
        cause = verdict.cause
        return not isinstance(cause, ir.Backward) or owner in self.claims.get(cause, {owner})


def number_of(event: ir.Event | None) -> int:
    """Where an event stands in its file."""
    return event.site.mark.number if event is not None else -1


def enclosing(loop: ir.Loop) -> Iterator[ir.Loop]:
    """The loop and the loops around it, innermost first."""
    current: ir.Loop | None = loop
    while current is not None:
        yield current
        current = current.parent
