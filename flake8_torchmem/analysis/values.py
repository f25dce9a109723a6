"""What an expression holds: a number, a tensor without graph, a tensor with graph, a module; unknown without evidence."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.evidence import Evidence, arms, is_leaf
from flake8_torchmem.analysis.ir import Grad
from flake8_torchmem.analysis.reaching import Env, Reaching, in_order
from flake8_torchmem.analysis.settled import settled

MAX_CALLS = 3


class Kind(Enum):
    """Kinds of values. CONST is a literal: a start value that says nothing about what is added to it."""

    CONST = "const"
    NUMBER = "number"
    DETACHED = "detached"
    GRAPH = "graph"
    MODULE = "module"
    UNKNOWN = "unknown"


PLAIN = frozenset({Kind.CONST, Kind.NUMBER, Kind.DETACHED})
Args = tuple[tuple[str, Kind], ...]


def join(kinds: Iterable[Kind]) -> Kind:
    """The kind of a value that is one of these: start values give way, disagreement is unknown."""
    found = set(kinds)
    if len(found) > 1:
        found.discard(Kind.CONST)
    if found == {Kind.NUMBER, Kind.DETACHED}:
        return Kind.DETACHED
    return found.pop() if len(found) == 1 else Kind.UNKNOWN


def combine(kinds: Iterable[Kind]) -> Kind:
    """The kind of something computed from values of these kinds."""
    found = set(kinds)
    if Kind.GRAPH in found:
        return Kind.GRAPH
    if Kind.UNKNOWN in found or Kind.MODULE in found:
        return Kind.UNKNOWN
    return Kind.DETACHED if Kind.DETACHED in found else Kind.NUMBER


class Values:
    """Evaluates expressions at events of one function.

    Args:
        function: whose expressions.
        evidence: what the file shows about modules and back-propagated values.
        args: kinds of parameters, when the call is known.
        depth: calls between here and the first evaluation.
    """

    def __init__(self, function: ir.Function, evidence: Evidence, args: Args = (), depth: int = 0) -> None:
        self.function = function
        self.evidence = evidence
        self.args = dict(args)
        self.depth = depth
        self.reaching: Reaching = evidence.reaching(function)
        self._callees: dict[tuple[ir.Function, Args], Values] = {}

    def at(self, expr: ir.Expr, event: ir.Event) -> Kind:
        """The kind of an expression where an event happens."""
        return self.kind(expr, self.reaching.at.get(event, {}), event.ctx)

    def kind(self, expr: ir.Expr, env: Env, ctx: ir.Context) -> Kind:
        """The kind of an expression under definitions and a context."""
        if isinstance(expr, ir.Const):
            return Kind.CONST
        if isinstance(expr, ir.Name):
            return self._path(expr.path, env, ctx)
        if isinstance(expr, ir.Call):
            return self._call(expr, env)
        if isinstance(expr, ir.Op):
            return self._operator(expr, env, ctx)
        if isinstance(expr, ir.Seq):
            return combine(self.kind(item, env, ctx) for item in expr.items)
        if isinstance(expr, ir.Attr):
            return self._attribute(self.kind(expr.base, env, ctx), expr.name)
        if isinstance(expr, ir.Item):
            return self._item(expr, env, ctx)
        return self.kind(expr.element, env, ctx) if isinstance(expr, ir.Comp) else Kind.UNKNOWN

    def _path(self, path: str, env: Env, ctx: ir.Context) -> Kind:
        binds = env.get(path)
        if binds:
            return self._any_of(binds)
        if path in self.args:
            return self.args[path]
        base, separator, name = path.rpartition(".")
        if path.endswith("]"):
            return self._attribute(self._path(path[: path.rindex("[")], env, ctx), "[]")
        if not separator:
            return Kind.MODULE if self.evidence.is_module(path, self.function) else Kind.UNKNOWN
        if base == "self":
            return Kind.MODULE if self.evidence.is_module(path, self.function) else Kind.UNKNOWN
        kind = self._attribute(self._path(base, env, ctx), name)
        return Kind.MODULE if kind is Kind.UNKNOWN and self.evidence.is_module(path, self.function) else kind

    def _any_of(self, binds: frozenset[ir.Bind]) -> Kind:
        """The kind of what several paths gave a place: with graph, if one of them did and none of the others converts it."""
        kinds = {bind: self.bound(bind) for bind in in_order(binds)}
        converted = any(kind in PLAIN and _reads(bind.value, bind.place) for bind, kind in kinds.items())
        if Kind.GRAPH in kinds.values() and not converted and set(kinds.values()) <= {Kind.GRAPH, *PLAIN}:
            return Kind.GRAPH
        return join(kinds.values())

    def _attribute(self, base: Kind, name: str) -> Kind:
        if base in (Kind.MODULE, Kind.UNKNOWN):
            return Kind.NUMBER if name in torchapi.NUMBER_ATTRIBUTES else Kind.UNKNOWN
        if base is not Kind.GRAPH:
            return base
        if name in torchapi.NUMBER_ATTRIBUTES:
            return Kind.NUMBER
        return Kind.DETACHED if name in torchapi.DETACHED_ATTRIBUTES or name in torchapi.INDEX_FIELDS else Kind.GRAPH

    @settled(Kind.CONST)  # a binding that reads itself adds nothing of its own
    def bound(self, bind: ir.Bind) -> Kind:
        """The kind of what a binding gave a place; evidence of back-propagation decides what is else unknown."""
        kind = self.kind(bind.value, self.reaching.at.get(bind, {}), bind.ctx)
        if kind is Kind.UNKNOWN and self.evidence.backpropagated(bind, self.function):
            kind = Kind.GRAPH
        if kind is Kind.UNKNOWN and self.evidence.is_module(bind.place, self.function):
            kind = Kind.MODULE
        return kind

    def _operator(self, expr: ir.Op, env: Env, ctx: ir.Context) -> Kind:
        if expr.op == "format":
            return Kind.NUMBER
        if expr.op in ir.COMPARISONS:
            return Kind.DETACHED
        if expr.op in ir.BOOLEAN:
            return join(self.kind(arg, env, ctx) for arg in expr.args)
        if expr.op == "if":
            return join(self.kind(arm, env, ctx) for arm in arms(expr))
        return recorded(combine(self.kind(arg, env, ctx) for arg in expr.args), ctx.grad)

    def _item(self, expr: ir.Item, env: Env, ctx: ir.Context) -> Kind:
        base = expr.base
        key = expr.key.value if isinstance(expr.key, ir.Const) else None
        if isinstance(base, ir.Call):
            if key == 1 and base.method in torchapi.PAIR_RESULT:
                return Kind.DETACHED
            callee = self.evidence.bindings.callee(base, self.function)
            if callee is not None and isinstance(key, int):
                return self._result(base, callee, env, key)
        kind = self.kind(base, env, ctx)
        return Kind.UNKNOWN if kind is Kind.MODULE else kind

    def _call(self, call: ir.Call, env: Env) -> Kind:
        name, path = call.method, call.path
        full = self.evidence.resolve(path, self.function) if path else ""
        if full in torchapi.NUMBER_FUNCTIONS or full.startswith(torchapi.NUMBER_NAMESPACES):
            return Kind.NUMBER
        if torchapi.DETACHES_BY_NAME.search(name):
            return Kind.DETACHED
        callee = self.evidence.bindings.callee(call, self.function)
        if callee is not None and callee.name not in ("forward", "__call__", "__init__"):
            return self._result(call, callee, env, None)
        operands = [self.kind(arg, env, call.ctx) for arg in call.operands]
        if full.startswith("torch."):
            return self._torch(full, operands, call)
        if name in torchapi.GATHERS and "accelerator" in (path or ""):
            return combine(operands)
        if full in ("sum", "max", "min", "abs", "list", "tuple", "dict", "reversed", "sorted", "zip", "enumerate", "next", "iter", "set"):
            return combine(operands)
        if call.receiver is not None:
            found = self._method(call, call.receiver, name, env)
            if found is not None:
                return found
        # Only a path can be a module; looking into other callees again would double the work at every link of a chain.
        if isinstance(call.func, ir.Name) and self._path(call.func.path, env, call.ctx) is Kind.MODULE:
            return self._forward(call, operands)
        return Kind.UNKNOWN

    def _torch(self, full: str, operands: list[Kind], call: ir.Call) -> Kind:
        name = torchapi.last(full)
        if torchapi.MODULE_FACTORY.match(full):
            return Kind.MODULE
        if is_leaf(call):
            return Kind.GRAPH
        if name in torchapi.DETACHED_TORCH:
            return Kind.DETACHED
        return recorded(combine(operands), call.ctx.grad) if operands else Kind.UNKNOWN

    def _method(self, call: ir.Call, receiver: ir.Expr, name: str, env: Env) -> Kind | None:
        """A method of a value; None when it has to be judged as a call of a module."""
        if name in torchapi.NUMBER_METHODS:
            return Kind.NUMBER
        base = self.kind(receiver, env, call.ctx)
        if base is Kind.MODULE:
            if name in torchapi.MODULE_TRANSPARENT:
                return Kind.MODULE
            if name == "forward" or torchapi.LOSS_NAME.search(name):
                return self._forward(call, [])
            return None
        if is_leaf(call):
            return Kind.GRAPH
        if name in torchapi.DETACHING_METHODS:
            return Kind.DETACHED
        if base is Kind.GRAPH:
            return Kind.GRAPH
        if base in PLAIN:
            return recorded(combine([base, *(self.kind(arg, env, call.ctx) for arg in call.operands)]), call.ctx.grad)
        return None

    def _forward(self, call: ir.Call, operands: list[Kind]) -> Kind:
        """A module's result: with graph through its parameters; a criterion has none, so its operands decide."""
        callee = self.evidence.bindings.callee(call, self.function)
        if callee is not None and callee.grad is not Grad.ON:
            return Kind.DETACHED
        last = torchapi.last(call.path or "")
        if torchapi.CRITERION_NAME.search(last) and not torchapi.MODULE_NAME.match(last.replace("criterion", "")):
            return recorded(Kind.GRAPH if Kind.GRAPH in operands else Kind.UNKNOWN, call.ctx.grad)
        return recorded(Kind.GRAPH, call.ctx.grad)

    def _result(self, call: ir.Call, callee: ir.Function, env: Env, index: int | None) -> Kind:
        """What an in-file function returns for arguments of these kinds."""
        if self.depth >= MAX_CALLS:
            return Kind.UNKNOWN
        if callee.name in ("forward", "__call__"):
            return self._forward(call, [self.kind(arg, env, call.ctx) for arg in call.operands])
        args = tuple((param, self.kind(arg, env, call.ctx)) for param, arg in callee.arguments(call))
        key = (callee, args)
        if key not in self._callees:
            self._callees[key] = Values(callee, self.evidence, args, self.depth + 1)
        return recorded(self._callees[key].returned(index), call.ctx.grad)

    def returned(self, index: int | None) -> Kind:
        """The kind of this function's result, or of one part of it."""
        kinds = []
        for event in self.function.events():
            if isinstance(event, ir.Return):
                value = event.value
                if index is not None and isinstance(value, ir.Seq) and index < len(value.items):
                    value = value.items[index]
                kinds.append(self.at(value, event) if event.kind == "return" else Kind.UNKNOWN)
        return join(kinds) if kinds else Kind.CONST


def _reads(value: ir.Expr, place: str) -> bool:
    return any(place in paths.prefixes(path) for path in ir.names(value))


def recorded(kind: Kind, grad: Grad) -> Kind:
    """What autograd makes of a result in this mode."""
    if kind is not Kind.GRAPH or grad is Grad.ON:
        return kind
    return Kind.DETACHED if grad is Grad.OFF else Kind.UNKNOWN
