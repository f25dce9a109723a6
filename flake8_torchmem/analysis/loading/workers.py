"""What the worker processes of a loader do with the device."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.loading.devices import KEEPS_PLACE, is_device_check, is_transfer, makes_cuda_tensor, put_on_device
from flake8_torchmem.analysis.loading.loaders import WORKER_METHODS, Loader, Samples, run_in_workers, samples
from flake8_torchmem.analysis.origins import Origin
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

IN_MEMORY = frozenset({"TensorDataset", "list", "range", "zip", "tuple"})
CHEAP = frozenset(
    "len int float tensor as_tensor from_numpy FloatTensor LongTensor Tensor stack copy astype item list tuple dict range".split()
)
LISTS_OF_OBJECTS = frozenset("json.load json.loads glob.glob os.listdir csv.reader csv.DictReader".split())
MAKES_OBJECTS = frozenset("tolist readlines splitlines to_dict glob rglob iterdir".split())
PLAIN_CALLS = frozenset("int float str len tuple list dict pathlib.Path Path json.loads".split())
READS_TEXT = frozenset("read read_text strip decode".split())
TEXT_METHODS = frozenset("strip rstrip lstrip split join lower upper replace format decode encode get items joinpath".split())
PLACE_FLAG = Words(r"cuda|gpu|device|cpu|worker", re.I)


def made_on_device(facts: FileFacts, loader: Loader) -> Iterator[tuple[ir.Function, ir.Call]]:
    """For each function that the workers run: its first call that surely makes a tensor on the device."""
    for function in run_in_workers(facts, loader):
        calls = list(facts.calls(function))
        if any(event.call.method == "get_worker_info" for event in calls):
            continue
        for event in calls:
            if makes_cuda_tensor(facts, event.call, function) and _always(facts, event, function):
                if not _left_before(function, event):
                    yield function, event.call
                break


def _always(facts: FileFacts, event: ir.Event, function: ir.Function) -> bool:
    """Whether no condition but the presence of a device stands before an event."""
    return event.ctx.handler is None and all(arm and is_device_check(facts, cond, function) for cond, arm, _ in event.ctx.conds)


def _left_before(function: ir.Function, event: ir.Event) -> bool:
    """Whether the function is left before an event on a condition that speaks of the device."""
    number = event.site.mark.number
    left = [other for other in function.events() if isinstance(other, ir.Return) and other.site.mark.number < number]
    return any(PLACE_FLAG.search(path) for other in left for cond, _, _ in other.ctx.conds for path in ir.names(cond))


def indexed_on_device(facts: FileFacts, loader: Loader) -> Iterator[ir.Call]:
    """Calls that put on the device what the workers index: tensors of a `TensorDataset`, attributes of a data set."""
    data = loader.argument("dataset")
    for made in samples(facts, data, loader.function) if data is not None else ():
        found = _attributes(facts, made.cls) if isinstance(made, Samples) else _operands(facts, made)
        yield from list(found)[:1]


def _operands(facts: FileFacts, made: Origin) -> Iterator[ir.Call]:
    call, function = made.value, made.function
    if not isinstance(call, ir.Call) or facts.evidence.resolve(call.path or "", function).rpartition(".")[2] != "TensorDataset":
        return
    event = next((event for event in facts.calls(function) if event.call is call), None)
    for arg in call.args if event is not None else ():
        put = put_on_device(facts, arg, function, event) if event is not None else None
        if put is not None:
            yield put


def _attributes(facts: FileFacts, cls: ir.Class) -> Iterator[ir.Call]:
    init = facts.bindings.method(cls, "__init__")
    readers = [method for name in WORKER_METHODS if (method := facts.bindings.method(cls, name)) is not None]
    for bind in (event for event in init.events() if isinstance(event, ir.Bind)) if init is not None else ():
        only = len(facts.bindings.binds(bind.place, init)) == 1 if init is not None else False
        if init is None or not only or not bind.place.startswith("self.") or not _always(facts, bind, init):
            continue
        put = put_on_device(facts, bind.value, init, bind)
        if put is not None and any(True for reader in readers for _ in _items(reader, bind.place)):
            yield put


def _items(function: ir.Function, place: str) -> Iterator[ir.Item]:
    """Where a function takes items of a place."""
    for event in function.events():
        values = event.call.operands if isinstance(event, ir.Invoke) else ()
        if isinstance(event, (ir.Bind, ir.Return, ir.Store)):
            values = (event.value,)
        for node in (node for value in values for node in ir.walk(value)):
            if isinstance(node, ir.Item) and isinstance(node.base, ir.Name) and node.base.path == place:
                yield node


def leaves_host(facts: FileFacts, loader: Loader) -> bool:
    """Whether samples may be made on a device: then they can be neither pinned nor made by workers."""
    moved = any(
        is_transfer(facts, event.call, function) or makes_cuda_tensor(facts, event.call, function) or "device" in event.call.kwargs
        for function in run_in_workers(facts, loader)
        for event in facts.calls(function)
    )
    return moved or any(True for _ in indexed_on_device(facts, loader)) or _hands_out_results(facts, loader)


def _hands_out_results(facts: FileFacts, loader: Loader) -> bool:
    """Whether samples hold, as it is, what a call has made and the data set was given: embeddings that a model made, on its device."""
    data = loader.argument("dataset")
    for made in samples(facts, data, loader.function) if data is not None else ():
        init = facts.bindings.method(made.cls, "__init__") if isinstance(made, Samples) else None
        if not isinstance(made, Samples) or init is None or not isinstance(made.made.value, ir.Call):
            continue
        given = dict(init.arguments(made.made.value))
        readers = [method for name in WORKER_METHODS if (method := facts.bindings.method(made.cls, name)) is not None]
        whole = {path for reader in readers for path in _whole(reader)}
        for bind in (event for event in init.events() if isinstance(event, ir.Bind) and event.place in whole):
            arg = given.get(bind.value.path) if isinstance(bind.value, ir.Name) else None
            if arg is not None and _is_result(facts, arg, made.made.function):
                return True
    return False


def _whole(function: ir.Function) -> Iterator[str]:
    """Paths that go, as they are, into what a function makes."""
    for event in function.events():
        value = event.value if isinstance(event, (ir.Bind, ir.Return, ir.Store)) else None
        for part in value.items if isinstance(value, ir.Seq) else (value,):
            if isinstance(part, ir.Name):
                yield part.path


def _is_result(facts: FileFacts, arg: ir.Expr, function: ir.Function) -> bool:
    """Whether a value is what some call gives that may work on tensors."""
    values = [bind.value for bind in facts.bindings.binds(arg.path, function)] if isinstance(arg, ir.Name) else [arg]
    calls = (value for value in values if isinstance(value, ir.Call))
    return any(call.path not in PLAIN_CALLS and call.method not in TEXT_METHODS for call in calls)


def cannot_help(facts: FileFacts, loader: Loader) -> bool:
    """Whether workers would have nothing to do, as the samples are in memory, or would each do all of it."""
    data = loader.argument("dataset")
    found = list(samples(facts, data, loader.function)) if data is not None else []
    return bool(found) and all(_only_indexes(facts, made) if isinstance(made, Samples) else _in_memory(made.value) for made in found)


def _in_memory(made: ir.Expr) -> bool:
    return isinstance(made, (ir.Comp, ir.Seq)) or (isinstance(made, ir.Call) and made.method in IN_MEMORY)


def _only_indexes(facts: FileFacts, made: Samples) -> bool:
    """Whether a class hands out what it holds, or says itself what is next."""
    method = facts.bindings.method(made.cls, "__getitem__")
    if method is None:
        return facts.bindings.method(made.cls, "__iter__") is not None
    cheap = CHEAP | KEEPS_PLACE
    return all(event.call.method in cheap for event in facts.calls(method))


def many_objects(facts: FileFacts, cls: ir.Class) -> Iterator[ir.Bind]:
    """Attributes that the constructor fills with an unknown number of Python objects, and that workers take items of."""
    init = facts.bindings.method(cls, "__init__")
    readers = [method for name in WORKER_METHODS if (method := facts.bindings.method(cls, name)) is not None]
    for event in init.events() if init is not None else ():
        if not isinstance(event, ir.Bind) or not event.place.startswith("self.") or init is None:
            continue
        only = len(facts.bindings.binds(event.place, init)) == 1
        if only and _holds_objects(facts, event.value, init, event.place) and any(reads_sample(reader, event.place) for reader in readers):
            yield event


def reads_sample(function: ir.Function, place: str) -> bool:
    """Whether the item that is taken of a place depends on the index that is asked for: there is one for each sample."""
    asked = set(function.params[1:])
    asked |= {bind.place for bind in function.events() if isinstance(bind, ir.Bind) and asked & set(ir.names(bind.value))}
    return any(asked & set(ir.names(item.key)) for item in _items(function, place))


def _holds_objects(facts: FileFacts, value: ir.Expr, function: ir.Function, place: str) -> bool:
    """Whether a value is a container of objects by its making, or an empty one that a loop of the function fills."""
    if isinstance(value, ir.Comp):
        return value.kind in ("ListComp", "DictComp") and _is_object(facts, value.element, function)
    if isinstance(value, ir.Seq):
        stores = [event for event in function.events() if isinstance(event, ir.Store) and event.place == place and event.ctx.loops]
        return not value.items and bool(stores) and all(_is_object(facts, event.value, function) for event in stores)
    if isinstance(value, ir.Call):
        full = facts.evidence.resolve(value.path or "", function)
        if full in ("sorted", "list") and value.args:
            return _holds_objects(facts, value.args[0], function, place)
        words = value.method == "split" and isinstance(value.receiver, ir.Call) and value.receiver.method in READS_TEXT
        return words or full in LISTS_OF_OBJECTS or (value.method in MAKES_OBJECTS and value.receiver is not None)
    if isinstance(value, ir.Name) and value.path != place:
        binds = facts.bindings.assigned(function).get(value.path, [])
        return len(binds) == 1 and _holds_objects(facts, binds[0].value, function, value.path)
    return False


def _is_object(facts: FileFacts, value: ir.Expr, function: ir.Function) -> bool:
    """Whether an item is made of strings, numbers and containers: not a tensor or array, nor what an unknown function makes."""
    for node in ir.walk(value):
        if isinstance(node, ir.Call):
            full = facts.evidence.resolve(node.path or "", function)
            if full not in PLAIN_CALLS and not full.startswith("os.path.") and node.method not in TEXT_METHODS:
                return False
    return True
