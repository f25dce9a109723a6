"""How a recurrent state is cut from the turn before: where, and in which form."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.makers import makers
from flake8_torchmem.analysis.retention.guarding import without_gradients
from flake8_torchmem.analysis.retention.recurrence import CELL_FACTORY, Carried, retains
from flake8_torchmem.analysis.retention.recurrent_forms import is_nested, returned
from flake8_torchmem.lazy import regex
from flake8_torchmem.remedies import DropArgument, Insert, NoRemedy, Remedy, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

TENSOR, PARTS, EITHER = "{0}.detach()", "tuple(part.detach() for part in {0})", "{0}.detach() if torch.is_tensor({0}) else {1}"
INDEX = regex(r"\[-?\d+\]")
FACTORIES = frozenset(
    f"torch.{name}" for name in "zeros ones empty full randn rand zeros_like ones_like randn_like tensor stack cat".split()
)
MAKES_TENSOR = frozenset("new_zeros new_full new_ones to cuda view".split())


def detached(facts: FileFacts, function: ir.Function, carried: Carried) -> Remedy | NoRemedy:
    """The state is detached where the turn begins; where nothing back-propagates, no graph is made at all."""
    if carried.backward is None:
        return without_gradients(facts, function, carried.loop, carried.event)
    states = {INDEX.split(state)[0]: None for state in carried.states}
    changed = {event.place for event in function.events() if isinstance(event, (ir.Bind, ir.Store)) and "[" in event.place}
    if any("[" in state or "#" in state or any(place.startswith(f"{state}[") for place in changed) for state in states):
        return NoRemedy("the state is kept item by item in a container")
    parts = {state for state in states if state not in carried.states}
    firsts = {state: list(_firsts(facts, function, state, carried)) for state in states}
    if any(isinstance(part, ir.Seq) for first in itertools.chain(*firsts.values()) for part in ir.parts(first)):
        return NoRemedy("the state is a tuple of tuples")
    seen = [value for state in states for value in itertools.chain(firsts[state], returned(facts, function, state, carried))]
    if any(is_nested(value) for value in seen):
        return NoRemedy("the state is more than a tensor or a tuple of some")
    begun = all(_is_bound(facts, function, state, carried) for state in states)
    if not begun and (carried.loop is None or carried.event.ctx.loops[-1] is not carried.loop):
        return NoRemedy("the state is not there yet when the first turn begins")
    code = [
        _code(state, PARTS if state in parts else _form(facts, function, state, carried, firsts[state]), firsts[state]) for state in states
    ]
    turn = carried.loop.site.mark if carried.loop is not None and carried.loop.site is not None else function.mark
    head = ir.Site(turn.first)
    insertion = Insert("\n".join(code), head if begun else carried.event.site)
    if retains(carried.backward) and _is_the_only(facts, function, carried.backward):
        return remedy(insertion, DropArgument(carried.backward.site, "retain_graph"))  # what it was to silence is gone
    return remedy(insertion)


def _is_the_only(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> bool:
    """Whether nothing else in a function takes gradients."""
    others = (event for event in function.events() if isinstance(event, ir.Backward) and event is not backward)
    return next(others, None) is None and not any(event.call.method == "grad" for event in facts.calls(function))


def _code(state: str, form: str, firsts: list[ir.Expr]) -> str:
    value = form.format(state, PARTS.format(state))
    if any(not isinstance(first, (ir.Call, ir.Seq)) for first in firsts):
        return f"if {state} is not None:\n    {state} = {value}"
    return f"{state} = {value}"


def _is_bound(facts: FileFacts, function: ir.Function, state: str, carried: Carried) -> bool:
    """Whether the state surely has a value when a turn begins."""
    root = paths.root(state)
    if root in function.params and root not in ("self", state):
        return True
    if root != "self" and root not in function.locals and function.name != "<module>":
        return True  # of a scope around
    if state in function.params or any(_before(bind, carried.loop) for bind in _own(facts, function, state)):
        return True
    init = function.owner.methods.get("__init__") if function.owner is not None else None
    return init is not None and any(not bind.ctx.conds for bind in facts.bindings.assigned(init).get(state, ()))


def _own(facts: FileFacts, function: ir.Function, state: str) -> list[ir.Bind]:
    found = facts.bindings.assigned(function).get(state, [])
    return found or facts.bindings.assigned(function).get(paths.root(state), [])


def _before(bind: ir.Bind, loop: ir.Loop | None) -> bool:
    """Whether a binding has been made, whatever the path, when a loop is entered."""
    if loop is None or loop.site is None or bind.site.mark.number >= loop.site.mark.number:
        return False
    around: tuple[ir.Loop, ...] = ()
    outer = loop.parent
    while outer is not None:
        around = (outer, *around)
        outer = outer.parent
    return not bind.ctx.conds and bind.ctx.handler is None and bind.ctx.loops == around[: len(bind.ctx.loops)] and bind.kind != "delete"


def _firsts(facts: FileFacts, function: ir.Function, state: str, carried: Carried) -> Iterator[ir.Expr]:
    """What the state may be before any turn: what is bound outside of the turn, the default of a parameter, what is handed in."""
    if state in function.params:
        yield function.defaults.get(state, ir.Opaque())
    begun = any(_before(bind, carried.loop) for bind in _own(facts, function, state))
    around = [function] if begun or not state.startswith("self.") else [function, *facts.bindings.relatives(function)]
    for bind in (bind for other in around for bind in facts.bindings.assigned(other).get(state, ())):
        made_within = bind in _own(facts, function, state) and _inside(bind, carried.loop)
        if not made_within or isinstance(bind.value, ir.Const):
            yield bind.value


def _inside(bind: ir.Bind, loop: ir.Loop | None) -> bool:
    return loop is None or loop in bind.ctx.loops


def _form(facts: FileFacts, function: ir.Function, state: str, carried: Carried, firsts: list[ir.Expr]) -> str:
    """Whether the state is a tensor or a tuple of some, as far as the file shows."""
    forms = {form for first in firsts if (form := _form_of_value(facts, function, first))}
    forms |= {form for bind in _own(facts, function, state) if (form := _form_of_part(bind, carried))}
    moved = (event.call for event in facts.calls(function) if event.call.method in ("to", "cuda", "size", "view"))
    if any(isinstance(call.receiver, ir.Name) and call.receiver.path == state for call in moved):
        forms.add(TENSOR)
    cell = _cell(facts, carried.event.call.path or "", function)
    forms = forms or {form for form in [cell] if form}
    return forms.pop() if len(forms) == 1 else EITHER


def _form_of_value(facts: FileFacts, function: ir.Function, value: ir.Expr) -> str:
    if isinstance(value, ir.Seq):
        return PARTS
    if isinstance(value, ir.Call):
        made = facts.evidence.resolve(value.path or "", function) in FACTORIES or value.method in MAKES_TENSOR
        return TENSOR if made else ""
    return ""


def _form_of_part(bind: ir.Bind, carried: Carried) -> str:
    """`out, (h, c) = net(x, (h, c))`: parts of the state are tensors."""
    value = bind.value
    deep = isinstance(value, ir.Item) and isinstance(value.base, ir.Item) and value.base.base is carried.event.call
    return TENSOR if deep else ""


def _cell(facts: FileFacts, path: str, function: ir.Function) -> str:
    """The form of the state of a path that is, or is declared as, a recurrent module of torch."""
    names = set(makers(facts, path.removesuffix(".forward"), function))
    cells = {name for name in names if CELL_FACTORY.match(name)}
    forms = {PARTS if "LSTM" in name else TENSOR for name in cells}
    others = any(torchapi.MODULE_BASE.search(name) or name in facts.program.classes for name in names - cells)
    return forms.pop() if len(forms) == 1 and not others else ""
