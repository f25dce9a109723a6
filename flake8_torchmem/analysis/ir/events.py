"""Events: what happens in a function, in evaluation order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from flake8_torchmem.analysis.ir.expressions import Call, Context, Expr, Site, names

BY_HAND = "<by hand>"  # the owner of a step that is written out: `p.data -= lr * p.grad`


@dataclass(eq=False, slots=True)
class Event:
    """Something that happens; `site` is what to report."""

    ctx: Context
    site: Site


@dataclass(eq=False, slots=True)
class Bind(Event):
    """A place gets a new value. `delta` is what `+=` adds; `kind`: assign, augment, target (of a loop), with, delete."""

    place: str
    value: Expr
    kind: str = "assign"
    delta: Expr | None = None


@dataclass(eq=False, slots=True)
class Store(Event):
    """A value goes into a container that stays what it is. `kind`: append, extend, setitem, augment."""

    place: str
    value: Expr
    kind: str
    key: Expr | None = None


@dataclass(eq=False, slots=True)
class Clear(Event):
    """A container is emptied."""

    place: str


@dataclass(eq=False, slots=True)
class Invoke(Event):
    """A call that is none of the events below."""

    call: Call


@dataclass(eq=False, slots=True)
class Backward(Event):
    """Gradients of `value` are added into the leaves. `engine` is the wrapper that does it, if any (`accelerator`)."""

    call: Call
    value: Expr
    engine: str | None = None


@dataclass(eq=False, slots=True)
class Step(Event):
    """The owner's parameters move by their gradients. `closure`: the step evaluates its own loss."""

    owner: str
    call: Call | None
    closure: bool = False


@dataclass(eq=False, slots=True)
class Zero(Event):
    """The owner's gradients are cleared; None when whose is not visible. `written`: set by hand, to who knows what."""

    owner: str | None
    call: Call | None
    written: bool = False


@dataclass(eq=False, slots=True)
class Return(Event):
    """A value leaves the function; `kind`: return or yield."""

    value: Expr
    kind: str = "return"


def reads(event: Event) -> Iterator[str]:
    """Every access path that an event reads."""
    if isinstance(event, (Bind, Store, Return)):
        yield from names(event.value)
    elif isinstance(event, (Invoke, Backward, Step, Zero)) and event.call is not None:
        yield from names(event.call)
