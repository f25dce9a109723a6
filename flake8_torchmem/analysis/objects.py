"""Which class in sight an object is of: by what builds it, what it is annotated with, or the container that it is in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.lazy import regex

if TYPE_CHECKING:
    from flake8_torchmem.analysis.bindings import Bindings

MAX_NAMES = 4
NAME = regex(r"[A-Za-z_][\w.]*")
DISPLAYS = (ir.Seq, ir.Comp)
CONTAINERS = frozenset({"dict", "OrderedDict", "defaultdict", "list", "tuple", "deque"})


def class_at(bindings: Bindings, path: str, function: ir.Function, names: int = MAX_NAMES) -> ir.Class | None:
    """The class of the object at an access path; None when it is not in sight, or not one alone.

    Args:
        bindings: of the program.
        path: the access path.
        function: where it is read.
        names: how many further names are followed.
    """
    for bind, home in bound(bindings, path, function):
        if isinstance(bind.value, ir.Name) and bind.kind == "assign" and names:
            cls = class_at(bindings, bind.value.path, home, names - 1)
        else:
            cls = _built(bindings, bind.value)
        if cls is not None:
            return cls
    if path.endswith("]"):
        return _element(bindings, path, function)
    if "." in path:
        return None
    return _annotated(bindings, path, function)


def bound(bindings: Bindings, path: str, function: ir.Function) -> Iterable[tuple[ir.Bind, ir.Function]]:
    """Where a path is bound, each with the function that binds it."""
    binds = bindings.binds(path, function)
    if not binds:
        return ()
    homes = {bind: home for home in _homes(bindings, path, function) for bind in bindings.assigned(home).get(path, ())}
    return ((bind, homes.get(bind, function)) for bind in binds)


def _homes(bindings: Bindings, path: str, function: ir.Function) -> Iterator[ir.Function]:
    """The functions that may bind a path."""
    yield from function.scopes()
    yield from bindings.relatives(function) if path.startswith("self.") else ()


def _built(bindings: Bindings, value: ir.Expr) -> ir.Class | None:
    """The class whose call a value is made of; a container is none of its elements."""
    if isinstance(value, DISPLAYS) or (isinstance(value, ir.Call) and value.method in CONTAINERS):
        return None
    for node in ir.walk(value):
        cls = bindings.class_named(node.path, node.ctx.file) if isinstance(node, ir.Call) and node.path else None
        if cls is not None:
            return cls
    return None


def _annotated(bindings: Bindings, path: str, function: ir.Function) -> ir.Class | None:
    """The class that a parameter is declared to be of."""
    scope: ir.Function | None = function
    while scope is not None and path not in scope.params:
        scope = scope.parent
    declared = scope.annotations.get(path) if scope is not None else None
    found = {bindings.class_named(name, scope.file) for name in annotated(declared)} - {None} if scope is not None else set()
    return found.pop() if len(found) == 1 else None


def annotated(declared: ir.Expr | None) -> Iterator[str]:
    """The names in an annotation: `Meter`, `"Meter"`, `Optional[Meter]`, `Meter | None`."""
    for node in ir.walk(declared) if declared is not None else ():
        if isinstance(node, ir.Name):
            yield node.path
        elif isinstance(node, ir.Const) and isinstance(node.value, str):
            yield from NAME.findall(node.value)


def _element(bindings: Bindings, path: str, function: ir.Function) -> ir.Class | None:
    """The class of what a container holds under a key; where the key is not known, of all that it holds."""
    container, _, key = path[:-1].rpartition("[")
    container = bindings.canonical(container, function)
    found: set[ir.Class | None] = set()
    for bind, home in bound(bindings, container, function):
        found |= {_built(bindings, value) for value in _elements(bindings, bind.value, key, home)}
    for home in _homes(bindings, container, function):
        stores = (event for event in home.events() if isinstance(event, ir.Store) and event.place == container)
        found |= {_built(bindings, store.value) for store in stores}
    return found.pop() if len(found) == 1 else None


def _elements(bindings: Bindings, value: ir.Expr, key: str, function: ir.Function) -> Iterator[ir.Expr]:
    """What a container is filled with where it is made."""
    if isinstance(value, ir.Seq):
        named = [
            item for name, item in zip(value.keys, value.items, strict=False) if isinstance(name, ir.Const) and repr(name.value) == key
        ]
        yield from named or value.items
    elif isinstance(value, ir.Comp):
        yield value.element
    elif isinstance(value, ir.Call) and value.method == "defaultdict" and value.args and isinstance(value.args[0], ir.Name):
        made = function.nested.get(value.args[0].path)
        returns = [event.value for event in made.events() if isinstance(event, ir.Return)] if made is not None else []
        yield from returns or [ir.Call(value.args[0], (), {}, False, value.ctx, value.site)]
    elif isinstance(value, ir.Call) and value.method in CONTAINERS:
        yield from value.kwargs.values()
        for arg in value.args:
            yield from _elements(bindings, arg, key, function)


def path_of(expr: ir.Expr) -> str | None:
    """The access path of a callee that is a method of an element: `meters[*].update` for `meters[name].update`."""
    if isinstance(expr, ir.Name):
        return expr.path
    if isinstance(expr, ir.Attr):
        base = path_of(expr.base)
        return f"{base}.{expr.name}" if base else None
    if isinstance(expr, ir.Item):
        base = path_of(expr.base)
        return f"{base}[*]" if base else None
    return None
