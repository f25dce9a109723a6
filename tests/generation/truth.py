"""What is wrong with a training program by the record of its runs: codes with lines, decided from gradients alone.

For every step: the micro-batches since the owner's last step are what it should use, each once and none older.

    TM101  it uses a micro-batch again that a step has used: reported at the backwards that added to it
    TM102  it uses nothing, because a clear threw this turn's gradients away: reported at the clear
    TM103  it uses nothing of this turn, whose backward comes after it: reported at the step
    TM104  it uses nothing of this turn, whose loss is never back-propagated: reported at the step
    TM105  it uses its last micro-batch only, because a clear threw the ones before away: reported at the clear

A turn is a batch of the loader. Steps that come first in their turn and use all of the last turn's gradients are late, and right.
TM101 and TM105 need one step to show; the others must be so for all steps of one line in one of the runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tests.generation.symbolic import Event, Share

Finding = tuple[int, str]
ALWAYS = frozenset({"TM102", "TM103", "TM104"})


@dataclass(frozen=True)
class Judgement:
    """What one step was found to be: `good`, or a code, and where that is reported."""

    step: int
    code: str
    lines: frozenset[int]


def truth(runs: Iterable[list[Event]]) -> set[Finding]:
    """All that is to be reported.

    Args:
        runs: one record per setting of the conditions that do not change while a program runs.
    """
    return {finding for run in runs for finding in _of_run(run)}


def _of_run(events: list[Event]) -> Iterator[Finding]:
    found: dict[int, list[Judgement]] = {}
    for index, event in enumerate(events):
        if event.kind == "step":
            for judgement in _judge(events, index):
                found.setdefault(event.line, []).append(judgement)
    for judgements in found.values():
        for judgement in judgements:
            if judgement.code not in ALWAYS:
                rest: list[Judgement] = []
            else:
                excused = {judgement.code, "TM101", "TM105"} | ({"TM104"} if judgement.code != "TM104" else set())
                rest = [other for other in judgements if other.code not in excused]
            if judgement.code != "good" and not rest:
                yield from ((line, judgement.code) for line in judgement.lines)


def _judge(events: list[Event], index: int) -> Iterator[Judgement]:
    step = events[index]
    held = [share for shares in step.shares.values() for share in shares]
    fresh = [share for share in held if not share.used]
    meant = _meant(events, index)
    if len(fresh) < len(held) and fresh:
        yield Judgement(step.line, "TM101", frozenset(share.backward.line for share in fresh if share.backward in meant))
    last = max((share.backward for share in fresh), key=events.index, default=None)
    since = _since_last_step(events, index, step.parameters)
    since_any = _since_last_step(events, index)
    wiped = [(event, share) for event in since if event.kind == "zero" for share in _unused(event, step)]
    lines = {share.backward.line for share in fresh}
    # A clear before another loss is on purpose, one per epoch cuts a window short.
    parted = [event.line for event, share in wiped if share.backward.line in lines and _every_turn(events, event)]
    if parted and all(share.backward is last for share in fresh):
        yield Judgement(step.line, "TM105", frozenset(parted[-1:]))
    pending = [event for event in events[:index] if event.kind == "loss" and event.turn == step.turn and event.parameters & step.parameters]
    done = {loss for event in events[:index] if event.kind == "backward" for loss in event.losses}
    later = _later_backwards(events, index)
    ready = any(not event.losses <= done for event in pending)
    if ready and any(event.turn == step.turn for event in since_any if event.kind == "loss"):
        meant = set()  # for a loss that was computed after the last step of all
    if any(share.backward in meant and share.backward.turn == step.turn for share in fresh) or (fresh and not ready):
        yield Judgement(step.line, "good", frozenset())
    elif any(share.backward in meant and share.backward.turn == step.turn for _, share in wiped):
        yield Judgement(step.line, "TM102", frozenset({wiped[-1][0].line}))
    elif ready and not later:
        yield Judgement(step.line, "TM104", frozenset({step.line}))
    elif later and (ready or wiped):
        yield Judgement(step.line, "TM103", frozenset({step.line}))


def _meant(events: list[Event], index: int) -> set[Event]:
    """The backwards that the step was meant to use: those right before it and the steps next to it."""
    before = events[:index]
    while before and before[-1].kind != "backward":
        before.pop()
    start = max((at for at, event in enumerate(before) if event.kind == "step"), default=-1)
    return {event for event in before[start + 1 :] if event.kind == "backward"}


def _since_last_step(events: list[Event], index: int, parameters: frozenset[str] | None = None) -> list[Event]:
    """What happened after the last step, of these parameters or of any."""
    steps = (at for at in range(index) if events[at].kind == "step" and (parameters is None or events[at].parameters & parameters))
    start = max(steps, default=-1)
    return events[start + 1 : index]


def _every_turn(events: list[Event], zero: Event) -> bool:
    """Whether a clear runs about as often as backwards do."""
    clears = sum(event.kind == "zero" and event.line == zero.line for event in events)
    return clears * 2 >= sum(event.kind == "backward" for event in events)


def _unused(zero: Event, step: Event) -> Iterator[Share]:
    """What a clear threw away of a step's parameters, of its own object, before any step had used it."""
    for name in zero.parameters & step.parameters:
        yield from (share for share in zero.shares[name] if not share.used)


def _later_backwards(events: list[Event], index: int) -> list[Event]:
    """The backwards for the same parameters in the rest of the turn."""
    step = events[index]
    rest = (event for event in events[index + 1 :] if event.turn == step.turn)
    return [event for event in rest if event.kind == "backward" and event.parameters & step.parameters]
