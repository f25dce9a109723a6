"""Hooks: where they are registered, which function they run, and what they put where."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.values import Kind, Values
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

REGISTERS = Words(r"^register_(?:module_)?(?:(?:full_)?(forward|backward)_(?:pre_)?hook|hook)$")
MAX_HOPS = 3


@dataclass(frozen=True, eq=False)
class Hook:
    """A function that a registration makes run.

    Attributes:
        event: the registration.
        registrar: the function that it stands in.
        function: what runs.
        skipped: leading arguments that are already given (`partial`).
        given: those arguments.
        gradients: it sees gradients, not inputs and outputs.
    """

    event: ir.Invoke
    registrar: ir.Function
    function: ir.Function
    skipped: int
    given: tuple[ir.Expr, ...]
    gradients: bool

    @property
    def params(self) -> tuple[str, ...]:
        """Parameters that the registered call fills, `self` and those given before left out."""
        params = self.function.params[1:] if self.function.owner is not None else self.function.params
        return params[self.skipped :]

    @property
    def seen(self) -> tuple[str, ...]:
        """Parameters that hold inputs and outputs, or gradients."""
        return self.params[:1] if self.event.call.method == "register_hook" else self.params[1:3]


@dataclass(frozen=True, eq=False)
class Kept:
    """A store of a hook into a place that outlives its call.

    Attributes:
        hook: whose store.
        event: the store.
        place: where to, as the home sees it.
        home: the function whose variable it is; the registrar's class has it where the place is an attribute of `self`.
    """

    hook: Hook
    event: ir.Event
    place: str
    home: ir.Function


def registrations(facts: FileFacts) -> Iterator[tuple[ir.Function, ir.Invoke]]:
    """Calls that register hooks, with the functions that they stand in."""
    for function in facts.functions:
        for event in facts.calls(function):
            if REGISTERS.match(event.call.method):
                yield function, event


def hooks(facts: FileFacts) -> Iterator[Hook]:
    """Every hook whose function is in the file."""
    for registrar, event in registrations(facts):
        given = event.call.args[-1:] if "module" in event.call.method else event.call.args[:1]
        found = REGISTERS.match(event.call.method)
        for expr in (*given, *(event.call.kwargs[key] for key in ("hook",) if key in event.call.kwargs)):
            for function, before in _functions(facts, registrar, expr):
                yield Hook(event, registrar, function, len(before), before, not (found and found[1] == "forward"))


def _functions(
    facts: FileFacts, scope: ir.Function, expr: ir.Expr, hops: int = MAX_HOPS
) -> Iterator[tuple[ir.Function, tuple[ir.Expr, ...]]]:
    """The functions that an expression may be, with arguments that `partial` has given them."""
    if hops == 0:
        return
    if isinstance(expr, ir.Name):
        function = facts.bindings.function_at(expr.path, scope)
        if function is not None and function.name != "forward":
            yield function, ()
        elif function is None:
            for bind in facts.bindings.binds(expr.path, scope):
                if isinstance(bind.value, ir.Call):
                    yield from _functions(facts, scope, bind.value, hops - 1)
    elif isinstance(expr, ir.Call) and expr.method == "partial" and expr.args:
        for function, before in _functions(facts, scope, expr.args[0], hops - 1):
            yield function, before + expr.args[1:]
    elif isinstance(expr, ir.Call) and expr.path:
        yield from _made(facts, scope, expr, expr.path, hops)


def _made(facts: FileFacts, scope: ir.Function, call: ir.Call, path: str, hops: int) -> Iterator[tuple[ir.Function, tuple[ir.Expr, ...]]]:
    """The hook that a call makes: an object that can be called, or what a factory returns."""
    cls = facts.bindings.class_named(path, scope.file)
    called = facts.bindings.method(cls, "__call__") if cls is not None else None
    if called is not None:
        yield called, ()
    factory = facts.bindings.callee(call, scope)
    for event in factory.events() if factory is not None else ():
        if isinstance(event, ir.Return) and factory is not None:
            yield from _functions(facts, factory, event.value, hops - 1)


def kept(facts: FileFacts) -> Iterator[Kept]:
    """What hooks keep of the tensors that they see, in places that outlive the call and grow with it."""
    seen: set[ir.Event] = set()
    for hook in hooks(facts):
        values = Values(hook.function, facts.evidence, tuple((param, Kind.GRAPH) for param in hook.seen))
        for event in hook.function.events():
            stored = _grown(facts, hook, event)
            if stored is None or event in seen or any(stored[0] in ir.names(cond) for cond, _, _ in event.ctx.conds):
                continue
            place, value = stored
            tensor = values.at(value, event) is Kind.GRAPH
            if tensor and (not hook.gradients or _is_seen(hook, value)):
                for home, path in _homes(facts, hook, place):
                    seen.add(event)
                    yield Kept(hook, event, path, home)


def _grown(facts: FileFacts, hook: Hook, event: ir.Event) -> tuple[str, ir.Expr] | None:
    """The place that a hook's event makes grow, and by what."""
    if isinstance(event, ir.Store) and event.kind in ("append", "extend"):
        return event.place, event.value
    if isinstance(event, ir.Store) and event.kind == "setitem" and event.key is not None:
        return (event.place, event.value) if _is_new_each_time(facts, hook, event.key, event.place) else None
    if isinstance(event, ir.Bind) and event.kind == "augment" and isinstance(event.delta, ir.Seq) and event.delta.kind == "list":
        return event.place, event.delta
    return None


def _is_new_each_time(facts: FileFacts, hook: Hook, key: ir.Expr, place: str) -> bool:
    """Whether a key is another one with every call: a counter, a length, a time, not the name of a layer."""
    for node in ir.walk(key):
        if isinstance(node, ir.Call) and node.method in ("time", "uuid4", "next", "perf_counter", "time_ns"):
            return True
        if isinstance(node, ir.Call) and node.path == "len" and any(place in ir.names(arg) for arg in node.args):
            return True
        if isinstance(node, ir.Name):
            counts = [bind for bind in _everywhere(facts, hook.function, node.path) if bind.kind == "augment"]
            if any(isinstance(bind.delta, ir.Const) for bind in counts) and not _is_reset(facts, hook, node.path):
                return True
    return False


def _is_reset(facts: FileFacts, hook: Hook, path: str) -> bool:
    """Whether a counter starts over outside of the place where it is made."""
    binds = [bind for bind in _everywhere(facts, hook.function, path) if bind.kind == "assign"]
    cls = hook.function.owner
    inits = set(cls.methods["__init__"].events()) if cls is not None and "__init__" in cls.methods else set()
    module = set(facts.program.module.events()) if facts.program.module is not None else set()
    first = binds[0] if binds and "." not in path else None
    return any(bind not in inits and bind not in module and bind is not first for bind in binds)


def _everywhere(facts: FileFacts, function: ir.Function, path: str) -> list[ir.Bind]:
    """All bindings of a path that a function shares with others: of its own scopes, or of its class."""
    if path.startswith("self.") and function.owner is not None:
        return [bind for method in function.owner.methods.values() for bind in facts.bindings.assigned(method).get(path, ())]
    found: list[ir.Bind] = []
    scope: ir.Function | None = function
    while scope is not None:
        found += facts.bindings.assigned(scope).get(path, ())
        scope = scope.parent
    module = facts.program.module
    return found + (list(facts.bindings.assigned(module).get(path, ())) if module is not function and module is not None else [])


def _is_seen(hook: Hook, value: ir.Expr) -> bool:
    """Whether a value is what the hook got itself, or a part or copy of it on the same device."""
    while isinstance(value, (ir.Item, ir.Call)):
        if isinstance(value, ir.Call) and (value.method != "clone" or value.receiver is None):
            return False
        value = value.base if isinstance(value, ir.Item) else value.receiver or value
    return isinstance(value, ir.Name) and paths.root(value.path) in hook.seen


def _homes(facts: FileFacts, hook: Hook, place: str) -> Iterator[tuple[ir.Function, str]]:
    """The functions whose variable a place is, and what they call it; none for a variable of the call itself."""
    function, root = hook.function, paths.root(place)
    if function.owner is not None and function.params[:1] == (root,):
        yield function, place
        return
    if root in hook.params[:1] and hook.event.call.method != "register_hook":
        return  # on the module: whoever reads it there may empty it
    if root in function.params:
        given = hook.given[function.params.index(root)] if function.params.index(root) < len(hook.given) else ir.Name(root)
        scope: ir.Function | None = hook.registrar
        place = given.path + place[len(root) :] if isinstance(given, ir.Name) else ""
    elif root in function.locals:
        return
    else:
        scope = function.parent or facts.program.module
    if scope is not None and place:
        yield from _home(facts, scope, place, MAX_HOPS)


def _home(facts: FileFacts, scope: ir.Function, place: str, hops: int) -> Iterator[tuple[ir.Function, str]]:
    """Where a name that is seen from a scope lives, through the parameters of functions that the file calls."""
    root = paths.root(place)
    owner: ir.Function | None = scope
    while owner is not None and root not in owner.params and root not in owner.assigned - owner.free:
        owner = owner.parent
    owner = owner or facts.program.module
    if owner is None:
        return
    if owner.owner is not None and owner.params[:1] == (root,):
        yield owner, place
    elif root not in owner.params:
        alias = facts.bindings.canonical(place, owner)
        yield owner, alias if alias.startswith("self.") and owner.owner is not None else place
    elif hops:
        for caller, call in facts.summaries.callers.get(owner, ()):
            argument = dict(owner.arguments(call)).get(root)
            if isinstance(argument, ir.Name):
                yield from _home(facts, caller, argument.path + place[len(root) :], hops - 1)
