"""When a checkpoint can be loaded to the host, and when a tensor can be made on the device: what is seen of their uses decides."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.loading.devices import RANDOM, Device, destination, device_of
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words
from flake8_torchmem.model import Safety
from flake8_torchmem.remedies import MakeThere, NoRemedy, Remedy, SetArgument, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

HOLDS_NUMBERS = Words(
    r"epoch|iter|step|^args?$|config|cfg|hparams|hyper|(?:^|_)(?:n|num|size|dim|name|version|classes|vocab|arch|lr|seed|time|date)(?:_|$)",
    re.I,
)
KEEPS_COPIES = Words(r"ema|swa|avg|average", re.I)  # classes of their own, which may take tensors over
TAKES_NUMBERS = Words(r"scaler|amp|warmup", re.I)
ONE_DEVICE = Words(r"(?:^|_)(?:device|dev|rank)$", re.I)
ROUNDED = frozenset({"linspace", "logspace"})
EXACT = frozenset(
    "view reshape squeeze unsqueeze transpose permute expand repeat expand_as view_as flatten contiguous clone t detach requires_grad_"
    " float half double long int bool fill_ narrow unbind Variable".split()
)


class Use(Enum):
    """What a checkpoint, or a part of it, is used for, from the harmless to the unknown."""

    COPIED = 0  # by a load_state_dict, to where the parameters are
    PERHAPS = 1  # by one of an unknown object, or a part that may be a tensor
    ELSEWHERE = 2


def onto_host(facts: FileFacts, function: ir.Function, load: ir.Bind, call: ir.Call) -> Remedy | NoRemedy:
    """`map_location="cpu"`: SAFE where the checkpoint only feeds `load_state_dict`, which copies."""
    worst = max((use.value for use in _uses(facts, function, load.place, set())), default=Use.PERHAPS.value)
    if worst == Use.ELSEWHERE.value:
        return NoRemedy("what is loaded is used for more than `load_state_dict`, and may be expected on the device")
    safety = None if worst == Use.COPIED.value else Safety.UNSAFE
    shared = function.name == "<module>" or "." in load.place
    doubt = rf"(?<!\w){re.escape(load.place)}\b" if shared else ""
    return remedy(SetArgument(call.site, "map_location", '"cpu"'), safety=safety, doubt=doubt)


def _uses(facts: FileFacts, function: ir.Function, place: str, seen: set[str]) -> Iterator[Use]:
    """What is done with a place, and with what is made of it, in all functions that can see it."""
    if place in seen:
        return
    seen.add(place)
    for other in _sharing(facts, function, place):
        for event in other.events():
            if isinstance(event, ir.Invoke) and event.call.method == "load_state_dict":
                yield from _loaded(facts, other, event, place)
            elif isinstance(event, ir.Bind) and _reads(event.value, place):
                yield from _bound(facts, other, event, place, seen)
            elif (into := _put_into(event, place)) is not None:
                yield from _uses(facts, other, into, seen)
            elif not isinstance(event, ir.Bind) and any(place in paths.prefixes(path) for path in ir.reads(event)):
                yield _of_parts(event, place)


def _put_into(event: ir.Event, place: str) -> str | None:
    """The dict that a part is put into, or that is updated with it."""
    if isinstance(event, ir.Store) and event.kind == "setitem" and _reads(event.value, place):
        return event.place
    if isinstance(event, ir.Invoke) and event.call.method == "update" and isinstance(event.call.receiver, ir.Name):
        return event.call.receiver.path if any(_reads(arg, place) for arg in event.call.args) else None
    return None


def _sharing(facts: FileFacts, function: ir.Function, place: str) -> list[ir.Function]:
    root = paths.root(place)
    if function.name == "<module>":
        return [function, *(other for other in facts.functions if other is not function and root not in other.locals)]
    if root == "self" and function.owner is not None:
        return [function, *facts.bindings.relatives(function)]
    return [function, *function.nested.values()]


def _loaded(facts: FileFacts, function: ir.Function, event: ir.Invoke, place: str) -> Iterator[Use]:
    call, receiver = event.call, event.call.receiver
    if not any(_reads(arg, place) for arg in call.operands):
        return
    path = receiver.path if isinstance(receiver, ir.Name) else ""
    module = receiver is not None and facts.values(function).at(receiver, event) is Kind.MODULE
    known = (
        (module and not KEEPS_COPIES.search(torchapi.last(path)))
        or torchapi.looks_like_optimizer(path)
        or torchapi.looks_like_scheduler(path)
        or bool(TAKES_NUMBERS.search(torchapi.last(path)))
    )
    yield Use.ELSEWHERE if "assign" in call.kwargs else Use.COPIED if known else Use.PERHAPS


def _bound(facts: FileFacts, function: ir.Function, bind: ir.Bind, place: str, seen: set[str]) -> Iterator[Use]:
    """A part under another name, or the dict with other keys: what becomes of that; a number is one wherever it is loaded to."""
    parts = [path for path in ir.names(bind.value) if place in paths.prefixes(path)]
    if parts and all(_is_number(path, place) for path in parts):
        yield Use.COPIED
        return
    calls = [node for node in ir.walk(bind.value) if isinstance(node, ir.Call)]
    if all(_keeps_dict(call) for call in calls) and "." not in bind.place:
        before = len(seen)
        found = list(_uses(facts, function, bind.place, seen))
        yield from found if found or len(seen) == before else [Use.PERHAPS]
    else:
        yield Use.ELSEWHERE


def _keeps_dict(call: ir.Call) -> bool:
    return call.method in (
        "items",
        "get",
        "pop",
        "replace",
        "dict",
        "OrderedDict",
        "copy",
        "keys",
        "startswith",
        "update",
        "load",
        "enumerate",
        "len",
    )


def _is_number(path: str, place: str) -> bool:
    key = path[len(place) :]
    return key.startswith("['") and bool(HOLDS_NUMBERS.search(key.strip("[']")))


def _of_parts(event: ir.Event, place: str) -> Use:
    """A call that is given numbers of the checkpoint, or asks the dict for its keys."""
    read = [path for path in ir.reads(event) if place in paths.prefixes(path)]
    asks = isinstance(event, ir.Invoke) and event.call.path in {
        f"{path}.{name}" for path in read for name in ("keys", "items", "get", "pop")
    }
    asks = asks or (isinstance(event, ir.Invoke) and _keeps_dict(event.call))
    prints = isinstance(event, ir.Invoke) and event.call.method in ("print", "info", "debug", "log", "format", "len", "isinstance", "int")
    return Use.COPIED if asks or prints or all(_is_number(path, place) for path in read) else Use.ELSEWHERE


def _reads(expr: ir.Expr, place: str) -> bool:
    return any(place in paths.prefixes(path) for path in ir.names(expr))


def made_there(facts: FileFacts, function: ir.Function, transfer: ir.Call, made: ir.Call) -> Remedy | NoRemedy:
    """The factory function is told the device, where the transfer names one for sure; UNSAFE where values may come out differently."""
    if not _names_one_device(facts, function, transfer):
        return NoRemedy("what it is moved to may be something else than a device")
    name, chain = torchapi.last(made.path or ""), list(_between(transfer, made))
    if any(call.kwargs.get("requires_grad") is not None or call.method == "requires_grad_" for call in (made, *chain)):
        return NoRemedy("it collects gradients as the leaf on the host that it is")
    if name == "normal" and "size" not in made.kwargs and len(made.args) < 3:
        return NoRemedy("`torch.normal` of tensors takes no device")
    rounded = name in ROUNDED or (name == "arange" and _has_fractions(made))
    computed = any(call.method not in EXACT for call in chain)
    return remedy(MakeThere(transfer.site, made.site), safety=Safety.UNSAFE if name in RANDOM or rounded or computed else None)


def _has_fractions(made: ir.Call) -> bool:
    """Whether steps between the numbers may be rounded, each device in its own way."""
    floats = any(isinstance(arg, ir.Const) and isinstance(arg.value, float) for arg in made.operands)
    return floats or len(made.args) > 2 or not made.kwargs.keys().isdisjoint({"step", "dtype"})


def _between(transfer: ir.Call, made: ir.Call) -> Iterator[ir.Call]:
    """The calls that a tensor goes through from the factory function to the transfer."""
    node = transfer.receiver
    while isinstance(node, ir.Call) and node is not made:
        yield node
        node = node.args[0] if node.method == "Variable" and node.args else node.receiver


def _names_one_device(facts: FileFacts, function: ir.Function, transfer: ir.Call) -> bool:
    """A device in writing, or something of that very name; `cuda(args.gpu)` is no device when the option is None."""
    place = destination(transfer) if transfer.method == "to" else transfer.kwargs.get("device", next(iter(transfer.args), None))
    if place is None:
        return transfer.method == "cuda"
    if isinstance(place, ir.Call):
        return facts.evidence.resolve(place.path or "", function) == "torch.device"
    if device_of(facts, place, function) is not Device.UNKNOWN:
        return True
    last = place.name if isinstance(place, ir.Attr) else torchapi.last(place.path) if isinstance(place, ir.Name) else ""
    return transfer.method == "to" and bool(ONE_DEVICE.search(last))
