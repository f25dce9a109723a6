"""What a file shows about its values: which paths are modules, which values are back-propagated."""

from __future__ import annotations

import re
from collections.abc import Iterator

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.frameworks import returned_losses
from flake8_torchmem.analysis.memo import memoized
from flake8_torchmem.analysis.reaching import Reaching
from flake8_torchmem.lazy import Words

FREEZES_BY_NAME = Words(r"requires_grad|toggle_grad|trainable", re.I)
OTHER_FRAMEWORKS = ("jax", "flax", "tensorflow", "keras", "paddle", "mxnet", "onnxruntime", "tensorrt", "openvino")
WEIGHT_NAME = Words(r"lambda|weight|coef|alpha|beta|gamma|scale|ratio|^w_|_w$|args|cfg|config|opt\b|hparams", re.I)
# A plain `loss` beside the one that is back-propagated is the number for the log.
FOR_THE_LOG = Words(r"^loss$|log|item|val|dict|info|stat|record|scalar|num|display|s$", re.I)
ENDS_GRAPH = torchapi.NUMBER_METHODS | torchapi.DETACHING_METHODS
TYPE_TESTS = frozenset({"isinstance", "hasattr", "is_tensor", "issubclass", "callable", "isscalar"})
CARRIES_PARTS = frozenset({"+", "-", "*", "/", "neg", "pos", "@", "**", "and", "or", "if"})


def carriers(expr: ir.Expr) -> Iterator[str]:
    """Access paths whose graph the expression's value carries on."""
    pending = [expr]
    while pending:
        node = pending.pop()
        if isinstance(node, ir.Name):
            head, _, tail = node.path.rpartition(".")
            if head and (tail in torchapi.DETACHED_ATTRIBUTES or tail in torchapi.NUMBER_ATTRIBUTES):
                continue
            yield node.path
        elif isinstance(node, ir.Call):
            if node.method in (ENDS_GRAPH if node.receiver is not None else torchapi.NUMBER_FUNCTIONS):
                continue  # `float(x)` ends the graph, `x.float()` carries it on
            pending.extend(node.operands)
            if isinstance(node.receiver, ir.Expr):
                pending.append(node.receiver)
        elif isinstance(node, ir.Op) and (node.op in ir.COMPARISONS or node.op == "format"):
            continue
        elif isinstance(node, ir.Op) and node.op == "if":
            pending.extend(arms(node))
        else:
            pending.extend(ir.parts(node))


def arms(expr: ir.Op) -> list[ir.Expr]:
    """What a conditional expression may give; `x.item() if torch.is_tensor(x) else x` gives no tensor `x`."""
    sorted_out = type_tested(expr.args[0])
    return [arm for arm in expr.args[1:] if not (isinstance(arm, ir.Name) and arm.path in sorted_out)] or list(expr.args[1:])


def type_tested(test: ir.Expr) -> set[str]:
    """Paths whose type a test asks for."""
    calls = (node for node in ir.walk(test) if isinstance(node, ir.Call) and node.method in TYPE_TESTS and node.args)
    return {call.args[0].path for call in calls if isinstance(call.args[0], ir.Name)}


class Evidence:
    """Answers about one program.

    Args:
        bindings: what its names stand for.
        bases: full base names of every class of the file, also of those whose methods were sliced away.
        guarded: classes whose calls run without gradients by themselves.
    """

    def __init__(self, bindings: Bindings, bases: dict[str, tuple[str, ...]], guarded: frozenset[str]) -> None:
        self.bindings = bindings
        self.bases = bases
        self.guarded = guarded
        self._marked: dict[ir.Function, set[ir.Bind]] = {}
        self._feeding: dict[ir.Function, frozenset[str]] = {}
        self._calls = [(function, event.call) for function in bindings.program.all_functions() for event in function.calls()]
        self._used_as_module = {
            call.receiver.path
            for _, call in self._calls
            if call.method in ("parameters", "named_parameters", "train", "eval", "modules", "named_modules", "requires_grad_")
            and isinstance(call.receiver, ir.Name)
            and not (call.method in ("train", "eval") and len(call.args) > 1)
            and not torchapi.looks_like_optimizer(call.receiver.path)
        }
        self._frozen_classes: set[str] = set()
        self._frozen = set(self._find_frozen()) - {"self"}

    @memoized
    def resolve(self, path: str, function: ir.Function) -> str:
        """The full dotted name of a path, unless a local variable hides the import."""
        return (
            path
            if paths.root(path) in function.locals
            else torchapi.resolve(self.bindings.canonical(path, function), function.file.imports)
        )

    def _find_frozen(self) -> Iterator[str]:
        """Modules whose parameters were told not to require gradients."""
        for function, call in self._calls:
            if _freezes(call):
                for base in (node.path for node in _receivers(call) if isinstance(node, ir.Name)):
                    yield base.removesuffix(".parameters")
                    yield from self._iterated(base, function)
            if FREEZES_BY_NAME.search(call.method) and any(isinstance(arg, ir.Const) and arg.value is False for arg in call.operands):
                yield from (path for arg in call.operands for path in ir.names(arg))
            if "freeze" in call.method and "un" not in call.method:
                yield from (path for arg in (*call.operands, call.receiver) if arg is not None for path in ir.names(arg))
        for function in self.bindings.program.all_functions():
            for place, binds in self.bindings.assigned(function).items():
                if place.endswith(".requires_grad") and any(_is_false(bind) for bind in binds):
                    yield from self._iterated(paths.root(place), function)

    def _iterated(self, name: str, function: ir.Function) -> Iterator[str]:
        """The module whose parameters a loop variable goes over."""
        for bind in self.bindings.binds(name, function):
            if bind.kind != "target" or bind.ctx.conds:
                continue
            modules = [path.removesuffix(".parameters").removesuffix(".named_parameters") for path in ir.names(bind.value)]
            if "self" in modules and function.owner is not None:
                self._frozen_classes.add(function.owner.full)
            yield from modules

    @memoized
    def reaching(self, function: ir.Function) -> Reaching:
        """The reaching definitions of a function."""
        return Reaching(function)

    @memoized
    def is_module(self, path: str, function: ir.Function) -> bool:
        path = self.bindings.canonical(path, function)
        if path in self._frozen:
            return False
        if path in ("self", "super()") and function.owner:
            return self.module_class(function.owner.full)
        for bind in self.bindings.binds(path, function):
            if any(isinstance(node, ir.Call) and (_freezes(node) or self._guards_itself(node)) for node in _spine(bind.value)):
                return False
            if self.builds(bind.value):
                return True
        if path in self._used_as_module:
            return True
        last = torchapi.last(path)
        if path.endswith("[*]"):
            last = last.removesuffix("s")  # one of the `models`
        if self._is_of_another_framework(function.file):
            return False
        partial = any(isinstance(bind.value, ir.Call) and bind.value.method == "partial" for bind in self.bindings.binds(path, function))
        if partial or torchapi.NOT_MODULE_NAME.match(last):
            return False
        base = path.rpartition(".")[0]
        held = base.count(".") <= 1 and not torchapi.HOLDS_NO_MODULES.search(torchapi.last(base))
        return bool(torchapi.MODULE_NAME.match(last)) and held and last not in function.file.imports

    @memoized
    def _is_of_another_framework(self, file: ir.File) -> bool:
        return any(full.startswith(OTHER_FRAMEWORKS) for full in file.imports.values())

    def _guards_itself(self, call: ir.Call) -> bool:
        """Whether a call builds something that runs without gradients by itself: `YOLO(...)`, `SomePipeline.from_pretrained(...)`."""
        return torchapi.resolve(call.path or "", call.ctx.file.imports) in self.guarded | self._frozen_classes or any(
            torchapi.SELF_GUARDED.match(part) for part in (call.path or "").split(".")
        )

    def builds(self, value: ir.Expr) -> bool:
        """Whether a value is a module that is made here: `Net().to(device)`."""
        return any(isinstance(node, ir.Call) and self._builds_module(node) for node in _spine(value))

    def _builds_module(self, call: ir.Call) -> bool:
        path = call.path or ""
        full = torchapi.resolve(path, call.ctx.file.imports)
        return bool(torchapi.MODULE_FACTORY.match(full)) or call.method in torchapi.MODULE_WRAPPERS or self.module_class(full)

    def module_class(self, name: str, depth: int = 0) -> bool:
        """Whether a class of the file derives from a torch module."""
        bases = self.bases.get(name, ())
        return any(torchapi.MODULE_BASE.search(base) or (depth < 5 and self.module_class(base, depth + 1)) for base in bases)

    def backpropagated(self, bind: ir.Bind, function: ir.Function) -> bool:
        """Whether what this binding made is back-propagated in the function, or comes along with what is."""
        if function not in self._marked:
            self._marked[function] = self._mark(function)
        return bind in self._marked[function]

    def feeds_backward(self, function: ir.Function) -> frozenset[str]:
        """Paths whose value, through any number of bindings and stores, reaches a backward of the function."""
        if function not in self._feeding:
            self._feeding[function] = frozenset()
            self._feeding[function] = frozenset(self._feed(function))
        return self._feeding[function]

    def _feed(self, function: ir.Function) -> set[str]:
        sources: dict[str, set[str]] = {}
        found: set[str] = set()
        family = [function, *function.nested.values()]
        for event in (event for member in family for event in member.events()):
            if isinstance(event, ir.Backward):
                found.update(carriers(event.value))
            elif isinstance(event, (ir.Bind, ir.Store)):
                sources.setdefault(event.place, set()).update(carriers(event.value))
            elif isinstance(event, ir.Invoke):
                found.update(self._given_to_backward(event.call, function))
        found.update(path for _, loss in returned_losses(self.bindings, function) for path in carriers(loss))
        pending = list(found)
        while pending:
            path = pending.pop()
            for prefix in paths.prefixes(path):
                for source in sources.get(prefix, set()) - found:
                    found.add(source)
                    pending.append(source)
        return found | {prefix for path in found for prefix in paths.prefixes(path)}

    def _given_to_backward(self, call: ir.Call, function: ir.Function) -> Iterator[str]:
        """Arguments of callees that back-propagate what they get, in the file or by their name."""
        receiver = call.receiver
        if call.method in ("grad", "closure") or torchapi.takes_loss(call.method, receiver.path if isinstance(receiver, ir.Name) else None):
            yield from (path for arg in call.operands for path in carriers(arg))
        callee = self.bindings.callee(call, function)
        if callee is not None and any(isinstance(event, ir.Backward) for event in callee.events()):
            feeding = self.feeds_backward(callee) if callee is not function else frozenset(param for param, _ in callee.arguments(call))
            for param, arg in callee.arguments(call):
                if param in feeding:
                    yield from carriers(arg)

    def _mark(self, function: ir.Function) -> set[ir.Bind]:
        at = self.reaching(function).at
        roots: list[tuple[ir.Event, ir.Expr]] = [(event, event.value) for event in function.events() if isinstance(event, ir.Backward)]
        roots += returned_losses(self.bindings, function)
        pending = [bind for event, value in roots for path in direct(value) for bind in at[event].get(path, ())]
        marked = set(pending)
        unpacked: dict[ir.Expr, list[ir.Bind]] = {}
        for event in function.events():
            if isinstance(event, ir.Bind) and isinstance(event.value, ir.Item) and _is_loss(event.place):
                unpacked.setdefault(event.value.base, []).append(event)
        while pending:
            bind = pending.pop()
            parts = (other for path in direct(bind.value) if _is_part(path) for other in at[bind].get(path, ()))
            siblings = unpacked.get(bind.value.base, ()) if isinstance(bind.value, ir.Item) else ()
            for other in (*parts, *siblings):
                if other not in marked and (isinstance(_source(other.value), ir.Call) or _direct_op(other.value)):
                    marked.add(other)
                    pending.append(other)
        return marked


def direct(expr: ir.Expr) -> Iterator[str]:
    """Paths that arithmetic and transparent methods combine into the value, calls of functions left out."""
    pending = [expr]
    while pending:
        node = pending.pop()
        if isinstance(node, ir.Name):
            yield node.path
        elif isinstance(node, ir.Op) and node.op in CARRIES_PARTS:
            pending.extend(node.args[1:] if node.op == "if" else node.args[:1] if node.op in ("/", "**") else node.args)
        elif (
            isinstance(node, ir.Call)
            and node.method in ("scale", "mean", "sum", "to", "cuda", "squeeze", "float", "half")
            and node.receiver
        ):
            pending.extend(node.args[:1] if node.method == "scale" else ())
            if node.method != "scale":
                pending.append(node.receiver)
        elif isinstance(node, (ir.Seq,)):
            pending.extend(node.items)


def _is_part(path: str) -> bool:
    """Whether a summand's name says loss, and not weight or metric."""
    last = torchapi.last(path)
    return bool(torchapi.LOSS_NAME.search(last)) and not WEIGHT_NAME.search(path)


def _is_loss(place: str) -> bool:
    """Whether what was unpacked from a call is named as a loss."""
    last = torchapi.last(place)
    return bool(torchapi.LOSS_NAME.search(last)) and not torchapi.METRIC_NAME.search(last) and not FOR_THE_LOG.search(last)


def is_leaf(expr: ir.Expr) -> bool:
    """Whether a value is a new leaf that collects gradients: it starts graphs and is part of none."""
    if not isinstance(expr, ir.Call):
        return False
    wanted = expr.kwargs.get("requires_grad")
    return expr.method in ("requires_grad_", "Parameter") or (isinstance(wanted, ir.Const) and wanted.value is True)


def _is_false(bind: ir.Bind) -> bool:
    """`p.requires_grad = False` for all parameters, not for some of them."""
    loop = bind.ctx.loops[-1] if bind.ctx.loops else None
    return isinstance(bind.value, ir.Const) and bind.value.value is False and not bind.ctx.conds_inside(loop)


def _freezes(call: ir.Call) -> bool:
    """`requires_grad_(False)`."""
    argument = call.args[0] if call.args else call.kwargs.get("requires_grad")
    return call.method == "requires_grad_" and isinstance(argument, ir.Const) and argument.value is False


def _receivers(call: ir.Call) -> Iterator[ir.Expr]:
    """What a chain of calls starts from: `x` of `x.eval().requires_grad_(False)`."""
    receiver = call.receiver
    while isinstance(receiver, ir.Call):
        receiver = receiver.receiver
    if receiver is not None:
        yield receiver


def _source(expr: ir.Expr) -> ir.Expr:
    while isinstance(expr, (ir.Item, ir.Attr)):
        expr = expr.base
    return expr


def _direct_op(expr: ir.Expr) -> bool:
    return isinstance(expr, ir.Op) and expr.op in CARRIES_PARTS


def _spine(expr: ir.Expr) -> Iterator[ir.Expr]:
    """The calls that a value went through: `Net().to(device)` is built by `Net`."""
    while isinstance(expr, ir.Call):
        yield expr
        receiver = expr.receiver
        if isinstance(receiver, ir.Call):
            expr = receiver
        elif expr.method in torchapi.MODULE_WRAPPERS and expr.args:
            expr = expr.args[0]
        else:
            return
