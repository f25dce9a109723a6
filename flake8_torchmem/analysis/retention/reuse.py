"""Whether a graph that a backward retained can be back-propagated through again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.evidence import carriers, is_leaf
from flake8_torchmem.analysis.flow import following
from flake8_torchmem.analysis.reaching import in_order
from flake8_torchmem.analysis.values import PLAIN, Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

STATEFUL = Words(r"(?:^|_)(?:hidden|state|memory|carry|hx|cx)(?:s|_states?)?$")
RESETS_STATE = Words(r"init_?hidden|init_?states?$|reset_?(?:hidden|states?|net|rnn|memory)", re.I)
KEEPS_NOTHING = Words(r"^add_|log|write|print|append|update|item|meter|acc|metric|record|isnan|isfinite|format|clip", re.I)
DATA = Words(r"loader|dataset|data|batch|target|label|device|optim|criterion|config|args|param|mask|tokenizer|adj|env", re.I)


def graph_is_reused(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether anything in sight may need the graph after this backward; in doubt, yes.

    Args:
        facts: of the file.
        function: holds the backward.
        backward: retains its graph.
    """
    return (
        any(_uses_graph(facts, function, backward, event) for event in following(function, backward))
        or _carried(facts, function, backward)
        or _escapes(facts, function, backward)
    )


def _uses_graph(facts: FileFacts, function: ir.Function, backward: ir.Backward, event: ir.Event) -> bool:
    """A backward through the same graph, `autograd.grad`, or a callee that may do either."""
    if isinstance(event, ir.Backward):
        return bool(_graph(facts, function, backward) & _graph(facts, function, event))
    if not isinstance(event, ir.Invoke):
        return False
    callee = facts.bindings.callee(event.call, function)
    if callee is not None and "backward" in facts.summaries.effects(callee):
        return True
    path = facts.evidence.resolve(event.call.path or "", function)
    if path.endswith("autograd.grad"):
        return True
    if callee is not None or path.startswith(("torch.", "wandb.", "numpy.")) or event.call.method in torchapi.NUMBER_FUNCTIONS:
        return False
    receiver = event.call.receiver
    takes_loss = torchapi.takes_loss(event.call.method, receiver.path if isinstance(receiver, ir.Name) else None)
    if receiver is not None and KEEPS_NOTHING.search(event.call.method) and not takes_loss:
        return False
    values, at = facts.values(function), facts.evidence.reaching(function).at[event]
    if values.at(event.call.func, event) is Kind.MODULE:
        return False
    graph = _graph(facts, function, backward)
    if receiver is None and not takes_loss and not any(values.at(arg, event) is Kind.MODULE for arg in event.call.operands):
        return False
    return any(bind in graph for arg in event.call.operands for path in carriers(arg) for bind in at.get(path, ()))


def _graph(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> set[object]:
    """The nodes of the graph that a backward goes through: bindings, calls that were unpacked, and losses handed in."""
    at, values = facts.evidence.reaching(function).at, facts.values(function)
    found: set[object] = set()
    pending = [(backward.value, at[backward])]
    while pending:
        expr, env = pending.pop()
        for path in carriers(expr):
            binds = [bind for prefix in paths.prefixes(path) for bind in in_order(env.get(prefix, ()))]
            if (
                not binds
                and torchapi.LOSS_NAME.search(torchapi.last(path))
                and values.kind(ir.Name(path), env, backward.ctx) is Kind.UNKNOWN
            ):
                found.add("a loss of unknown origin")
            for bind in binds:
                data = is_leaf(bind.value) or (bind.kind == "target" and values.bound(bind) is not Kind.GRAPH)
                if bind not in found and not data and values.bound(bind) not in PLAIN | {Kind.MODULE}:
                    found |= {bind, bind.value.base if isinstance(bind.value, ir.Item) else bind}
                    pending.append((bind.value, at[bind]))
    return found


def _carried(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether the loss is built, in part, outside of the innermost loop or from tensors of the last turn."""
    fed = facts.evidence.feeds_backward(function)
    if any(_resets_state(event) for event in function.events()):
        return True
    if any(STATEFUL.search(torchapi.last(path)) for path in fed if path.startswith("self.")):
        return True
    if not backward.ctx.loops:
        return False
    loop = backward.ctx.loops[-1]
    if any(_feeds_itself(event) for event in function.events() if set(backward.ctx.loops) & set(event.ctx.loops)):
        return True
    rebound = facts.evidence.reaching(function).rebound(loop)
    reads = [(event, path) for event in function.events() for path in _reads(event, backward, fed) if event in rebound]
    return any(_is_old(facts, function, event, path, loop, rebound[event]) for event, path in reads)


def _feeds_itself(event: ir.Event) -> bool:
    """`out, states[key] = net(x, states.get(key))`: an entry of a container is made from one."""
    if not isinstance(event, (ir.Bind, ir.Store)) or not (isinstance(event, ir.Store) or "[" in event.place):
        return False
    made = event.value.base if isinstance(event.value, ir.Item) else event.value
    kept = paths.root(event.place)
    return isinstance(made, ir.Call) and kept != "self" and any(paths.root(path) == kept for arg in made.operands for path in ir.names(arg))


def _resets_state(event: ir.Event) -> bool:
    """`model.init_hidden()`, `model.hidden = ...`: a module that keeps a state keeps a graph."""
    if isinstance(event, ir.Invoke):
        receiver = event.call.receiver
        module = isinstance(receiver, ir.Name) and torchapi.MODULE_NAME.match(torchapi.last(receiver.path))
        return bool(RESETS_STATE.search(event.call.method) or (module and event.call.method == "reset"))
    return isinstance(event, ir.Bind) and "." in event.place and bool(STATEFUL.search(torchapi.last(event.place)))


def _reads(event: ir.Event, backward: ir.Backward, fed: frozenset[str]) -> Iterator[str]:
    """What an event reads that goes into the loss."""
    if event is backward:
        yield from _tensors(backward.value)
    elif isinstance(event, ir.Bind) and event.kind != "target" and event.place in fed:
        yield from _tensors(event.value)
    elif isinstance(event, ir.Bind) and event.place in carriers(backward.value):
        yield event.place


def _tensors(expr: ir.Expr) -> Iterator[str]:
    """Carriers of a value, without objects that only lend a method: `diffusion` of `diffusion.training_losses(model, x)`."""
    calls = [node for node in ir.walk(expr) if isinstance(node, ir.Call) and node.method not in torchapi.TENSOR_METHODS]
    objects = {call.receiver.path for call in calls if isinstance(call.receiver, ir.Name)}
    return (path for path in carriers(expr) if path not in objects)


def _is_old(facts: FileFacts, function: ir.Function, event: ir.Event, path: str, loop: ir.Loop, rebound: frozenset[str]) -> bool:
    """Whether a read may see a tensor with graph that was made before this turn."""
    values = facts.values(function)
    if isinstance(event, ir.Bind):
        if event.kind == "target":
            return values.bound(event) is Kind.GRAPH
        if values.bound(event) in PLAIN:
            return False
    if any(prefix in rebound for prefix in paths.prefixes(path)):
        return False
    if not facts.evidence.reaching(function).at[event].get(path) and path.rpartition(".")[0] not in ("", "self") and not path.endswith("]"):
        return values.at(ir.Name(path), event) is Kind.GRAPH
    made = [bind for prefix in paths.prefixes(path) for bind in facts.evidence.reaching(function).at[event].get(prefix, ())]
    return any(bind.kind != "target" and bind.place != "self" and not _harmless(values.bound(bind), bind, facts) for bind in made)


def _harmless(kind: Kind, bind: ir.Bind, facts: FileFacts) -> bool:
    """Whether an old value has no graph that could be walked twice: numbers, modules, leaves, arguments, data."""
    if kind in PLAIN or kind is Kind.MODULE or is_leaf(bind.value):
        return True
    names = [node for node in ir.walk(bind.value) if isinstance(node, ir.Call)]
    return kind is not Kind.GRAPH and (not names or bool(DATA.search(bind.place)))


def _escapes(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether the loss, or what it was built from, is kept by an attribute or handed back to a caller."""
    if any(paths.root(path) in function.params and paths.root(path) != "self" for path in carriers(backward.value)):
        return True
    if any(path.startswith("self.") and _assigned_elsewhere(facts, function, path) for path in carriers(backward.value)):
        return True
    values, at = facts.values(function), facts.evidence.reaching(function).at
    own = set(carriers(backward.value))
    graph = _graph(facts, function, backward)
    if any(
        isinstance(node, ir.Bind) and node.place.startswith("self.") and _backpropagated_elsewhere(facts, function, node.place)
        for node in graph
    ):
        return True
    for event in function.events():
        for path in carriers(event.value) if isinstance(event, ir.Return) else ():
            kind = values.at(ir.Name(path), event)
            made = any(bind in graph for bind in at[event].get(path, ()))
            if (made and kind is Kind.GRAPH) or (path in own and kind not in PLAIN):
                return True
    return False


def _assigned_elsewhere(facts: FileFacts, function: ir.Function, path: str) -> bool:
    """Whether another method of the class back-propagates or sets the attribute."""
    return any(
        isinstance(event, ir.Backward) or (isinstance(event, ir.Bind) and event.place == path)
        for method in facts.bindings.relatives(function)
        for event in method.events()
    )


def _backpropagated_elsewhere(facts: FileFacts, function: ir.Function, path: str) -> bool:
    """Whether another method of the class back-propagates something that is made from the attribute."""
    return any(path in facts.evidence.feeds_backward(method) for method in facts.bindings.relatives(function))
