"""Whether autograd records: what `with` blocks, decorators and switches say about it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.ir import Grad


def of_expression(expr: ir.Expr, file: ir.File, values: Mapping[str, ir.Expr] = MappingProxyType({})) -> Grad | None:
    """The gradient mode that a context manager or decorator sets, None when it leaves it alone.

    Args:
        expr: the manager or decorator.
        file: that it is in.
        values: what plain names were last given, to see through `guard = torch.no_grad()`.
    """
    if isinstance(expr, ir.Name) and expr.path in values:
        return of_expression(values[expr.path], file)
    if isinstance(expr, ir.Call) and expr.path in values:
        return of_expression(values[expr.path or ""], file)
    if isinstance(expr, ir.Op) and expr.op == "if":
        modes = {of_expression(arm, file) for arm in expr.args[1:]}
        return None if modes == {None} else Grad.MAYBE
    path = expr.path if isinstance(expr, (ir.Name, ir.Call)) else None
    if path is None:
        return None
    full = torchapi.resolve(path, file.imports)
    if "no_grad" in file.own.kinds(full):
        return Grad.OFF
    name = torchapi.last(full)
    if name in torchapi.NO_GRAD:
        return _switched(expr, default=False)
    if name == "enable_grad":
        return Grad.ON
    if name == torchapi.GRAD_SWITCH:
        return _switched(expr, default=None)
    return Grad.MAYBE if torchapi.NO_GRAD_LIKE.search(name) else None


def _switched(expr: ir.Expr, default: bool | None) -> Grad:
    """The mode by a boolean argument: `set_grad_enabled(False)`, `inference_mode(True)`."""
    args = expr.operands if isinstance(expr, ir.Call) else ()
    if not args:
        return Grad.OFF if default is False else Grad.MAYBE
    if not isinstance(args[0], ir.Const):
        return Grad.MAYBE
    enabled = bool(args[0].value)
    # inference_mode(True) switches gradients off, set_grad_enabled(True) switches them on.
    return Grad.ON if enabled is (default is None) else Grad.OFF


def of_function(function: ir.Function, file: ir.File, inherited: Grad, values: Mapping[str, ir.Expr]) -> Grad:
    """The gradient mode at a function's entry."""
    for decorator in function.decorators:
        mode = of_expression(decorator, file, values)
        if mode is not None:
            return mode
    cls = function.owner
    if cls and function.name in torchapi.ENGINE_GUARDED:
        return Grad.MAYBE
    if cls and function.name == "forward" and any(base.endswith("Function") for base in cls.bases):
        return Grad.OFF
    return Grad.ON if inherited is Grad.ON else Grad.MAYBE


def of_statement(call: ir.Call, file: ir.File, values: Mapping[str, ir.Expr]) -> Grad | None:
    """The mode from here on after `torch.set_grad_enabled(False)` as a statement."""
    if call.method in ("__enter__", "enter_context"):
        managers = (*call.args, *((call.receiver,) if call.receiver is not None else ()))
        return Grad.MAYBE if any(of_expression(manager, file, values) for manager in managers) else None
    path = call.path
    if path is None or torchapi.last(torchapi.resolve(path, file.imports)) != torchapi.GRAD_SWITCH:
        return None
    mode = _switched(call, default=None)
    return Grad.MAYBE if call.ctx.conds else mode
