"""Which event a call is: backward, step, clearing of gradients, growth of a container, or just a call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths

if TYPE_CHECKING:
    from flake8_torchmem.analysis.lower.scope import Scope


def classify(call: ir.Call, scope: Scope) -> Iterator[ir.Event]:
    """The events of one call, at least one."""
    kind = METHODS.get(call.method)
    event = kind(call, scope) if kind else None
    if event is None and torchapi.CLEARS_BY_NAME.search(call.method):
        event = zero(call, scope)
    yield event or ir.Invoke(call.ctx, call.site, call)


def path_of(expr: ir.Expr | None) -> str | None:
    """The access path, `x[*]` when the last subscript is not constant."""
    if isinstance(expr, ir.Item):
        base = path_of(expr.base)
        return f"{base}[*]" if base else None
    if isinstance(expr, ir.Call) and isinstance(expr.func, ir.Name) and not expr.args:
        return f"{expr.func.path}()"
    return expr.path if isinstance(expr, ir.Name) else None


def backward(call: ir.Call, scope: Scope) -> ir.Event | None:
    """`loss.backward()`, `scaler.scale(loss).backward()`, `accelerator.backward(loss)`, `torch.autograd.backward([loss])`."""
    path = scope.resolve(call.path) if call.path else ""
    if path == "torch.autograd.backward":
        return ir.Backward(call.ctx, call.site, call, call.args[0]) if call.args else None
    receiver = call.receiver
    if receiver is None or "autograd" in path or path.startswith("super"):
        return None
    if call.args and not call.star:
        name = torchapi.last(path_of(receiver) or "")
        first = call.args[0]
        gradient = (isinstance(first, ir.Name) and "grad" in first.path) or (isinstance(first, ir.Call) and first.method.startswith("ones"))
        engine = torchapi.ENGINE_NAME.search(name) or torchapi.looks_like_optimizer(name) or torchapi.MODULE_NAME.match(name)
        if engine and not gradient:
            return ir.Backward(call.ctx, call.site, call, call.args[0], path_of(receiver))
        if any(n in ("ctx", "context_id") for n in ir.names(call.args[0])):
            return None
    return ir.Backward(call.ctx, call.site, call, scaled(receiver))


def scaled(expr: ir.Expr) -> ir.Expr:
    """What a `GradScaler.scale(...)` call is about."""
    return expr.args[0] if isinstance(expr, ir.Call) and expr.method == "scale" and expr.args else expr


def manual_backward(call: ir.Call, scope: Scope) -> ir.Event | None:
    """Lightning's `self.manual_backward(loss)`."""
    return ir.Backward(call.ctx, call.site, call, call.args[0], path_of(call.receiver)) if call.args else None


def step(call: ir.Call, scope: Scope) -> ir.Event | None:
    """`opt.step()`, `opt.step(closure)`, `scaler.step(opt)`; schedulers, profilers and environments are no owners."""
    owner = path_of(call.receiver)
    argument = path_of(call.args[0]) if call.args else None
    if owner is None or call.star or call.kwargs.keys() - {"closure", "opt", "optimizer", "grad_scaler"}:
        return None
    if argument and torchapi.looks_like_optimizer(argument):
        return ir.Step(call.ctx, call.site, argument, call)
    if torchapi.looks_like_scheduler(owner) and not torchapi.looks_like_optimizer(owner):
        return None
    if len(call.args) > 1 or (call.args and not torchapi.looks_like_optimizer(owner)):
        return None
    return ir.Step(call.ctx, call.site, owner, call, closure=bool(call.operands))


def optimizer_step(call: ir.Call, scope: Scope) -> ir.Event | None:
    """`xm.optimizer_step(opt)`, and the same of other engines."""
    owner = path_of(call.args[0]) if call.args else None
    return ir.Step(call.ctx, call.site, owner, call) if owner and torchapi.looks_like_optimizer(owner) else None


def own_step(call: ir.Call, scope: Scope) -> ir.Event | None:
    """The half steps of sharpness-aware optimizers, which clear on their own terms."""
    owner = path_of(call.receiver)
    return ir.Step(call.ctx, call.site, owner, call, closure=True) if owner else None


def zero(call: ir.Call, scope: Scope) -> ir.Event | None:
    """`owner.zero_grad()`, and calls that say so by name; whose they clear may not be visible."""
    owner = path_of(call.receiver) if call.method == "zero_grad" else None
    return ir.Zero(call.ctx, call.site, owner, call)


def inplace(call: ir.Call, scope: Scope) -> ir.Event | None:
    """`p.grad.zero_()` clears; `p.data.add_(p.grad, alpha=-lr)` steps; `total.add_(loss)` grows."""
    place = path_of(call.receiver)
    if place is None:
        return None
    if ".grad" in place or place == "grad":
        owner = place.partition(".grad")[0] if ".grad" in place else None
        return ir.Zero(call.ctx, call.site, owner, call) if call.method in ("zero_", "fill_", "detach_") else None
    if any(".grad" in path and paths.root(path) == paths.root(place) for arg in call.operands for path in ir.names(arg)):
        return ir.Step(call.ctx, call.site, ir.BY_HAND, call)
    if call.method == "add_" and call.args:
        scope.assign(place, ir.Op("+", (ir.Name(place), call.args[0])), "augment", call.site, call.args[0])
    return None


def grow(call: ir.Call, scope: Scope) -> ir.Event | None:
    """`xs.append(v)` and its kin."""
    place = container_of(call.receiver)
    if place is None or not call.args:
        return None
    kind = torchapi.GROWING_METHODS[call.method]
    return ir.Store(call.ctx, call.site, place, call.args[-1], kind)


def container_of(expr: ir.Expr | None) -> str | None:
    """The container that a growing method works on; `d[k].append` grows what hangs on `d`."""
    while isinstance(expr, (ir.Item, ir.Call)):
        expr = expr.base if isinstance(expr, ir.Item) else expr.receiver if expr.method in ("setdefault", "get") else None
    return expr.path if isinstance(expr, ir.Name) else None


def clear(call: ir.Call, scope: Scope) -> ir.Event | None:
    """`xs.clear()`."""
    place = path_of(call.receiver) if not call.operands else None
    return ir.Clear(call.ctx, call.site, place) if place else None


METHODS = {
    "backward": backward, "manual_backward": manual_backward, "step": step, "optimizer_step": optimizer_step,
    "first_step": own_step, "second_step": own_step, "zero_grad": zero, "zero_": inplace, "fill_": inplace, "detach_": inplace,
    "add_": inplace, "sub_": inplace, "addcdiv_": inplace, "append": grow, "extend": grow, "appendleft": grow, "insert": grow,
    "clear": clear,
}  # fmt: skip
