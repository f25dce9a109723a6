"""What mends a defect, in terms of places and names: rules say it, `fixes` makes edits of it. Plain frozen data.

A rule names places as the sites that it reports; the engine turns them into spans of the checked file, in which form they
reach whoever edits. Code is written with full names (`torch.no_grad()`): the edit spells them as the file's imports do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Union

from flake8_torchmem.model import Safety, Span

if TYPE_CHECKING:
    from flake8_torchmem.analysis.ir import Site

Place = Union["Site", Span]


class Role(Enum):
    """Which expression at a place is meant.

    WHOLE: what stands there. VALUE: the right side of an assignment (of `x = x + y` the part that is not `x`), or what is
    returned. ARGUMENT: the last positional argument of a call. LOSS: what a backward back-propagates, behind any scaler.
    TEST: the condition of an `if`, or what a name for it is bound to. DIVISOR: what the only division there divides by.
    """

    WHOLE = "whole"
    VALUE = "value"
    ARGUMENT = "argument"
    LOSS = "loss"
    TEST = "test"
    DIVISOR = "divisor"


@dataclass(frozen=True)
class Insert:
    """New statements, in the block of the anchor, before or after it. `code` may have lines; it is indented as the anchor is.

    `beside`: the anchor is what stands around it in the innermost block that holds this place as well.
    """

    code: str
    anchor: Place
    after: bool = False
    beside: Place | None = None


@dataclass(frozen=True)
class Move:
    """A statement goes to the block of the anchor, before or after it.

    `beside`: as for `Insert`. `whole`: with the branches and blocks around it that hold nothing else. `keep`: a copy goes.
    """

    statement: Place
    anchor: Place
    after: bool = True
    beside: Place | None = None
    whole: bool = False
    keep: bool = False


@dataclass(frozen=True)
class Remove:
    """A statement goes, and with it an `else` that had nothing else.

    `unasked`: so does an `if` or `elif` that had nothing else; asking its test has no effect.
    """

    statement: Place
    unasked: bool = False


@dataclass(frozen=True)
class Rewrite:
    """An expression is written anew: `{}` in the template stands for what was there.

    `path`: only this access path in it (`d['loss']`), wherever it is read, where the expression has other parts as well. A path that
    begins with a bracket (`['loss'][0]`) is the way to an entry of the display that the expression is.
    """

    place: Place
    role: Role
    template: str
    path: str = ""


@dataclass(frozen=True)
class SetArgument:
    """A call gets a keyword argument, or another value for it."""

    call: Place
    name: str
    value: str


@dataclass(frozen=True)
class DropArgument:
    """A call loses an argument: the keyword, or what stands at this position (from 0)."""

    call: Place
    name: str
    position: int | None = None


@dataclass(frozen=True)
class Guard:
    """Statements of one block, from the first to the last, go into a `with`."""

    manager: str
    first: Place
    last: Place


@dataclass(frozen=True)
class Decorate:
    """A function gets a decorator, next to its `def`."""

    decorator: str
    function: Place


@dataclass(frozen=True)
class MakeThere:
    """`torch.zeros(3).to(device)`: what the inner call makes on the host, it makes on the device; the transfer goes."""

    transfer: Place
    factory: Place


@dataclass(frozen=True)
class LeaveHandler:
    """What follows in an `except` block, from this statement on, runs after the `try`, under a flag where others get there too."""

    first: Place


Action = Insert | Move | Remove | Rewrite | SetArgument | DropArgument | Guard | Decorate | MakeThere | LeaveHandler


@dataclass(frozen=True)
class Remedy:
    """What mends one defect.

    Attributes:
        actions: made together or not at all.
        safety: where this one is less safe than its rule's fixes are; None as the rule says.
        doubt: a pattern; where the file has it in parts that were not analysed, the remedy is UNSAFE.
    """

    actions: tuple[Action, ...]
    safety: Safety | None = None
    doubt: str = ""


@dataclass(frozen=True)
class NoRemedy:
    """Why a defect cannot be mended by an edit, one clause: `the step is in another function`."""

    reason: str


def remedy(*actions: Action, safety: Safety | None = None, doubt: str = "") -> Remedy:
    """A remedy of these actions."""
    return Remedy(actions, safety, doubt)


def placed(found: Remedy, locate: Callable[[Site], Span | None], unread: Callable[[str], bool]) -> Remedy | NoRemedy:
    """The remedy with spans for sites, its doubts settled.

    Args:
        found: as a rule gives it.
        locate: finds a site in the checked file; None if it is not there.
        unread: whether a pattern is in parts of the file that were not analysed.
    """
    actions: list[Action] = []
    for action in found.actions:
        spans: dict[str, Span] = {}
        for field in fields(action):
            value = getattr(action, field.name)
            if isinstance(value, (str, bool, int, Role)) or value is None:
                continue
            span = value if isinstance(value, Span) else None if value.file.linked else locate(value)
            if span is None:
                return NoRemedy("a part of it is in another file")
            spans[field.name] = span
        actions.append(replace(action, **spans))  # type: ignore[arg-type]
    safety = Safety.UNSAFE if found.doubt and unread(found.doubt) else found.safety
    return replace(found, actions=tuple(actions), safety=safety)
