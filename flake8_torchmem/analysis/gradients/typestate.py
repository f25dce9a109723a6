"""Gradient typestate: what the gradients of each optimizer hold, on one path.

Per owner: which backwards have been added since the last clear (`full`), whether a step has already used what is there
(`used`), and what the last clear threw away (`cleared`). One backward may feed several owners: it counts for an owner
once a step of that owner claims it.
"""

from __future__ import annotations

from typing import NamedTuple

from flake8_torchmem.analysis.ir import Backward, Bind, Loop, Step, Zero

# Owners that have not been met yet share this entry.
OTHERS = "*"


class Gradients(NamedTuple):
    """One owner's gradients.

    Attributes:
        full: backwards whose gradients are there and no step has used.
        turns: loops, outermost first, in whose current turn the newest of them ran.
        used: the step that has used gradients which are still there.
        empty: the clear after which nothing was added.
        wasted: backwards whose gradients `empty` threw away, unused.
        wasted_turns: as `turns`, for those.
    """

    full: frozenset[Backward] = frozenset()
    turns: tuple[Loop, ...] = ()
    used: Step | None = None
    empty: Zero | None = None
    wasted: frozenset[Backward] = frozenset()
    wasted_turns: tuple[Loop, ...] = ()


UNKNOWN = Gradients()


class Suspect(NamedTuple):
    """A step that found nothing fresh to use: `lost` when a loss of this turn, `loss`, was waiting to be back-propagated."""

    step: Step
    owner: str
    turn: Loop
    lost: bool
    facts: frozenset[tuple[str, bool]]
    loss: Bind | None = None


class State(NamedTuple):
    """Everything that is known on one path.

    Attributes:
        owners: gradients by owner path, `OTHERS` for owners not met yet.
        facts: conditions taken, by text.
        dirty: backwards since the last step, each with the owners whose gradients a step had used before it.
        pending: backwards since the last step; those, and no older ones, are what a step was meant to use.
        claimed: a step has used `pending` already: the next backward starts anew.
        ready: loops in whose current turn a loss was computed and not yet back-propagated.
        loss: where that loss, or the last one, was computed.
        suspects: steps whose fault shows only when the turn goes on.
    """

    owners: tuple[tuple[str, Gradients], ...] = ((OTHERS, UNKNOWN),)
    facts: frozenset[tuple[str, bool]] = frozenset()
    dirty: frozenset[tuple[Backward, str, Step]] = frozenset()
    pending: frozenset[Backward] = frozenset()
    claimed: bool = False
    ready: tuple[Loop, ...] = ()
    loss: Bind | None = None
    suspects: frozenset[Suspect] = frozenset()

    def of(self, owner: str) -> Gradients:
        """The gradients of one owner; of its group, if that has been met, and the owner itself has not."""
        found = dict(self.owners)
        group = f"{owner.rpartition('.')[0]}[*]"
        return found.get(owner) or found.get(group) or found[OTHERS]

    def known(self) -> tuple[str, ...]:
        """All owners, `OTHERS` included."""
        return tuple(owner for owner, _ in self.owners)

    def having(self, owner: str, gradients: Gradients) -> State:
        """With the gradients of one owner replaced."""
        found = dict(self.owners)
        if found.get(owner) == gradients:
            return self
        found[owner] = gradients
        return State(tuple(sorted(found.items(), key=lambda item: item[0])), *self[1:])


def backward(state: State, event: Backward, loops: tuple[Loop, ...]) -> State:
    """Gradients are added for every owner: whose they are is known at the steps."""
    dirty = frozenset() if state.claimed else state.dirty
    dirty |= {(event, owner, gradients.used) for owner, gradients in state.owners if gradients.used is not None}
    owners = tuple(
        (owner, gradients._replace(full=gradients.full | {event}, turns=loops, empty=None, wasted=frozenset(), wasted_turns=()))
        for owner, gradients in state.owners
    )
    pending = (frozenset() if state.claimed else state.pending) | {event}
    return state._replace(owners=owners, dirty=dirty, pending=pending, claimed=False, ready=())


def step(state: State, owner: str, event: Step) -> State:
    """The gradients stay where they are, used."""
    known = state.having(owner, Gradients(used=event))
    return known._replace(claimed=True)


def zero(state: State, owner: str, event: Zero) -> State:
    """Nothing is left; what was not used is remembered as wasted."""
    old = state.of(owner)
    wasted, turns = (old.full, old.turns) if old.full else (old.wasted, old.wasted_turns)
    return state.having(owner, Gradients(empty=event, wasted=wasted, wasted_turns=turns))


def forget(state: State, owner: str) -> State:
    """Something unknown had these gradients in hand."""
    return state.having(owner, UNKNOWN)


def forget_all(state: State) -> State:
    """Something unknown had all gradients in hand."""
    return State(tuple([(owner, UNKNOWN) for owner, _ in state.owners]), *state[1:])


def trust(state: State, owner: str) -> State:
    """The gradients may have been cleared on the way: no claim that they were used before."""
    old = state.of(owner)
    return state.having(owner, old._replace(used=None)) if old.used else state


def next_turn(state: State, loop: Loop) -> State:
    """A loop starts over: what happened in its last turn is not of this turn."""
    owners = tuple([(owner, _begun(gradients, loop)) for owner, gradients in state.owners])
    return state._replace(owners=owners, ready=before(state.ready, loop))


def _begun(gradients: Gradients, loop: Loop) -> Gradients:
    if loop not in gradients.turns and loop not in gradients.wasted_turns:
        return gradients
    return gradients._replace(turns=before(gradients.turns, loop), wasted_turns=before(gradients.wasted_turns, loop))


def before(turns: tuple[Loop, ...], loop: Loop) -> tuple[Loop, ...]:
    """The loops around `loop`."""
    return turns[: turns.index(loop)] if loop in turns else turns
