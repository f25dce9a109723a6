"""Functions with a cache around them: how much it keeps, and whether that is tensors, modules or graphs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words, regex

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

DEFAULT_SIZE = 128
# A few entries are a choice: the tensor of this step, the models in use.
FEW = 8
CACHES = Words(r"^(?:functools\.(?:lru_cache|cache)|cachetools\.func\.\w+_cache)$")
TENSOR = Words(r"(?:^|\.)torch\.(?:\w+\.)*\w*Tensor$|^torch\.nn\.Parameter$")
# By what a class derives from in the end: the name `Module` alone is also that of Python's modules and of projects' parts.
MODULE = Words(r"^torch\.nn\.|(?:^|\.)(?:LightningModule|PreTrainedModel|ModelMixin)$")
CLASSES_AND_CALLABLES = frozenset({"Callable", "type", "Type", "Literal"})
WORDS = regex(r"[A-Za-z_][\w.]*")


class Kept(NamedTuple):
    """What a cache keeps.

    Attributes:
        decorator: its index among the function's decorators.
        size: how many calls it remembers, None for all.
        kind: tensor or module (a key), self (the key is a module), or graph (the result).
        name: of the parameter.
    """

    decorator: int
    size: int | None
    kind: str
    name: str = ""


def kept(facts: FileFacts, function: ir.Function) -> Kept | None:
    """What the cache around a function keeps, if that is something large that nobody else may use."""
    for index, decorator in enumerate(function.decorators):
        path = decorator.path if isinstance(decorator, (ir.Name, ir.Call)) else None
        resolved = torchapi.resolve(path, function.file.imports) if path else ""
        if not CACHES.match(resolved):
            continue
        size = None if resolved == "functools.cache" else _size(decorator)
        if size is not None and size <= FEW:
            return None
        kind, name = _key(facts, function) or _result(facts, function) or ("", "")
        return Kept(index, size, kind, name) if kind else None
    return None


def _size(decorator: ir.Expr) -> int | None:
    """The number of entries; of a number that is not written, the default."""
    if not isinstance(decorator, ir.Call):
        return DEFAULT_SIZE
    argument = decorator.args[0] if decorator.args else decorator.kwargs.get("maxsize", ir.Const(DEFAULT_SIZE))
    value = argument.value if isinstance(argument, ir.Const) else DEFAULT_SIZE
    return value if isinstance(value, int) else None


def _key(facts: FileFacts, function: ir.Function) -> tuple[str, str] | None:
    """A parameter that is a tensor or a module, by its annotation or by what is done with it."""
    if function.owner is not None and function.params[:1] == ("self",) and _is_module(facts, function.owner.name):
        return "self", "self"
    for param in function.params:
        names = set(_annotated(facts, function, function.annotations.get(param)))
        used = {call.method for call in _uses(function, param)}
        if any(TENSOR.search(name) for name in names) or used & torchapi.OF_TENSORS:
            return "tensor", param
        if any(_is_module(facts, name) for name in names) or used & torchapi.OF_MODULES:
            return "module", param
    return None


def _is_module(facts: FileFacts, name: str) -> bool:
    """Whether a class is a torch module, through bases that are in sight."""
    pending, seen = [name], {name}
    while pending:
        name = pending.pop()
        if MODULE.search(name):
            return True
        new = set(facts.evidence.bases.get(name, ())) - seen
        seen |= new
        pending += new
    return False


def _uses(function: ir.Function, param: str) -> Iterator[ir.Call]:
    """Calls of the parameter's methods, as long as it is what was given."""
    if any(isinstance(event, ir.Bind) and event.place == param for event in function.events()):
        return
    for event in function.events():
        call = getattr(event, "call", None)
        if isinstance(call, ir.Call) and call.path and call.path.rpartition(".")[0] == param:
            yield call


def _annotated(facts: FileFacts, function: ir.Function, annotation: ir.Expr | None) -> Iterator[str]:
    """Full names of the classes that an annotation speaks of, in quotes or not; not of what it is a class or a function of."""
    words = [word for node in ir.walk(annotation) for word in _words(node)] if annotation is not None else []
    if not CLASSES_AND_CALLABLES & set(map(torchapi.last, words)):
        yield from (torchapi.resolve(word, function.file.imports) for word in words)


def _words(node: ir.Expr) -> Iterator[str]:
    if isinstance(node, ir.Name):
        yield node.path
    elif isinstance(node, ir.Const) and isinstance(node.value, str):
        yield from WORDS.findall(node.value)


def _result(facts: FileFacts, function: ir.Function) -> tuple[str, str] | None:
    """A result with graph, unless every caller switches gradients off."""
    graph = facts.values(function).returned(None) is Kind.GRAPH and not facts.guarded_by_callers(function)
    return ("graph", "") if graph else None
