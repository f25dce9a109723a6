"""How collected outputs leave the device, or let go of the storage that they are a view of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.loading.placement import Place
from flake8_torchmem.analysis.retention.collected import Collected
from flake8_torchmem.analysis.retention.lifetime import concatenated
from flake8_torchmem.analysis.retention.mending import SEVERAL, Mending, bound_anywhere, stored
from flake8_torchmem.remedies import Action, DropArgument, NoRemedy, Remedy, Rewrite, Role, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

TO_HOST, CLONE = "{}.cpu()", "{}.clone()"


def moved(facts: FileFacts, found: Collected) -> Remedy | NoRemedy:
    """The remedy for outputs that pile up on the device: each goes to the host, and so does what a concatenation starts from."""
    mending, event = Mending(facts, found.function), found.event
    comp = _comprehension(found)
    if comp is not None:
        return mending.comprehended(comp, event, TO_HOST)
    joined = concatenated(event.place, event.value) if isinstance(event, ir.Bind) else None
    if isinstance(joined, ir.Seq) and isinstance(event, ir.Bind):
        return _joined(facts, found, joined)
    outputs, placement = facts.outputs(found.function), facts.placement(found.function)
    return mending.detached(
        stored(event), TO_HOST, lambda expr, event: outputs.at(expr, event) and placement.at(expr, event) is Place.DEVICE
    )


def cloned(facts: FileFacts, found: Collected) -> Remedy | NoRemedy:
    """The remedy for a part of an output: a copy of it, which is a tensor for certain, as it is cut out by several indices."""
    mending, comp = Mending(facts, found.function), _comprehension(found)
    if comp is not None:
        return mending.comprehended(comp, found.event, CLONE)
    if isinstance(found.event, ir.Bind) and concatenated(found.event.place, found.event.value) is not None:
        return NoRemedy("the concatenation copies it")
    return mending.detached(stored(found.event), CLONE, lambda expr, _event: expr is found.part, sure=True)


def _comprehension(found: Collected) -> ir.Comp | None:
    value = found.event.value if isinstance(found.event, (ir.Bind, ir.Return)) else None
    comps = (node for node in ir.walk(value) if isinstance(node, ir.Comp)) if value is not None else ()
    return next((node for node in comps if node.element is found.part), None)


def _joined(facts: FileFacts, found: Collected, joined: ir.Seq) -> Remedy | NoRemedy:
    """`all = torch.cat([all, out])`: what is added goes to the host, and what it starts from is made there."""
    event = found.event
    actions: list[Action] = []
    for item in joined.items:
        if isinstance(item, ir.Name):
            actions.append(Rewrite(event.site, Role.VALUE, TO_HOST, item.path))
        elif isinstance(item, ir.Call):
            actions.append(Rewrite(item.site, Role.WHOLE, TO_HOST))
        else:
            return NoRemedy("what is concatenated has no name of its own")
    for bind in bound_anywhere(facts, found.function, found.place):
        if bind is not event and not isinstance(bind.value, ir.Const):
            start = _start(facts, bind, found)
            if isinstance(start, NoRemedy):
                return start
            actions += start
    return remedy(*actions)


def _start(facts: FileFacts, bind: ir.Bind, found: Collected) -> list[Action] | NoRemedy:
    """What a concatenation starts from, on the host."""
    call = bind.value if isinstance(bind.value, ir.Call) else None
    home = next((each for each in facts.functions if bind in facts.bindings.assigned(each).get(bind.place, ())), found.function)
    where = facts.placement(home).at(bind.value, bind)
    if bind.kind != "assign" or isinstance(bind.value, ir.Seq) or bind.site.file is not found.event.site.file:
        return NoRemedy(SEVERAL)
    if call is not None and "device" in call.kwargs and torchapi.resolve(call.path or "", call.ctx.file.imports).startswith("torch."):
        return [DropArgument(call.site, "device")]
    if where is Place.DEVICE and call is not None and call.method in ("cuda", "to"):
        return NoRemedy(f"what `{found.place}` starts from is moved to the device")
    if where is Place.DEVICE:
        return [Rewrite(bind.site, Role.VALUE, TO_HOST)]
    return [] if where is Place.HOST else NoRemedy(f"where `{found.place}` starts from is not in sight")
