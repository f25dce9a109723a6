"""Where a tensor lives, on the host or on the device, as far as the code says."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.reaching import Env, in_order
from flake8_torchmem.analysis.settled import settled
from flake8_torchmem.analysis.values import Kind
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

TO_HOST = frozenset({"cpu", "numpy", "item", "tolist"})
TO_DEVICE = frozenset({"cuda", "xpu", "npu", "mps", "hpu"})
DEVICE_NAME = Words(r"device|(?:^|_)(?:dev|gpu|cuda|rank)(?:$|_|\d)", re.I)
DTYPE_NAME = Words(r"dtype|^(?:float|bfloat|half|int|long|bool)\d*$")
MOVES_BY_NAME = Words(r"(?:to|on)_?(?:device|cuda|gpu)|move_data|send_to|put_on|prepare_(?:batch|inputs?)", re.I)
COPIES_TO_HOST = Words(r"(?:to|on)_?(?:cpu|host|numpy|list)|numpify", re.I)
PREPARES = frozenset({"prepare", "prepare_model", "prepare_data_loader", "setup", "setup_module", "setup_dataloaders"})
PREPARER_NAME = Words(r"accelerator|fabric", re.I)


class Place(Enum):
    """Places. DEVICE: the code moves it to whatever device it was told to use."""

    HOST = "host"
    DEVICE = "device"
    UNKNOWN = "unknown"


def join(places: Iterable[Place]) -> Place:
    """The place of a value that is one of these, or made of them: one arm that moves to the device says what is meant."""
    found = set(places)
    if Place.DEVICE in found:
        return Place.DEVICE
    return Place.HOST if found == {Place.HOST} else Place.UNKNOWN


class Placement:
    """Places of the values of one function.

    Args:
        function: whose expressions.
        facts: of its file.
    """

    def __init__(self, function: ir.Function, facts: FileFacts) -> None:
        self.function = function
        self.facts = facts
        self.values = facts.values(function)
        self._filled: dict[str, list[ir.Store]] = {}
        for event in function.events():
            if isinstance(event, ir.Store) and event.kind == "setitem":
                self._filled.setdefault(event.place, []).append(event)

    def at(self, expr: ir.Expr, event: ir.Event) -> Place:
        """The place of an expression's value where an event happens."""
        return self.of(expr, self.values.reaching.at.get(event, {}))

    def of(self, expr: ir.Expr, env: Env) -> Place:
        """The place of an expression's value under definitions."""
        if isinstance(expr, ir.Const):
            return Place.HOST
        if isinstance(expr, ir.Name):
            return self._path(expr.path, env)
        if isinstance(expr, ir.Call):
            return self._call(expr, env)
        if isinstance(expr, ir.Op):
            return join(self.of(arg, env) for arg in (expr.args[1:] if expr.op == "if" else expr.args) if not isinstance(arg, ir.Const))
        if isinstance(expr, ir.Seq):
            return join(self.of(item, env) for item in expr.items)
        if isinstance(expr, (ir.Item, ir.Attr)):
            return self.of(expr.base, env)
        return self.of(expr.element, env) if isinstance(expr, ir.Comp) else Place.UNKNOWN

    def _path(self, path: str, env: Env) -> Place:
        for prefix in paths.prefixes(path):
            binds = env.get(prefix)
            if not binds and prefix.startswith("self."):
                binds = frozenset(self.facts.bindings.binds(prefix, self.function))
            found = [self._given(event) for event in (*in_order(binds or ()), *self._filled.get(prefix, ()))]
            if found:
                return join(found)
        return Place.DEVICE if paths.root(path) in self.function.params and self._fed_by_lightning() else Place.UNKNOWN

    def _fed_by_lightning(self) -> bool:
        """Whether this is a step of a Lightning module: its batches come on the device."""
        cls = self.function.owner
        return cls is not None and self.function.name.endswith("_step") and any(base.endswith("LightningModule") for base in cls.bases)

    @settled(Place.UNKNOWN)
    def _given(self, event: ir.Bind | ir.Store) -> Place:
        return self.at(event.value, event)

    def _call(self, call: ir.Call, env: Env) -> Place:
        name = call.method
        if name in TO_HOST or COPIES_TO_HOST.search(name):
            return Place.HOST
        if name in TO_DEVICE and call.receiver is not None:
            return Place.DEVICE
        named = [self.target(arg, env) for key, arg in call.kwargs.items() if key == "device"]
        given = [self.target(arg, env) for arg in call.args] if name == "to" or MOVES_BY_NAME.search(name) else []
        for place in named + given:
            if place is not None and place is not Place.UNKNOWN:
                return place
        if MOVES_BY_NAME.search(name) and call.operands:
            return Place.DEVICE
        full = self.facts.evidence.resolve(call.path or "", self.function)
        if full in torchapi.NUMBER_FUNCTIONS or full.startswith(torchapi.NUMBER_NAMESPACES):
            return Place.HOST
        return self._result(call, full, env)

    def _result(self, call: ir.Call, full: str, env: Env) -> Place:
        """Of a call that moves nothing: where its operands are, or the module that it runs."""
        operands = [self.of(arg, env) for arg in call.operands if not isinstance(arg, ir.Const)]
        if full.startswith("torch."):
            return join(operands)
        receiver = call.receiver
        path = call.path if isinstance(call.func, ir.Name) else None
        for module in (path, receiver.path if isinstance(receiver, ir.Name) else None):
            if module and self.values.kind(ir.Name(module), env, call.ctx) is Kind.MODULE:
                return Place.DEVICE if self.on_device(module) else join(operands)
        if receiver is not None and not (isinstance(receiver, ir.Name) and receiver.path == "self"):
            operands.append(self.of(receiver, env))
        return join(operands)

    def target(self, expr: ir.Expr, env: Env, depth: int = 0) -> Place | None:
        """What an argument of `.to(...)` means: a place, or None for a dtype or a flag."""
        if isinstance(expr, ir.Const):
            if isinstance(expr.value, str):
                return Place.HOST if expr.value.startswith("cpu") else Place.DEVICE
            return Place.DEVICE if isinstance(expr.value, int) and not isinstance(expr.value, bool) else None
        if isinstance(expr, ir.Op):
            if expr.op == "format":
                return Place.DEVICE
            return join(self.target(arg, env, depth) or Place.UNKNOWN for arg in expr.args[1:]) if expr.op == "if" else Place.UNKNOWN
        if isinstance(expr, ir.Call):
            if expr.method == "device" and expr.args:
                return self.target(expr.args[0], env, depth)
            return Place.DEVICE if DEVICE_NAME.search(expr.method) else Place.UNKNOWN
        return self._named_target(expr.path, env, depth) if isinstance(expr, ir.Name) else Place.UNKNOWN

    def _named_target(self, path: str, env: Env, depth: int) -> Place | None:
        last = torchapi.last(path)
        binds = list(env.get(path, ())) or self.facts.bindings.binds(path, self.function)
        found = {self.target(bind.value, env, depth + 1) for bind in binds} - {None} if depth < 3 else set()
        if Place.DEVICE in found or Place.HOST in found:
            return Place.DEVICE if Place.DEVICE in found else Place.HOST
        if DTYPE_NAME.search(last):
            return None
        if last == "device" and self._path(path.rpartition(".")[0], env) is Place.HOST:
            return Place.HOST
        return Place.DEVICE if DEVICE_NAME.search(last) else Place.UNKNOWN

    def on_device(self, module: str) -> bool:
        """Whether a module is moved to the device: where it is built, by a call of its own, or by an engine."""
        binds = self.facts.bindings.binds(module, self.function)
        if any(self._moves(node) for bind in binds for node in ir.walk(bind.value) if isinstance(node, ir.Call)):
            return True
        cls = self.function.owner
        methods = list(cls.methods.values()) if module.startswith("self.") and cls is not None else []
        around = [self.function, *methods, *([self.facts.program.module] if self.facts.program.module else [])]
        return any(
            self._moves(event.call) and isinstance(event.call.receiver, ir.Name) and event.call.receiver.path == module
            for function in around
            for event in self.facts.calls(function)
        )

    def _moves(self, call: ir.Call) -> bool:
        """Whether a call moves its receiver, or what it is given, to the device."""
        if call.method in TO_DEVICE:
            return True
        if call.method == "to":
            return any(self.target(arg, {}) is Place.DEVICE for arg in call.operands)
        return call.method in PREPARES and bool(PREPARER_NAME.search(call.path or ""))

    def arrivals(self) -> list[ir.Event]:
        """Events that bring something to the device."""
        return [event for event in self.function.events() if isinstance(event, ir.Invoke) and self._arrives(event)]

    def _arrives(self, event: ir.Invoke) -> bool:
        if event.call.method in TO_DEVICE or event.call.method == "to" or MOVES_BY_NAME.search(event.call.method):
            return self.at(event.call, event) is Place.DEVICE
        return False
