"""A project's own names for what PyTorch does: the events of their calls, and the calls that they are read as."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower.calls import path_of
from flake8_torchmem.words import SPELLINGS

if TYPE_CHECKING:
    from flake8_torchmem.analysis.lower.scope import Scope

# In this order, as a call that does several of these does them.
KINDS = ("backward", "step", "zero_grad", "detach", "to_host")


def read(call: ir.Call, scope: Scope) -> tuple[ir.Call, list[ir.Event]] | None:
    """What a call of an own name is read as, and its events; None for other calls, and where it is not seen whom it is about.

    Args:
        call: as it is written.
        scope: where it stands.
    """
    own = scope.fn.file.own
    if not own:
        return None
    kinds = own.kinds(scope.resolve(call.path) if call.path else call.method)
    about = [(kind, subject) for kind in KINDS if kind in kinds and (subject := _subject(kind, call)) is not None]
    found = [(_spelled(SPELLINGS[kind], subject, call), kind, subject) for kind, subject in about]
    events = [event for spelled, kind, subject in found for event in _event(spelled, kind, subject)]
    return (found[-1][0], events) if events else None


def _event(call: ir.Call, kind: str, subject: ir.Expr) -> Iterator[ir.Event]:
    owner = path_of(subject)
    if kind == "backward":
        yield ir.Backward(call.ctx, call.site, call, subject)
    elif kind == "zero_grad":
        yield ir.Zero(call.ctx, call.site, owner, call)
    elif kind != "step":
        yield ir.Invoke(call.ctx, call.site, call)
    elif owner is not None:
        yield ir.Step(call.ctx, call.site, owner, call)


def _subject(kind: str, call: ir.Call) -> ir.Expr | None:
    """What a call is about: the argument that is named as such a thing, else the first one, else what it is a method of."""
    named = NAMED[kind]
    for operand in call.operands:
        path = path_of(operand)
        if path is not None and named(path):
            return operand
    return call.operands[0] if call.operands else call.receiver


def _spelled(method: str, subject: ir.Expr, call: ir.Call) -> ir.Call:
    """The call as a method of its subject. What else it is given stays in sight, by keyword: PyTorch's methods take none of it."""
    func = ir.Name(f"{subject.path}.{method}") if isinstance(subject, ir.Name) else ir.Attr(subject, method)
    positional = {f"argument {number}": value for number, value in enumerate(call.args, 1)}
    kwargs = {name: value for name, value in {**positional, **call.kwargs}.items() if value is not subject}
    return ir.Call(func, (), kwargs, call.star, call.ctx, call.site)


def _anything(path: str) -> bool:
    return False


def _is_loss(path: str) -> bool:
    return bool(torchapi.LOSS_NAME.search(torchapi.last(path)))


NAMED: dict[str, Callable[[str], bool]] = {
    "backward": _is_loss,
    "step": torchapi.looks_like_optimizer,
    "zero_grad": torchapi.looks_like_optimizer,
    "detach": _anything,
    "to_host": _anything,
}
