"""Data sets that are put on the device whole, and what takes batches of them there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.loading.devices import FACTORIES, KEEPS_PLACE, RANDOM, is_transfer, names_device
from flake8_torchmem.analysis.loading.loaders import WORKER_METHODS, Samples, forking_loaders, loaders, samples
from flake8_torchmem.analysis.loading.workers import indexed_on_device, reads_sample
from flake8_torchmem.analysis.origins import Origin, calls_of, origins, returned
from flake8_torchmem.analysis.retention.evaluation import goes_over_data, is_unit_test
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

DATA_SET_BASE = Words(r"(?:^|\.)(?!Iterable)\w*Dataset$")
DATA_SET_NAME = Words(r"train|data_?set|corpus|^(?:all|full|whole)_", re.I)
NO_SAMPLES = Words(r"idx|ind(?:ex|ices)|mask|edge|weight|graph|adj|batch|loader|model|param|net|state|step|class|epoch", re.I)
LOADS = Words(r"^(?:numpy|pandas|scipy\.io|h5py|pickle|joblib|torch)\.(?:\w+\.)?(?:load\w*|read_\w+|genfromtxt|fromfile|memmap|File)$")
LOADS_BY_NAME = Words(r"^(?:load|read|fetch|get|prepare)_(?:\w+_)?(?:data(?:_?sets?)?|mnist|cifar\w*|imagenet|corpus)$|^train_test_split$")
TOYS = Words(r"^sklearn\.datasets\.(?:load|make)_|^numpy\.(?:random\.|arange$|linspace$|zeros$|ones$)")
MAKES_TENSORS = frozenset("tensor as_tensor from_numpy Tensor FloatTensor LongTensor stack cat array asarray concatenate Variable".split())
# Of a policy's own experience, which is as new as the policy and no data set.
EXPERIENCE = Words(r"adv|reward|return|log_?prob|obs|action|state|memory|buffer|rollout|replay", re.I)
UPDATES = Words(r"(?:^|_)(?:update|learn|optimi[sz]e|replay|step)(?:$|_)", re.I)
CHOICE = Words(r"load|cache|memory|keep|store|whole|resident|small|fits?$|numel|nbytes|element_size|(?:on|to)_(?:gpu|device|cuda)", re.I)
REPEATS = Words(r"fold|run|trial|seed|config|cfg|task|phase|stage|model", re.I)
DRAWS = RANDOM | {"choice", "choices", "sample", "permutation", "shuffle", "multinomial"}
INDICES = Words(r"idx|ind(?:ex|ices)|sampler|order|perm", re.I)
SPLITS = frozenset({"split", "chunk"})


class Resident(NamedTuple):
    """A data set on the device: what was moved, by which call, and who takes batches of it: a loop, or a `reader` by its name."""

    name: str
    call: ir.Call
    function: ir.Function
    loop: ir.Loop | None = None
    reader: str = ""


def residents(facts: FileFacts) -> Iterator[Resident]:
    """Every data set that is put on the device whole, once for each reader."""
    in_workers = {call.site for loader in forking_loaders(facts) for call in indexed_on_device(facts, loader)}
    seen: set[ir.Site] = set()
    for found in (*_tensor_data_sets(facts), *_classes(facts), *_attributes_of_loaded(facts), *_taken_in_loops(facts)):
        if found.call.site not in seen and not found.call.site.file.linked and found.call.site not in in_workers:
            seen.add(found.call.site)
            if not is_unit_test(found.function) and not _chosen(found.call) and not _small(facts, _moved(found.call), found.function):
                yield found


def _moved(call: ir.Call) -> ir.Expr:
    """What a call puts on the device."""
    return call.receiver if call.method in ("to", "cuda") and call.receiver is not None else call.args[0] if call.args else ir.Opaque()


def _puts(facts: FileFacts, call: ir.Call, function: ir.Function) -> bool:
    """Whether a call moves a tensor to a device, or makes one there of what is on the host."""
    if is_transfer(facts, call, function):
        return True
    place, full = call.kwargs.get("device"), facts.evidence.resolve(call.path or "", function)
    return place is not None and full in ("torch.tensor", "torch.as_tensor") and names_device(facts, place, function)


def _put(
    facts: FileFacts, expr: ir.Expr, function: ir.Function, event: ir.Event | None = None, seen: set[ir.Expr] | None = None
) -> tuple[ir.Call, ir.Function] | None:
    """The call that put a value on the device, with where it stands, through names, slices and methods that leave it there."""
    seen = set() if seen is None else seen
    if expr in seen:
        return None
    seen.add(expr)
    if isinstance(expr, ir.Call) and _puts(facts, expr, function):
        return expr, function
    found: list[Origin] = []
    if isinstance(expr, ir.Name):
        found = origins(facts, expr.path, function, event)
    elif isinstance(expr, ir.Op) and expr.op == "if":
        found = [Origin(arm, function) for arm in expr.args[1:]]
    elif isinstance(expr, ir.Item) and isinstance(expr.base, ir.Call) and isinstance(expr.key, ir.Const):
        found = list(returned(facts, expr.base, function, expr.key.value))
    elif isinstance(expr, ir.Item):
        found = [Origin(expr.base, function)]
    elif isinstance(expr, ir.Call):
        kept = expr.receiver if expr.method in KEEPS_PLACE - {"cpu", "to"} else None
        kept = expr.args[0] if kept is None and expr.method in ("Variable", "cat") and expr.args else kept
        found = [Origin(kept, function)] if kept is not None else list(returned(facts, expr, function))
    elif isinstance(expr, ir.Seq) and expr.kind in ("list", "tuple"):
        found = [Origin(item, function) for item in expr.items]
    puts = (_put(facts, origin.value, origin.function, None, seen) for origin in found)
    return next((put for put in puts if put is not None), None)


def _chosen(call: ir.Call) -> bool:
    """Whether the program asks whether to keep the data on the device."""
    return any(CHOICE.search(path) for cond, _, _ in call.ctx.conds for path in ir.names(cond))


def _sources(facts: FileFacts, expr: ir.Expr, function: ir.Function, seen: set[ir.Expr] | None = None) -> Iterator[Origin]:
    """What a value is made of, as far back as the file shows: literals, calls that make or read it, and what is handed in."""
    seen = set() if seen is None else seen
    if expr in seen:
        return
    seen.add(expr)
    found: list[Origin] = []
    if isinstance(expr, ir.Name):
        found = origins(facts, expr.path, function)
        outer = expr.path.rpartition(".")[0]
        if found and expr.path in function.params:
            yield Origin(ir.Opaque(), function)
        elif not found and outer:
            found = [Origin(ir.Name(outer), function)]
    elif isinstance(expr, ir.Call):
        found = _made_of(facts, expr, function)
    elif isinstance(expr, (ir.Item, ir.Attr)):
        found = [Origin(expr.base, function)]
    elif isinstance(expr, (ir.Op, ir.Seq)):
        found = [Origin(part, function) for part in ir.parts(expr)]
    for origin in found:
        yield from _sources(facts, origin.value, origin.function, seen)
    if not found:
        yield Origin(expr, function)


def _made_of(facts: FileFacts, call: ir.Call, function: ir.Function) -> list[Origin]:
    """What a call hands on; nothing if it makes or reads data by itself."""
    if _is_toy(facts, call, function) or _is_read(facts, call, function):
        return []
    whole = call.args[0] if call.method in MAKES_TENSORS and call.args else call.receiver
    return list(returned(facts, call, function)) or ([Origin(whole, function)] if whole is not None else [])


def _is_toy(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> bool:
    """Whether a value is a literal, a grid, random numbers, or a toy data set of a library."""
    if not isinstance(expr, ir.Call):
        return isinstance(expr, (ir.Const, ir.Seq))
    full = facts.evidence.resolve(expr.path or "", function)
    return bool(TOYS.search(full)) or (full.startswith("torch.") and torchapi.last(full) in FACTORIES | RANDOM)


def _is_read(facts: FileFacts, call: ir.Call, function: ir.Function) -> bool:
    """Whether a call reads files, or is named for loading data."""
    return bool(LOADS.search(facts.evidence.resolve(call.path or "", function)) or LOADS_BY_NAME.search(call.method))


def _small(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> bool:
    """Whether a value is made of toys alone."""
    found = list(_sources(facts, expr, function))
    return bool(found) and all(_is_toy(facts, source.value, source.function) for source in found)


def _loaded(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> bool:
    """Whether a value was read from files."""
    calls = [
        (node, source.function) for source in _sources(facts, expr, function) for node in ir.walk(source.value) if isinstance(node, ir.Call)
    ]
    return any(_is_read(facts, call, scope) for call, scope in calls)


def _tensor_data_sets(facts: FileFacts) -> Iterator[Resident]:
    """Tensors on the device that are made a `TensorDataset`, but not of what a policy has just collected."""
    for function in facts.functions:
        for event in facts.calls(function):
            full = facts.evidence.resolve(event.call.path or "", function)
            if torchapi.last(full) != "TensorDataset" or not full.startswith("torch") or not _once(facts, event.call, function):
                continue
            if any(EXPERIENCE.search(_name(arg)) for arg in event.call.args):
                continue
            puts = (_put(facts, arg, function, event) for arg in event.call.args)
            found = next((put for put in puts if put is not None and _once(facts, *put)), None)
            if found is not None:
                yield Resident(_name(_moved(found[0])), *found, reader="TensorDataset")


def _once(facts: FileFacts, call: ir.Call, function: ir.Function) -> bool:
    """Whether a call is not one of many turns, as far as the file shows, but for repetitions of the whole training."""
    if UPDATES.search(function.name):
        return False
    around = [call.ctx.loops, *(given.ctx.loops for _, given in calls_of(facts, function))]
    return all(any(REPEATS.search(target) for target in loop.targets) for loops in around for loop in loops)


def _name(expr: ir.Expr) -> str:
    """The variable that a value is a part of or made of."""
    while not isinstance(expr, ir.Name):
        if isinstance(expr, (ir.Item, ir.Attr)):
            expr = expr.base
        elif isinstance(expr, ir.Call) and (expr.receiver is None or expr.method in MAKES_TENSORS) and expr.args:
            expr = expr.args[0]
        elif isinstance(expr, ir.Call) and expr.receiver is not None:
            expr = expr.receiver
        else:
            return ""
    return expr.path


def _classes(facts: FileFacts) -> Iterator[Resident]:
    """Attributes that a data set's constructor puts on the device, and that its samples are taken of."""
    read = {made.cls for loader in loaders(facts) for made in _samples_of(facts, loader.argument("dataset"), loader.function)}
    for cls in facts.program.classes.values():
        if cls.file.linked or (cls not in read and not any(DATA_SET_BASE.search(base) for base in cls.bases)):
            continue
        init = facts.bindings.method(cls, "__init__")
        readers = [method for name in WORKER_METHODS if (method := facts.bindings.method(cls, name)) is not None]
        for event in init.events() if init is not None else ():
            if init is None or not isinstance(event, (ir.Bind, ir.Store)) or not event.place.startswith("self."):
                continue
            value = event.value.element if isinstance(event.value, ir.Comp) else event.value
            found = _put(facts, value, init, event) if not EXPERIENCE.search(f"{cls.name} {event.place}") else None
            if found is not None and any(reads_sample(reader, event.place) for reader in readers):
                yield Resident(event.place, *found, reader=f"{cls.name}.__getitem__")
                break


def _samples_of(facts: FileFacts, data: ir.Expr | None, function: ir.Function) -> list[Samples]:
    return [made for made in samples(facts, data, function) if isinstance(made, Samples)] if data is not None else []


def _attributes_of_loaded(facts: FileFacts) -> Iterator[Resident]:
    """`dataset.data = dataset.data.to(device)` of what a loader reads."""
    for loader in loaders(facts):
        data, function = loader.argument("dataset"), loader.function
        base = f"{data.path}." if isinstance(data, ir.Name) else "?"
        binds = (event for event in function.events() if isinstance(event, ir.Bind) and event.place.startswith(base))
        moved = ((bind.place, bind.value) for bind in binds if isinstance(bind.value, ir.Call) and is_transfer(facts, bind.value, function))
        yield from (Resident(place, call, function, reader="DataLoader") for place, call in list(moved)[:1])


def _taken_in_loops(facts: FileFacts) -> Iterator[Resident]:
    """What training loops slice batches of, where its name or its origin says that it is a data set."""
    for function in facts.functions:
        for loop in function.loops:
            if loop.kind == "comp" or not _trains(facts, loop, function):
                continue
            found = [resident for taken in _takes(facts, loop, function) for resident in _as_data_set(facts, taken, loop)]
            yield from sorted(found, key=lambda resident: resident.call.site.mark.number)[:1]


def _trains(facts: FileFacts, loop: ir.Loop, function: ir.Function) -> bool:
    """Whether every turn of a loop back-propagates and steps, and no loop inside does."""
    inner = [other for other in function.loops if other.parent is loop and other.kind != "comp"]
    if any(facts.effect_in(other, function, "backward") for other in inner):
        return False
    return facts.effect_in(loop, function, "backward") and facts.effect_in(loop, function, "step")


def _as_data_set(facts: FileFacts, taken: tuple[str, ir.Function, ir.Event | None], loop: ir.Loop) -> Iterator[Resident]:
    path, function, event = taken
    met: set[ir.Expr] = set()
    found = _put(facts, ir.Name(path), function, event, met)
    if found is None or loop in found[0].ctx.loops or any(goes_over_data(facts, outer, found[1]) for outer in found[0].ctx.loops):
        return
    words = {torchapi.last(expr.path) for expr in met if isinstance(expr, ir.Name)} | {torchapi.last(_name(_moved(found[0])))}
    if any(NO_SAMPLES.search(word) for word in words):
        return
    learns = UPDATES.search(found[1].name)
    if any(DATA_SET_NAME.search(word) for word in words) or (not learns and _loaded(facts, _moved(found[0]), found[1])):
        yield Resident(path, *found, loop=loop)


def _takes(facts: FileFacts, loop: ir.Loop, function: ir.Function) -> Iterator[tuple[str, ir.Function, ir.Event | None]]:
    """Paths that were bound before a loop, and that each turn takes another part of: in the loop, its head, or what it calls."""
    for node in ir.walk(loop.iterable) if loop.iterable is not None else ():
        if isinstance(node, ir.Call) and node.method in SPLITS:
            whole = node.args[0] if facts.evidence.resolve(node.path or "", function).startswith("torch.") else node.receiver
            if isinstance(whole, ir.Name):
                yield whole.path, function, None
    inside = [event for event in function.events() if loop in event.ctx.loops]
    varying = _varying(facts, function, inside, _counters(loop, inside))
    for event in inside:
        yield from ((path, function, event) for path in _parts_taken(event, varying) if paths.root(path) not in loop.assigned)
        callee = facts.bindings.callee(event.call, function) if isinstance(event, ir.Invoke) else None
        if callee is None or not isinstance(event, ir.Invoke) or callee.name in ("forward", "__call__"):
            continue
        given = dict(callee.arguments(event.call))
        within = list(callee.events())
        chosen = _varying(facts, callee, within, {param for param, arg in given.items() if _varies(arg, varying)})
        for path in dict.fromkeys(path for other in within for path in _parts_taken(other, chosen)):
            arg = given.get(path)
            if isinstance(arg, ir.Name) and paths.root(arg.path) not in loop.assigned:
                yield arg.path, function, event
            elif paths.root(path) not in callee.params or path.startswith("self."):
                yield path, callee, None


def _counters(loop: ir.Loop, inside: list[ir.Event]) -> set[str]:
    """The variables of a loop that say which turn it is: what it counts, not what it reads."""
    iterable = loop.iterable
    while isinstance(iterable, ir.Call) and iterable.method in torchapi.SAME_ELEMENTS and iterable.args:
        iterable = iterable.args[0]
    last = torchapi.last(iterable.path or "" if isinstance(iterable, (ir.Name, ir.Call)) else "")
    reads = bool(torchapi.DATA_NAME.search(last) or "loader" in last.lower()) and not INDICES.search(last)
    counted = {event.place for event in inside if isinstance(event, ir.Bind) and event.kind == "augment"}
    return counted if reads else counted | set(loop.targets)


def _varying(facts: FileFacts, function: ir.Function, events: list[ir.Event], places: set[str]) -> set[str]:
    """These places, and what is computed of them or drawn; of the parts that they select only those of orders and indices."""
    binds = [event for event in events if isinstance(event, ir.Bind)]
    found, before = set(places), -1
    while len(found) > before:
        before = len(found)
        found |= {
            bind.place
            for bind in binds
            if _varies(bind.value, found) and all(_is_order(facts, path, function) for path in _parts_taken(bind, found))
        }
    return found


def _is_order(facts: FileFacts, path: str, function: ir.Function) -> bool:
    """Whether a path holds indices, by name or as it was drawn."""
    return bool(INDICES.search(path)) or any(_varies(origin.value, set()) for origin in origins(facts, path, function))


def _parts_taken(event: ir.Event, varying: set[str]) -> Iterator[str]:
    """Paths of which an event takes a part that is another in every turn."""
    values = event.call.operands if isinstance(event, ir.Invoke) else ()
    if isinstance(event, (ir.Bind, ir.Store, ir.Return)):
        values = (event.value,)
    for node in (node for value in values for node in ir.walk(value)):
        if isinstance(node, ir.Item) and isinstance(node.base, ir.Name) and "#" not in node.base.path and _selects(node.key, varying):
            yield node.base.path
        elif isinstance(node, ir.Call) and node.method == "index_select" and any(_varies(arg, varying) for arg in node.operands):
            yield _name(node.receiver or ir.Opaque())


def _selects(key: ir.Expr, varying: set[str]) -> bool:
    """Whether a key is an index that varies, or a slice of which both ends do."""
    parts = key.items if isinstance(key, ir.Seq) and key.kind == "tuple" else (key,)
    return any(_varies(part, varying) and not (isinstance(part, ir.Seq) and len(part.items) < 2) for part in parts)


def _varies(expr: ir.Expr, varying: set[str]) -> bool:
    """Whether a value depends on these places, on chance, or on the variable of a comprehension."""
    return any(
        (isinstance(node, ir.Name) and ("#" in node.path or any(prefix in varying for prefix in paths.prefixes(node.path))))
        or (isinstance(node, ir.Call) and node.method in DRAWS)
        for node in ir.walk(expr)
    )
