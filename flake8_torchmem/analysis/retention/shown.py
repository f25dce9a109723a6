"""What a file shows a value to be, beyond that it has a graph: one tensor and no tuple or dict of them; a tensor of one element.

An edit that calls a method of a value needs this certainty; a finding does without.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.frameworks import returned_losses
from flake8_torchmem.analysis.reaching import in_order
from flake8_torchmem.analysis.retention.later_uses import SHOWS
from flake8_torchmem.analysis.settled import settled
from flake8_torchmem.analysis.values import Kind, Values
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

MAX_CALLS = 3
NUMBERS = frozenset({Kind.CONST, Kind.NUMBER})
SEVERAL = torchapi.PAIR_RESULT | frozenset(
    (
        "chunk split unbind tensor_split hsplit vsplit values items meshgrid broadcast_tensors unique unique_consecutive svd qr lu"
        " std_mean var_mean aminmax slogdet frexp where nonzero multi_head_attention_forward"
    ).split()
)
SIZES = ("shape", "device", "dtype", "ndim")
REDUCES = frozenset({"sum", "mean", "norm", "item"})
ELEMENTWISE = frozenset("to cuda cpu float double half bfloat16 detach clone squeeze abs log exp sqrt neg sigmoid tanh clamp".split())
MEAN_LOSS = Words(r"^torch\.nn\.functional\.(?:\w*_loss(?:_with_logits)?|\w*cross_entropy\w*|kl_div)$")
LOSS_MODULE = Words(r"^torch\.nn\.(?!Adaptive)\w*Loss$")
FUNCTION = Words(r"^torch\.(?:nn\.functional\.)?[a-z]\w*$")
ONE_RESULT = Words(
    r"^torch\.nn\.(?:Linear|Conv\w+|\w*Loss|ReLU|GELU|Sigmoid|Tanh|Softmax|LogSoftmax|Embedding|BatchNorm\w+|LayerNorm|Flatten)$"
)
Key = tuple[str, ir.Bind | None]


class Shown:
    """Answers about the expressions of one function.

    Args:
        facts: of its file.
        function: the function.
        depth: calls between here and the first question.
        values: of the function, where more is known of its parameters.
        tensors: names of variables that are known to be tensors.
    """

    def __init__(
        self, facts: FileFacts, function: ir.Function, depth: int = 0, values: Values | None = None, tensors: frozenset[str] = frozenset()
    ) -> None:
        self.facts = facts
        self.function = function
        self.depth = depth
        self.values = values or facts.values(function)
        self.known = tensors
        self.at = self.values.reaching.at
        self._lost: set[Key] = set()
        self._parts: set[Key] = set()
        self._find_losses()

    def tensor(self, expr: ir.Expr, event: ir.Event) -> bool:
        """Whether an expression is one tensor where an event happens."""
        if isinstance(expr, ir.Name):
            return self._named_tensor(expr.path, event)
        if isinstance(expr, ir.Op):
            if expr.op == "if":
                return all(self.tensor(arm, event) for arm in expr.args[1:])
            if expr.op not in ("+", "-", "*", "/", "@", "neg", "**"):
                return False
            certain = expr.op not in ("+", "*")
            return any(self.tensor(arg, event) or (certain and self.values.at(arg, event) is Kind.GRAPH) for arg in expr.args)
        if isinstance(expr, ir.Item):
            return self._item(expr, event)
        if isinstance(expr, ir.Attr):
            return isinstance(expr.base, ir.Call) and expr.base.method in torchapi.PAIR_RESULT and expr.name == "values"
        return isinstance(expr, ir.Call) and self._call(expr, event)

    def single(self, expr: ir.Expr, event: ir.Event) -> bool:
        """Whether an expression is a number, or a tensor of one element."""
        if self.values.at(expr, event) in NUMBERS:
            return True
        if isinstance(expr, ir.Name):
            keys = self._keys(expr.path, event)
            binds = in_order(bind for _, bind in keys if bind is not None and bind.place == expr.path)
            return keys <= self._parts or (bool(binds) and all(self._bound_single(bind) for bind in binds))
        if isinstance(expr, ir.Op) and expr.op in ("+", "-", "*", "/", "neg", "**"):
            return all(self.single(arg, event) for arg in expr.args)
        if isinstance(expr, ir.Item):
            index = expr.key.value if isinstance(expr.key, ir.Const) else None
            return isinstance(expr.base, ir.Call) and isinstance(index, int) and self._returns(expr.base, index, single=True)
        return isinstance(expr, ir.Call) and self._single_call(expr, event)

    def varies(self, expr: ir.Expr, event: ir.Event, hops: int = MAX_CALLS) -> bool:
        """Whether an expression may be a number or None on some paths: what is done to it on others shows nothing."""
        if isinstance(expr, ir.Op) and (expr.op == "if" or expr.op in ir.BOOLEAN):
            parts = expr.args[1:] if expr.op == "if" else expr.args
            return any(self.values.at(part, event) in NUMBERS or self.varies(part, event, hops) for part in parts)
        if isinstance(expr, ir.Name):
            binds = in_order(bind for _, bind in self._keys(expr.path, event) if bind is not None and bind.place == expr.path)
            numbers = any(self.values.bound(bind) in NUMBERS for bind in binds)
            return numbers or (hops > 0 and any(self.varies(bind.value, bind, hops - 1) for bind in binds if bind.kind == "assign"))
        if isinstance(expr, ir.Call):
            callee = self.facts.bindings.callee(expr, self.function)
            returns = [other for other in callee.events() if isinstance(other, ir.Return)] if callee is not None else []
            return gives_default(expr) or any(isinstance(other.value, ir.Const) for other in returns)
        return False

    def _find_losses(self) -> None:
        """What is back-propagated, as it was bound: tensors of one element, and so are the terms and factors that they are made of."""
        roots: list[tuple[ir.Event, ir.Expr]] = []
        for event in self.function.events():
            if isinstance(event, ir.Backward) and not (event.engine is None and event.call.args and event.call.method == "backward"):
                roots.append((event, event.value))
            elif isinstance(event, ir.Invoke):
                roots += [(event, arg) for arg in self._back_propagated_by_callee(event.call)]
        roots += returned_losses(self.facts.bindings, self.function)
        for event, value in roots:
            if isinstance(value, ir.Name):
                self._lost |= self._keys(value.path, event)
        pending = {key for event, value in roots for path in _terms(value) for key in self._keys(path, event)}
        while pending:
            key = pending.pop()
            self._parts.add(key)
            path, bind = key
            if bind is not None and bind.place == path:
                if isinstance(bind.value, ir.Name):
                    self._lost |= self._keys(bind.value.path, bind) if key in self._lost else set()
                pending |= {found for term in _terms(bind.value) for found in self._keys(term, bind)} - self._parts

    def _back_propagated_by_callee(self, call: ir.Call) -> Iterator[ir.Expr]:
        callee = self.facts.bindings.callee(call, self.function)
        if callee is not None and "backward" in self.facts.summaries.effects(callee):
            values = [event.value for event in callee.events() if isinstance(event, ir.Backward)]
            lost = {value.path for value in values if isinstance(value, ir.Name)}
            yield from (arg for param, arg in callee.arguments(call) if param in lost and isinstance(arg, ir.Name))

    def _keys(self, path: str, event: ir.Event) -> set[Key]:
        """A path together with what it, or what it starts from, is bound to at an event."""
        env = self.at.get(event, {})
        binds = next((env[prefix] for prefix in paths.prefixes(path) if env.get(prefix)), None)
        return {(path, bind) for bind in binds} if binds else {(path, None)}

    def _named_tensor(self, path: str, event: ir.Event) -> bool:
        keys = self._keys(path, event)
        if path in self.known:
            return True
        if self.varies(ir.Name(path), event):
            return self._always_lost(path, keys, event)  # what is done to it on some paths says nothing of the others
        if keys <= self._lost or self._used_as_tensor(path, keys):
            return True
        annotation = self.function.annotations.get(path)
        if annotation is not None and (path, None) in keys:
            return any(torchapi.last(name) == "Tensor" for name in (annotation.path if isinstance(annotation, ir.Name) else "",))
        binds = in_order(bind for _, bind in keys if bind is not None and bind.place == path)
        return bool(binds) and len(binds) == len(keys) and all(self._bound_tensor(bind) for bind in binds)

    def _always_lost(self, path: str, keys: set[Key], event: ir.Event) -> bool:
        """Whether this very value is back-propagated wherever the event happens."""
        around = {(id(cond), arm) for cond, arm, _ in event.ctx.conds}
        for other in self.function.events():
            if isinstance(other, ir.Backward) and isinstance(other.value, ir.Name) and other.value.path == path:
                inside = other.ctx.loops == event.ctx.loops[: len(other.ctx.loops)]
                if inside and keys <= self._keys(path, other) and {(id(cond), arm) for cond, arm, _ in other.ctx.conds} <= around:
                    return True
        return False

    @settled(True)  # what a value gets by itself is what it is without
    def _bound_tensor(self, bind: ir.Bind) -> bool:
        return bind.kind in ("assign", "augment") and self.tensor(bind.value, bind)

    @settled(True)
    def _bound_single(self, bind: ir.Bind) -> bool:
        return (bind.place, bind) in self._parts or (bind.kind in ("assign", "augment") and self.single(bind.value, bind))

    def _used_as_tensor(self, path: str, keys: set[Key]) -> bool:
        """Whether the function does with this very value what nothing but a tensor can stand."""
        return any(keys <= self._keys(path, event) for event in self._showing.get(path, ()))

    @cached_property
    def _showing(self) -> dict[str, list[ir.Event]]:
        """The events that show of a path that it is a tensor."""
        found: dict[str, list[ir.Event]] = {}
        for event in self.function.events():
            shown = (path for expr in expressions(event) for node in ir.walk(expr) for path in self._shown_by(node))
            for path in dict.fromkeys(shown):
                found.setdefault(path, []).append(event)
        return found

    def _shown_by(self, node: ir.Expr) -> Iterator[str]:
        """The paths that are tensors if an expression is right."""
        if isinstance(node, ir.Call):
            full = self.facts.evidence.resolve(node.path or "", self.function)
            taken = node.args[:2] if full.startswith("torch.nn.functional.") or self._is_loss_module(node) else ()
            receiver = (node.receiver,) if node.method in SHOWS else ()
            yield from (arg.path for arg in (*receiver, *taken) if isinstance(arg, ir.Name))
        elif isinstance(node, ir.Op) and node.op in ("-", "*", "/", "<", ">", "<=", ">="):
            yield from (arg.path for arg in node.args if isinstance(arg, ir.Name))
        elif isinstance(node, ir.Item) and isinstance(node.base, ir.Name) and _slices(node.key):
            yield node.base.path
        elif isinstance(node, ir.Name):
            path, _, size = node.path.rpartition(".")
            if size in SIZES:
                yield path

    def _item(self, expr: ir.Item, event: ir.Event) -> bool:
        """A part: of a tensor, or of the result of a function in sight."""
        base, key = expr.base, expr.key.value if isinstance(expr.key, ir.Const) else None
        if isinstance(base, ir.Call) and isinstance(key, int):
            if base.method in torchapi.PAIR_RESULT:
                return True
            if self._returns(base, key, single=False):
                return True
        return _slices(expr.key) or self.tensor(base, event)

    def _call(self, call: ir.Call, event: ir.Event) -> bool:
        full = self.facts.evidence.resolve(call.path or "", self.function)
        several = call.method in SEVERAL and (call.operands or call.method not in ("max", "min", "median"))
        if full.startswith("torch."):
            return not several and not call.kwargs.keys() & {"return_indices", "out"} and bool(FUNCTION.match(full))
        callee = self.facts.bindings.callee(call, self.function)
        if callee is not None:
            return self._returns(call, None, single=False)
        if call.receiver is not None and call.method in torchapi.OF_TENSORS | torchapi.TENSOR_METHODS and not several:
            found = call.method in SHOWS and self.values.at(call.receiver, event) in (Kind.GRAPH, Kind.DETACHED)
            return found or self.tensor(call.receiver, event)
        return any(ONE_RESULT.match(made) for made in self._made_by(call))

    def _single_call(self, call: ir.Call, event: ir.Event) -> bool:
        full = self.facts.evidence.resolve(call.path or "", self.function)
        reduced = _reduced(call)
        if MEAN_LOSS.match(full) or self._is_loss_module(call):
            return reduced
        if full.startswith("torch."):
            one = len(call.operands) == 1
            return one and (call.method in REDUCES or (call.method in ELEMENTWISE and self.single(call.args[0], event)))
        if self.facts.bindings.callee(call, self.function) is not None:
            return self._returns(call, None, single=True)
        if call.receiver is None:
            return False
        if call.method in REDUCES:
            return not call.operands
        return call.method in ELEMENTWISE and self.single(call.receiver, event)

    def _returns(self, call: ir.Call, index: int | None, single: bool) -> bool:
        """Whether a function in sight returns a tensor, or one of a single element, by itself or as this part of a tuple."""
        callee = self.facts.bindings.callee(call, self.function)
        if callee is None or callee is self.function or self.depth >= MAX_CALLS:
            return False
        inner = Shown(self.facts, callee, self.depth + 1)
        found = []
        for event in callee.events():
            if isinstance(event, ir.Return):
                value = event.value
                if isinstance(value, ir.Seq):
                    value = value.items[index] if index is not None and value.kind == "tuple" and index < len(value.items) else value
                elif index is not None:
                    return False
                found.append(event.kind == "return" and (inner.single if single else inner.tensor)(value, event))
        return bool(found) and all(found)

    def _made_by(self, call: ir.Call) -> Iterator[str]:
        """Full names of what made the module that a call runs, where all of it is in sight."""
        binds = self.facts.bindings.binds(self.facts.bindings.canonical(call.path or "", self.function), self.function)
        for bind in binds if len(binds) == 1 else ():
            value = bind.value
            while isinstance(value, ir.Call) and value.receiver is not None and value.method in torchapi.MODULE_TRANSPARENT:
                value = value.receiver
            while isinstance(value, ir.Call) and value.method == "Sequential" and value.args and not value.star:
                value = value.args[-1]
            if isinstance(value, ir.Call):
                yield torchapi.resolve(value.path or "", self.function.file.imports)

    def _is_loss_module(self, call: ir.Call) -> bool:
        return any(LOSS_MODULE.match(made) for made in self._made_by(call)) and self._reduces(call)

    def _reduces(self, call: ir.Call) -> bool:
        """Whether the module that a call runs was made to give the mean or sum."""
        binds = self.facts.bindings.binds(self.facts.bindings.canonical(call.path or "", self.function), self.function)
        return all(_reduced(node) for bind in binds for node in ir.walk(bind.value) if isinstance(node, ir.Call))


def expressions(event: ir.Event) -> Iterator[ir.Expr]:
    """What an event evaluates."""
    if isinstance(event, (ir.Bind, ir.Store, ir.Return)):
        yield event.value
    elif isinstance(event, (ir.Invoke, ir.Backward, ir.Step, ir.Zero)) and event.call is not None:
        yield event.call


def gives_default(call: ir.Call) -> bool:
    """Whether a call may give a default, or what it started from, which may be a number."""
    return call.method in (("max", "min", "sum", "next", "getattr") if call.receiver is None else ("get", "pop", "setdefault"))


def _reduced(call: ir.Call) -> bool:
    """Whether a loss is not told to keep one value per element."""
    wanted = call.kwargs.get("reduction")
    told = wanted is None or (isinstance(wanted, ir.Const) and wanted.value in ("mean", "sum", "batchmean"))
    spelled = any(isinstance(arg, ir.Const) and arg.value == "none" for arg in call.args)
    return told and not spelled and "reduce" not in call.kwargs and not call.star


def _slices(key: ir.Expr) -> bool:
    """Whether a subscript has a slice or more than one index: containers take neither."""
    items = key.items if isinstance(key, ir.Seq) and key.kind == "tuple" else ()
    return any(isinstance(item, ir.Seq) and item.kind == "slice" for item in items)


def _terms(value: ir.Expr) -> Iterator[str]:
    """Paths that are terms or factors of a value: where that is a single number, so are they."""
    pending = [value]
    while pending:
        node = pending.pop()
        if isinstance(node, ir.Name):
            yield node.path
        elif isinstance(node, ir.Op) and node.op in ("+", "-", "*", "/", "neg"):
            pending.extend(node.args)
        elif isinstance(node, ir.Call) and node.receiver is not None and node.method in ELEMENTWISE:
            pending.append(node.receiver)
        elif isinstance(node, ir.Call) and node.method == "scale" and node.args:
            pending.append(node.args[0])
