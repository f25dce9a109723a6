"""Which device an expression names, and which calls put tensors on one."""

from __future__ import annotations

import re
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.origins import MAX_STEPS, Origin, followed, origins, returned
from flake8_torchmem.analysis.reaching import in_order
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

DEVICE_NAME = Words(r"device|^dev$|^gpu|_gpu$|cuda|^(?:local_)?rank$", re.I)
CUDA_TENSOR = Words(r"^torch\.cuda\.\w*Tensor$")
KEEPS_PLACE = (
    torchapi.TENSOR_METHODS
    | torchapi.DETACHING_METHODS
    | {"double", "bfloat16", "type", "requires_grad_", "pin_memory", "fill_", "sub_", "div_"}
)
FACTORIES = frozenset("zeros ones empty full arange linspace logspace eye".split())
RANDOM = frozenset("rand randn randint randperm normal".split())
SAYS_WHERE = frozenset("device pin_memory generator out".split())
TRANSFER_HELPER = Words(r"^(?:to_device|move_to(?:_\w+)?|to_gpu|to_cuda|send_to(?:_\w+)?|batch_to|move_data(?:_\w+)?|put_on_\w+|cuda)$")


class Device(Enum):
    """CUDA where there is any; HOST: the CPU, or nothing that CUDA's rules hold for; UNKNOWN without evidence."""

    CUDA = "cuda"
    HOST = "host"
    UNKNOWN = "unknown"


def device_of(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> Device:
    """The device that an expression names. A choice by `torch.cuda.is_available()` alone is CUDA: it is where there is one."""
    found = set()
    for origin in followed(expr, function, partial(_stands_for, facts)):
        found.add(_literal(origin.value))
        if len(found) > 1 or Device.UNKNOWN in found:
            return Device.UNKNOWN
    return found.pop() if found else Device.UNKNOWN


def _stands_for(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> list[Origin]:
    if isinstance(expr, ir.Name):
        return origins(facts, expr.path, function)
    if isinstance(expr, ir.Op) and expr.op == "if":
        checked = is_device_check(facts, expr.args[0], function)
        return [Origin(arm, function) for arm in (expr.args[1:2] if checked else expr.args[1:])]
    if isinstance(expr, ir.Call):
        if facts.evidence.resolve(expr.path or "", function) == "torch.device" and expr.operands:
            return [Origin(expr.operands[0], function)]
        return list(returned(facts, expr, function))
    return []


def _literal(expr: ir.Expr) -> Device:
    if isinstance(expr, ir.Op) and expr.op in ("format", "+", "%"):
        expr = expr.args[0]  # f"cuda:{rank}"
    value = expr.value if isinstance(expr, ir.Const) else None
    if isinstance(value, str):
        return Device.CUDA if value.startswith("cuda") else Device.HOST
    return Device.CUDA if isinstance(value, int) and not isinstance(value, bool) else Device.UNKNOWN


def is_device_check(facts: FileFacts, cond: ir.Expr, function: ir.Function) -> bool:
    """`torch.cuda.is_available()`, also under a name."""
    if isinstance(cond, ir.Name):
        found = origins(facts, cond.path, function)
        return bool(found) and all(isinstance(o.value, ir.Call) and is_device_check(facts, o.value, o.function) for o in found)
    return isinstance(cond, ir.Call) and facts.evidence.resolve(cond.path or "", function) == "torch.cuda.is_available"


def destination(call: ir.Call) -> ir.Expr | None:
    """What `x.to(...)` is told, dtypes included; None for other calls."""
    if call.method != "to" or call.receiver is None or call.star:
        return None
    return call.kwargs.get("device") or (call.args[0] if call.args else None)


def makes_cuda_tensor(facts: FileFacts, call: ir.Call, function: ir.Function) -> bool:
    """Whether a call puts a tensor or module on a CUDA device for sure."""
    full = facts.evidence.resolve(call.path or "", function)
    if call.method == "cuda" and call.receiver is not None:
        return not full.startswith("torch.")
    place = destination(call)
    if place is None and full.startswith("torch.") and full != "torch.device":
        place = call.kwargs.get("device") or call.kwargs.get("map_location")
        if place is None:
            return bool(CUDA_TENSOR.match(full))
    return place is not None and device_of(facts, place, function) is Device.CUDA


def is_transfer(facts: FileFacts, call: ir.Call, function: ir.Function) -> bool:
    """Whether a call moves a tensor to something that is called a device and is not known to be the host."""
    if call.method == "cuda":
        return call.receiver is not None
    place = destination(call)
    return place is not None and names_device(facts, place, function)


def names_device(facts: FileFacts, place: ir.Expr, function: ir.Function) -> bool:
    """Whether an expression is a device, by value or by name, and is not known to be the host."""
    known = device_of(facts, place, function)
    if known is not Device.UNKNOWN:
        return known is Device.CUDA
    if isinstance(place, ir.Attr):
        return bool(DEVICE_NAME.search(place.name))
    return isinstance(place, (ir.Name, ir.Call)) and bool(DEVICE_NAME.search(torchapi.last(place.path or "")))


def put_on_device(facts: FileFacts, expr: ir.Expr, function: ir.Function, event: ir.Event, steps: int = 0) -> ir.Call | None:
    """The call that put the value of an expression on a CUDA device for sure, through methods that leave it there."""
    if isinstance(expr, ir.Call):
        if makes_cuda_tensor(facts, expr, function):
            return expr
        kept = expr.method in KEEPS_PLACE and destination(expr) is None and expr.method != "cpu" and expr.receiver is not None
        return put_on_device(facts, expr.receiver, function, event, steps) if kept and expr.receiver else None
    if not isinstance(expr, ir.Name) or steps > MAX_STEPS:
        return None
    binds = facts.evidence.reaching(function).at.get(event, {}).get(expr.path, frozenset())
    calls = [put_on_device(facts, bind.value, function, bind, steps + 1) if not bind.ctx.conds else None for bind in in_order(binds)]
    return calls[0] if calls and all(calls) else None


def made_by_factory(facts: FileFacts, call: ir.Call, function: ir.Function) -> ir.Call | None:
    """The factory function that makes, on the host, what a call moves: one that could be told where to make it."""
    made = call.receiver
    while isinstance(made, ir.Call):
        full = facts.evidence.resolve(made.path or "", function)
        if full.startswith("torch.") and full.count(".") == 1 and torchapi.last(full) in FACTORIES | RANDOM:
            return made if not made.star and made.kwargs.keys().isdisjoint(SAYS_WHERE) else None
        wrapped = full.endswith("autograd.Variable") and made.args
        made = made.args[0] if wrapped else made.receiver if made.method in KEEPS_PLACE and destination(made) is None else None
    return None
