"""How kept weights become a copy: around the `state_dict()` that shares them, or in place of a shallow copy."""

from __future__ import annotations

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.retention.snapshots import SHALLOW, Held, passes_on
from flake8_torchmem.model import Safety
from flake8_torchmem.remedies import NoRemedy, Remedy, Rewrite, Role, remedy

DEEP = "copy.deepcopy({})"


def copied(held: Held, goes_on: bool) -> Remedy | NoRemedy:
    """The remedy for a snapshot that is none.

    Args:
        held: what is kept.
        goes_on: training goes on from the weights once they are loaded back, so a copy changes it.
    """
    origin = held.origin
    if isinstance(origin.value, ir.Name):
        if origin.site.extent is not None:
            return remedy(Rewrite(origin.site, Role.ARGUMENT, DEEP), safety=Safety.UNSAFE)
        return remedy(Rewrite(origin.site, Role.VALUE, DEEP, origin.value.path), safety=Safety.UNSAFE)
    actions = [_around(call, origin.value) for call in _taken(origin.value)]
    if not actions:
        return NoRemedy("where the weights are taken is not in sight")
    return remedy(*actions, safety=Safety.UNSAFE if goes_on else None)


def _taken(value: ir.Expr) -> list[ir.Call]:
    return [node for node in ir.walk(value) if isinstance(node, ir.Call) and node.method == "state_dict"]


def _around(call: ir.Call, value: ir.Expr) -> Rewrite:
    """What is to be copied, and how: a comprehension that passes detached tensors on clones them."""
    for node in ir.walk(value):
        if isinstance(node, ir.Comp) and any(inner is call for inner in ir.walk(node)):
            element = node.element
            if passes_on(node) and isinstance(element, ir.Call):
                return Rewrite(element.site, Role.WHOLE, "{}.clone()")
        if isinstance(node, ir.Call) and isinstance(call.receiver, ir.Name) and not call.operands:
            by_method = node.method == "copy" and node.receiver is call and not node.operands
            if by_method or (node.path in SHALLOW and node.operands == (call,)):
                return Rewrite(node.site, Role.WHOLE, DEEP.replace("{}", f"{call.receiver.path}.state_dict()"))
    return Rewrite(call.site, Role.WHOLE, DEEP)
