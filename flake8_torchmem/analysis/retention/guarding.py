"""How an evaluation comes to run without gradients: as a whole function where nothing in it needs them, else its loop alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.evidence import carriers
from flake8_torchmem.analysis.retention.evaluation import forwards
from flake8_torchmem.analysis.values import PLAIN, Kind
from flake8_torchmem.lazy import Words
from flake8_torchmem.model import Safety
from flake8_torchmem.remedies import Decorate, Guard, NoRemedy, Remedy, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

NO_GRAD = "torch.no_grad()"
MAY_TRAIN = Words(r"(?:^|_)(?:train|fit|learn|optimi[sz]e|main|worker|finetune|adapt)(?:$|_)", re.I)
TAKES_GRADIENTS = Words(r"attack|adversar|(?:^|[._])(?:pgd|fgsm|perturb|saliency|explain|attribute|grad_?cam)", re.I)
KEEPS_MODEL = Words(r"print|log|info|isinstance|hasattr|getattr|len|type|load|save|restore|unwrap|parallel|sync|device|sum(?:mary)?$", re.I)
READS_SOURCE = Words(r"jit|script|compile|njit|overload|asyncio", re.I)


def without_gradients(facts: FileFacts, function: ir.Function, loop: ir.Loop | None, forward: ir.Invoke) -> Remedy | NoRemedy:
    """A decorator where the whole function qualifies, else a `with` around the loop, or around the one forward.

    SAFE where no tensor that now has a graph leaves what is guarded for code that nobody has seen, nor the model itself.
    """
    if any(TAKES_GRADIENTS.search(event.call.path or "") for event in _within(facts, function, loop)):
        return NoRemedy("what it calls may take gradients of its own")
    if _only_evaluates(facts, function, forward) and not _leaves(facts, function, None):
        return remedy(Decorate(NO_GRAD, ir.Site(function.mark)))
    yielding = [event for event in function.events() if isinstance(event, ir.Return) and event.kind == "yield"]
    if any(loop is None or loop in event.ctx.loops for event in yielding):
        return NoRemedy("it is a generator, and a `with` around a `yield` would hold for whoever takes what it yields")
    place = loop.site if loop is not None and loop.site is not None else forward.site
    return remedy(Guard(NO_GRAD, place, place), safety=Safety.UNSAFE if _leaves(facts, function, loop) else None)


def _within(facts: FileFacts, function: ir.Function, loop: ir.Loop | None) -> Iterator[ir.Invoke]:
    return (event for event in facts.calls(function) if loop is None or loop in event.ctx.loops)


def _leaves(facts: FileFacts, function: ir.Function, loop: ir.Loop | None) -> bool:
    """Whether code out of sight gets a tensor with its graph, or a model of which it may take gradients."""
    return _handed_out(facts, function, loop) or any(_hands_model(facts, function, event) for event in _within(facts, function, loop))


def _hands_model(facts: FileFacts, function: ir.Function, event: ir.Invoke) -> bool:
    call, values = event.call, facts.values(function)
    full = facts.evidence.resolve(call.path or "", function)
    known = full.startswith("torch.") or facts.bindings.callee(call, function) is not None or KEEPS_MODEL.search(call.method)
    return not known and any(values.at(arg, event) is Kind.MODULE for arg in call.operands)


def _only_evaluates(facts: FileFacts, function: ir.Function, forward: ir.Invoke) -> bool:
    """Whether nothing in a function, nor in what is nested in it, trains or may do so, and its decorators take any function.

    Not where it guards other forwards by `with`: this one is guarded in the same way.
    """
    by_block = any(event.ctx.grad is ir.Grad.OFF for event in forwards(facts, function, guarded=True))
    if function.name.startswith("<") or by_block:
        return False
    if any(READS_SOURCE.search(path) for decorator in function.decorators for path in ir.names(decorator)):
        return False
    given = paths.root(forward.call.path or "") in function.params
    named = torchapi.EVAL_NAME.search(function.name) or given
    return bool(named) and not MAY_TRAIN.search(function.name) and not _may_train(facts, function)


def _may_train(facts: FileFacts, function: ir.Function) -> bool:
    """Whether a function back-propagates, steps or clears, or calls something that may, here or in what is nested in it."""
    if facts.summaries.effects(function) or any(_may_train(facts, inner) for inner in function.nested.values()):
        return True
    for event in facts.calls(function):
        call = event.call
        works = MAY_TRAIN.search(call.method) and not (call.method == "train" and _is_mode(call))
        optimizers = any(torchapi.looks_like_optimizer(path) for arg in call.operands for path in ir.names(arg))
        if works or optimizers or facts.bindings.is_optimizer_factory(call):
            return True
    return False


def _is_mode(call: ir.Call) -> bool:
    """`model.train()`, `model.train(was_training)`."""
    return call.receiver is not None and len(call.operands) <= 1


def _handed_out(facts: FileFacts, function: ir.Function, loop: ir.Loop | None) -> bool:
    """Whether a tensor that gets its graph in the loop (None: anywhere) leaves the function for code out of sight.

    Callers in sight have been asked by whoever reports the loop: none of them back-propagates.
    """
    kept = _with_graph(facts, function, loop)
    returned = not facts.summaries.callers.get(function) and function.name != "<module>"
    for event in function.events():
        if (
            isinstance(event, ir.Return)
            and (returned or event.kind == "yield")
            and _carries(facts, function, event, event.value, kept, loop)
        ):
            return True
        if isinstance(event, (ir.Bind, ir.Store)) and _outlives(event.place, function) and event in kept:
            return True
    return False


def _outlives(place: str, function: ir.Function) -> bool:
    """Whether a place is an attribute or an item of something that the caller has as well, or a variable of another scope."""
    root = paths.root(place)
    return (root != place and root in function.params) or root in function.free


def _with_graph(facts: FileFacts, function: ir.Function, loop: ir.Loop | None) -> dict[ir.Event, str]:
    """Bindings and stores of the loop, or of the whole function, that hold a graph, or a container with one, by their places."""
    kept: dict[ir.Event, str] = {}
    events = [event for event in function.events() if isinstance(event, (ir.Bind, ir.Store))]
    while True:
        more: dict[ir.Event, str] = {
            event: event.place for event in events if event not in kept and _carries(facts, function, event, event.value, kept, loop)
        }
        if not more:
            return kept
        kept |= more


def _carries(
    facts: FileFacts, function: ir.Function, event: ir.Event, value: ir.Expr, kept: dict[ir.Event, str], loop: ir.Loop | None
) -> bool:
    """Whether a value is, or is made of, what has a graph; a container is plain by itself, and what it was given counts."""
    sources = {prefix for path in carriers(value) for prefix in paths.prefixes(path)}
    if sources & {place for holder, place in kept.items() if isinstance(holder, ir.Store)}:
        return True
    kind = facts.values(function).at(value, event)
    inside = loop is None or loop in event.ctx.loops
    return kind not in PLAIN and bool(sources & set(kept.values()) or (inside and kind is Kind.GRAPH))
