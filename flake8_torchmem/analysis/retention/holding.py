"""Variables that hold models and their outputs, although nothing reads them again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.retention.evaluation import is_batch_loop
from flake8_torchmem.analysis.retention.liveness import read_after
from flake8_torchmem.analysis.values import Kind

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

TO_HOST = frozenset({"cpu", "numpy", "tolist", "item"})


def held_for_nothing(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> dict[str, ir.Bind]:
    """Local names, with their bindings, that hold a model or its output at an event and are not read after it."""
    if (
        event.ctx.handler is not None
        or function.name == "<module>"
        or any(is_batch_loop(facts, loop, function) for loop in event.ctx.loops)
    ):
        return {}
    found = {}
    for name, binds in facts.evidence.reaching(function).at[event].items():
        local = name not in function.free and not any(char in name for char in ".[#")
        held = local and all(_holds(facts, function, bind) for bind in binds) and not _has_another_holder(function, name)
        if held and not read_after(function, event, name):
            found[name] = min(binds, key=lambda bind: bind.site.mark.number)
    return found


def _holds(facts: FileFacts, function: ir.Function, bind: ir.Bind) -> bool:
    """Whether a binding gives the name a model that is built here, or what a model gave out, still on the device."""
    if bind.kind != "assign" or bind.place in facts.evidence.feeds_backward(function):
        return False
    call = _source(bind.value)
    if call is None or _on_host(bind.value):
        return False
    values = facts.values(function)
    if values.at(call.func, bind) is Kind.MODULE and not torchapi.CRITERION_NAME.search(call.method):
        return call.method not in torchapi.MODULE_TRANSPARENT
    built = call.method not in torchapi.MODULE_WRAPPERS and not torchapi.CRITERION_NAME.search(bind.place)
    return built and facts.evidence.builds(bind.value)


def _source(expr: ir.Expr) -> ir.Call | None:
    """The call that a value comes from: the first of a chain of methods, a part of its result."""
    while isinstance(expr, (ir.Item, ir.Attr)):
        expr = expr.base
    while isinstance(expr, ir.Call) and isinstance(expr.receiver, ir.Call):
        expr = expr.receiver
    return expr if isinstance(expr, ir.Call) else None


def _on_host(value: ir.Expr) -> bool:
    """Whether a chain of methods ends on the host."""
    return any(
        isinstance(node, ir.Call)
        and (node.method in TO_HOST or any(isinstance(arg, ir.Const) and str(arg.value).startswith("cpu") for arg in node.operands))
        for node in ir.walk(value)
    )


def _has_another_holder(function: ir.Function, name: str) -> bool:
    """Whether something else was given the same object, or a part of it: deleting the name alone would free nothing."""
    for event in function.events():
        if isinstance(event, (ir.Bind, ir.Store)) and event.place != name and any(path == name for path in _handed(event.value)):
            return True
        if isinstance(event, ir.Return) and event.kind == "yield" and name in _handed(event.value):
            return True
        if isinstance(event, ir.Invoke) and torchapi.resolve(event.call.path or "", function.file.imports).endswith("parameters"):
            receiver = event.call.receiver
            if isinstance(receiver, ir.Name) and receiver.path == name:
                return True  # an optimizer has its parameters
    return False


def _handed(value: ir.Expr) -> Iterator[str]:
    """Roots of the paths that a value is, or has as items."""
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, ir.Name):
            yield paths.root(node.path)
        elif isinstance(node, (ir.Item, ir.Attr)):
            pending.append(node.base)
        elif isinstance(node, ir.Seq):
            pending.extend(node.items)
        elif isinstance(node, ir.Call) and not any(isinstance(arg, ir.Name) and arg.path == "self" for arg in node.args):
            pending.extend(arg for arg in node.args if node.method[:1].isupper() or node.method in torchapi.MODULE_WRAPPERS)
