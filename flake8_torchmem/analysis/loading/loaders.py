"""Data loaders: what they are told, what runs in their workers, and where their batches go."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.origins import MAX_STEPS, Origin, followed, origins, returned
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

LOADER = Words(r"^torch(?:\.utils\.data(?:\.dataloader)?|_geometric\.(?:loader|data)(?:\.\w+)?)\.DataLoader$")
POSITIONAL = ("dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "num_workers", "collate_fn", "pin_memory")
WRAPPERS = frozenset({"Subset", "random_split", "ConcatDataset", "ChainDataset", "StackDataset"})
WORKER_METHODS = ("__getitem__", "__getitems__", "__iter__", "__next__")


class Loader(NamedTuple):
    """A call of `DataLoader`, the event that it is, and the function that it stands in."""

    event: ir.Invoke
    function: ir.Function

    @property
    def call(self) -> ir.Call:
        """The call itself."""
        return self.event.call

    def argument(self, name: str) -> ir.Expr | None:
        """What the call gives for a parameter in writing; positions say nothing once arguments are spread into it."""
        args = self.call.args[:1] if self.call.star else self.call.args
        return self.call.kwargs.get(name) or dict(zip(POSITIONAL, args, strict=False)).get(name)


class Samples(NamedTuple):
    """An object of an in-file class that a loader reads, by the call that makes it."""

    cls: ir.Class
    made: Origin


def loaders(facts: FileFacts) -> Iterator[Loader]:
    """Every loader that the file makes."""
    for function in facts.functions:
        for event in facts.calls(function):
            if LOADER.match(torchapi.resolve(event.call.path or "", event.ctx.file.imports)):
                yield Loader(event, function)


def has_workers(facts: FileFacts, loader: Loader) -> bool:
    """Whether the loader surely has workers, as far as the file shows."""
    workers = loader.argument("num_workers")
    return workers is not None and _positive(facts, workers, loader.function, {})


def _positive(facts: FileFacts, expr: ir.Expr, function: ir.Function, known: dict[ir.Expr, bool], steps: int = 0) -> bool:
    """Whether a number is above zero: written so, the machine's cores, or made of such numbers alone."""
    if expr not in known:
        known[expr] = False  # what is made of itself says nothing
        known[expr] = steps <= MAX_STEPS and _is_positive(facts, expr, function, partial(_positive, facts, known=known, steps=steps + 1))
    return known[expr]


def _is_positive(facts: FileFacts, expr: ir.Expr, function: ir.Function, positive: Callable[[ir.Expr, ir.Function], bool]) -> bool:
    if isinstance(expr, ir.Const):
        return isinstance(expr.value, int) and expr.value > 0
    if isinstance(expr, ir.Call):
        if expr.method in ("min", "max", "int"):
            return bool(expr.args) and all(positive(arg, function) for arg in expr.args)
        return expr.method == "cpu_count"
    if isinstance(expr, ir.Op):
        arms = expr.args[1:] if expr.op == "if" else expr.args if expr.op in ("*", "+", "//", "/", "or") else ()
        return bool(arms) and all(positive(arm, function) for arm in arms)
    if not isinstance(expr, ir.Name):
        return False
    found = origins(facts, expr.path, function)
    if not found:
        default = option_default(facts, expr.path)
        return default is not None and positive(default, function)
    return (any if found[0].optional else all)(positive(origin.value, origin.function) for origin in found)


def option_default(facts: FileFacts, path: str) -> ir.Expr | None:
    """The default of the command-line option that an attribute such as `args.workers` reads."""
    base, _, name = path.rpartition(".")
    if not base:
        return None
    for function in facts.functions:
        for event in facts.calls(function):
            words = [arg.value for arg in event.call.args if isinstance(arg, ir.Const)]
            flags = {word.lstrip("-").replace("-", "_") for word in words if isinstance(word, str)}
            dest = event.call.kwargs.get("dest")
            if event.call.method == "add_argument" and name in (flags if dest is None else {getattr(dest, "value", None)}):
                return event.call.kwargs.get("default")
    return None


def samples(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> Iterator[Samples | Origin]:
    """What a data set is made by: objects of classes in sight, displays, and other calls, through the library's wrappers."""
    for origin in followed(expr, function, partial(_made_of, facts)):
        value = origin.value.base if isinstance(origin.value, ir.Item) else origin.value
        cls = facts.bindings.class_named(value.path or "", value.ctx.file) if isinstance(value, ir.Call) else None
        if cls is not None:
            yield Samples(cls, Origin(value, origin.function))
        elif isinstance(value, (ir.Seq, ir.Comp)) or (isinstance(value, ir.Call) and value.method not in WRAPPERS):
            yield Origin(value, origin.function)


def _made_of(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> list[Origin]:
    part = expr.key.value if isinstance(expr, ir.Item) and isinstance(expr.key, ir.Const) else None
    base = expr.base if isinstance(expr, ir.Item) else expr
    if isinstance(base, ir.Name):
        return origins(facts, base.path, function)
    if isinstance(base, ir.Op) and base.op == "if":
        return [Origin(arm, function) for arm in base.args[1:]]
    if not isinstance(base, ir.Call):
        return []
    found = list(returned(facts, base, function, part))
    if not found and base.method in WRAPPERS and facts.bindings.class_named(base.path or "", base.ctx.file) is None:
        parts = [part for arg in base.operands[:1] for part in (arg.items if isinstance(arg, ir.Seq) else (arg,))]
        found = [Origin(part, function) for part in parts]
    return found


def run_in_workers(facts: FileFacts, loader: Loader) -> list[ir.Function]:
    """In-file functions that the loader's workers run: of its data sets, its collate function, and what those call."""
    pending: list[ir.Function] = []
    data = loader.argument("dataset")
    for made in samples(facts, data, loader.function) if data is not None else ():
        if isinstance(made, Samples):
            methods = (facts.bindings.method(made.cls, name) for name in WORKER_METHODS)
            pending += [method for method in methods if method is not None]
    collate = loader.argument("collate_fn")
    pending += _functions(facts, collate, loader.function) if collate is not None else ()
    found: list[ir.Function] = []
    while pending:
        function = pending.pop()
        if function in found:
            continue
        found.append(function)
        callees = (facts.bindings.callee(event.call, function) for event in facts.calls(function))
        pending += [callee for callee in callees if callee is not None and callee.name != "forward"]
    return found


def _functions(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> Iterator[ir.Function]:
    """The in-file functions that a value may be: by name, bound by `partial`, or the `__call__` of an object."""
    for origin in followed(expr, function, partial(_named_by, facts)):
        value, found = origin.value, None
        if isinstance(value, ir.Name):
            found = facts.bindings.function_at(value.path, origin.function)
        elif isinstance(value, ir.Call):
            cls = facts.bindings.class_named(value.path or "", value.ctx.file)
            found = facts.bindings.method(cls, "__call__") if cls is not None else None
        if found is not None:
            yield found


def _named_by(facts: FileFacts, expr: ir.Expr, function: ir.Function) -> list[Origin]:
    if isinstance(expr, ir.Call) and expr.method == "partial" and expr.args:
        return [Origin(expr.args[0], function)]
    if isinstance(expr, ir.Name) and facts.bindings.function_at(expr.path, function) is None:
        return origins(facts, expr.path, function)
    return []


def forking_loaders(facts: FileFacts) -> Iterator[Loader]:
    """Loaders that surely have workers, in a file that leaves it to the platform how these are started."""
    found = [loader for loader in loaders(facts) if has_workers(facts, loader)]
    everywhere = facts.program.all_functions() if found else ()  # callers in other files, which may be the script that says how
    if found and not any(event.call.method in torchapi.START_METHODS for function in everywhere for event in facts.calls(function)):
        yield from (loader for loader in found if "multiprocessing_context" not in loader.call.kwargs and not loader.call.star)
