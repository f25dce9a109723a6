"""What becomes of a value after it was stored: whether each use wants a number, needs a tensor, or shows which of the two it is."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, TypeVar

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.lazy import Words, regex

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

Key = TypeVar("Key", bound=Hashable)
MAX_ROUNDS = 8
SINGLE = frozenset({"float", "int", "bool"})
TELLS = frozenset({"print", "str", "repr", "format", "torch.tensor", "torch.full"})
PASSES = frozenset({"max", "min", "abs", "sum", "next"})
BOXES = frozenset({"list", "tuple", "sorted", "reversed", "zip", "enumerate", "iter", "set", "dict", "tqdm"})
OF_BOXES = frozenset({"values", "items", "copy", "keys"})
PAIRS = frozenset({"items", "enumerate", "zip"})
TAKES_OUT = frozenset({"get", "pop", "popleft", "setdefault"})
JOINS = frozenset({"torch.cat", "torch.stack", "torch.concat", "torch.vstack", "torch.hstack", "torch.concatenate"})
ASK = frozenset({"torch.is_tensor", "torch.save", "torch.as_tensor", "torch.from_numpy"})
NUMBER_LIBRARIES = ("numpy.", "math.", "statistics.", "json.", "csv.")
TAKES_NUMBERS = Words(
    r"^(?:add_scalars?|log|log_\w+|info|debug|warning|error|critical|print|set_postfix(?:_str)?|set_description(?:_str)?|write|writerow|format)$"
)
OF_DICTS_TOO = frozenset("to cuda values items half float split index_select expand repeat type_as max min t norm backward".split())
SHOWS = (torchapi.OF_TENSORS | torchapi.TENSOR_METHODS | {"item", "size", "dim", "argmax", "numel", "backward"}) - OF_DICTS_TOO
ARITHMETIC = frozenset({"+", "-", "*", "/", "//", "**", "%", "neg", "pos"})
ITEM = regex(r"(?:\[(?:'[^']*'|[^\]'])*\])+")


class Use(Enum):
    """What a use can stand.

    NUMBER: a number does as well. SINGLE: a tensor of several elements would raise. TENSOR: a number might not do. METHOD: only tensors do.
    JOINED: it is concatenated, so it is a sequence of tensors.
    """

    NUMBER = "number"
    SINGLE = "single"
    TENSOR = "tensor"
    METHOD = "method"
    JOINED = "joined"


class Holds(IntEnum):
    """What an expression has of the followed value: nothing, the value (or a number made of it), or a container that it is in."""

    NO = 0
    VALUE = 1
    BOX = 2


class LaterUses:
    """Follows a value through a program, without regard to order.

    Args:
        facts: of the file.
        function: that the place is seen from.
        place: what holds the value.
        boxed: it is a container of such values.
    """

    def __init__(self, facts: FileFacts, function: ir.Function, place: str, boxed: bool = False) -> None:
        self.facts = facts
        self.uses: set[Use] = set()
        self.held: dict[ir.Function, dict[str, Holds]] = {}
        self.attributes: dict[str, Holds] = {}
        self.returned: dict[tuple[ir.Function, int | None], Holds] = {}
        self.function = function
        self._reached: set[ir.Function] = set()  # the others have nothing of the value: whole files are read for each value that is mended
        self._known = 0
        self._hold(function, place, Holds.BOX if boxed else Holds.VALUE)
        for _ in range(MAX_ROUNDS):
            before = self._known
            for each in facts.readers.functions:
                if each in self._reached:
                    self._read(each)
            if before == self._known:
                return
        self.uses.add(Use.TENSOR)

    @property
    def wants_number(self) -> bool:
        """Whether there are uses, and a number does for all of them."""
        return bool(self.uses) and not self.uses & {Use.TENSOR, Use.METHOD}

    def _hold(self, function: ir.Function, place: str, holds: Holds) -> None:
        """A place holds it from now on, in every function that sees the place."""
        if place.startswith("self."):
            name = place.removeprefix("self.")
            if self._is_new(self.attributes, name, holds):
                self._reached.update(self.facts.readers.naming(name))
            return
        readers = self.facts.readers.naming(place)
        for scope in self._scopes(function, paths.root(place)):
            if self._is_new(self.held.setdefault(scope, {}), place, holds) and scope in readers:
                self._reached.add(scope)

    def _is_new(self, known: dict[Key, Holds], key: Key, holds: Holds) -> bool:
        """Take notice of what holds the value, unless that is known: what was first is not taken back."""
        if key in known:
            return False
        known[key] = holds
        self._known += 1
        return True

    def _scopes(self, function: ir.Function, root: str) -> Iterator[ir.Function]:
        """The functions that see the variable that a function knows by this name."""
        owner: ir.Function | None = function
        while owner is not None and root not in owner.locals:
            owner = owner.parent
        if owner is None or owner is self.facts.program.module:
            yield from (each for each in self.facts.program.own_functions() if root not in each.locals or each is owner)
            return
        pending = [owner]
        for scope in pending:
            yield scope
            pending.extend(inner for inner in scope.nested.values() if root not in inner.locals)

    def _read(self, function: ir.Function) -> None:
        self.function = function
        for block in function.blocks:
            for event in block.events:
                self._event(event)
            for edge in block.edges:
                if edge.cond is not None:
                    self._condition(edge.cond)
        for test in function.tests:
            self._condition(test)
        if any(self._of(manager) for manager in function.managers):
            self.uses.add(Use.TENSOR)

    def _event(self, event: ir.Event) -> None:
        if isinstance(event, ir.Bind):
            holds = self._of(event.value)
            if holds and event.kind != "delete":
                self._hold(self.function, event.place, holds)
        elif isinstance(event, ir.Store):
            if event.key is not None and self._of(event.key):
                self.uses.add(Use.TENSOR)
            if self._of(event.value):
                self._hold(self.function, event.place, Holds.BOX)
        elif isinstance(event, ir.Return):
            self._return(event)
        elif isinstance(event, (ir.Invoke, ir.Backward, ir.Step, ir.Zero)) and event.call is not None:
            self._of(event.call)
            if isinstance(event, ir.Backward) and self._of(event.value):
                self.uses |= {Use.TENSOR, Use.METHOD}

    def _return(self, event: ir.Return) -> None:
        """What is returned goes on in the callers; without any in sight, nobody knows what it has to be."""
        value = event.value
        parts = enumerate(value.items) if isinstance(value, ir.Seq) and value.kind == "tuple" else ((None, value),)
        for index, part in parts:
            holds = self._of(part)
            if not holds:
                continue
            if self._is_new(self.returned, (self.function, index), holds):
                self._reached.update(self.facts.readers.calling(self.function))
            handed = any(name == self.function.name for _, name in self.facts.bindings.handed)
            if event.kind == "yield" or handed or self.function not in self.facts.summaries.callers:
                self.uses.add(Use.TENSOR)

    def _condition(self, cond: ir.Expr) -> None:
        """A test asks for the one truth value of what it is about."""
        for node in ir.walk(cond):
            compared = node.args if isinstance(node, ir.Op) and node.op in ("<", "<=", ">", ">=", "==", "!=") else ()
            if any(self._of(arg) is Holds.VALUE for arg in compared):
                self.uses.add(Use.SINGLE)
        if self._of(cond) is Holds.VALUE:
            self.uses.add(Use.SINGLE)

    def _of(self, expr: ir.Expr) -> Holds:
        """What an expression has of the value; what its parts do with it is noted."""
        if isinstance(expr, ir.Name):
            return self._path(expr.path)
        if isinstance(expr, ir.Call):
            return self._call(expr)
        if isinstance(expr, ir.Op):
            return self._operator(expr)
        if isinstance(expr, ir.Item):
            return self._item(expr)
        found = [self._of(part) for part in ir.parts(expr)]
        if not any(found):
            return Holds.NO
        if isinstance(expr, ir.Seq) and expr.kind != "slice":
            return Holds.BOX
        if isinstance(expr, ir.Comp):
            return Holds.BOX if found[0] else Holds.NO
        self.uses.add(Use.TENSOR)
        return Holds.NO

    def _path(self, path: str) -> Holds:
        found = [self._matched(place, holds, path) for place, holds in self.held.get(self.function, {}).items()]
        if self.attributes:
            tails = [path[index + 1 :] for index, char in enumerate(path) if char == "."]
            found += [self._matched(place, holds, tail) for place, holds in self.attributes.items() for tail in tails]
        return max(found, default=Holds.NO)

    def _matched(self, place: str, holds: Holds, path: str) -> Holds:
        """What a path has of a value at a place."""
        if path == place:
            return holds
        if place.startswith((f"{path}.", f"{path}[")):
            return Holds.BOX
        if not path.startswith((f"{place}.", f"{place}[")):
            return Holds.NO
        if holds is Holds.BOX and ITEM.fullmatch(path[len(place) :]):
            return Holds.VALUE
        self.uses.add(Use.TENSOR)
        return Holds.NO

    def _operator(self, expr: ir.Op) -> Holds:
        found = [self._of(arg) for arg in expr.args]
        if not any(found) or expr.op in ("is", "is not", "in", "not in", "not"):
            return Holds.NO
        if expr.op == "format" or (expr.op == "%" and isinstance(expr.args[0], ir.Const)):
            text = "".join(str(arg.value) for arg in expr.args if isinstance(arg, ir.Const))
            self.uses.add(Use.SINGLE if re.search(r"%[-+ 0#]*\d*(?:\.\d+)?[dfge]", text) and expr.op == "%" else Use.NUMBER)
            return Holds.NO
        if expr.op == "spec":
            self.uses.add(Use.SINGLE)
            return Holds.NO
        if expr.op == "if":
            return max(found[1:])
        if expr.op in ir.BOOLEAN:
            return max(found)
        if expr.op in ARITHMETIC or expr.op in ir.COMPARISONS:
            return max(found)  # a truth value is a number, or a tensor of them
        self.uses.add(Use.TENSOR)
        return Holds.NO

    def _item(self, expr: ir.Item) -> Holds:
        key = expr.key.value if isinstance(expr.key, ir.Const) else None
        if self._of(expr.key):
            self.uses.add(Use.TENSOR)
        base = self._of(expr.base)
        if isinstance(expr.base, ir.Call) and isinstance(key, int):
            callee = self.facts.bindings.callee(expr.base, self.function)
            if callee is not None and any(function is callee and index is not None for function, index in self.returned):
                return self.returned.get((callee, key), Holds.NO)
        if base is Holds.VALUE:
            self.uses.add(Use.TENSOR)
            return Holds.NO
        if base is Holds.BOX and isinstance(expr.base, ir.Call) and expr.base.method in PAIRS and key is None:
            return Holds.BOX
        inner = expr.base.base if isinstance(expr.base, ir.Item) else None
        if key == 0 and isinstance(inner, ir.Call) and inner.method in ("items", "enumerate"):
            return Holds.NO
        return Holds.VALUE if base else Holds.NO

    def _call(self, call: ir.Call) -> Holds:
        receiver = self._of(call.receiver) if call.receiver is not None else Holds.NO
        given = max((self._of(arg) for arg in call.operands), default=Holds.NO)
        if receiver is Holds.VALUE:
            self.uses |= {Use.TENSOR, Use.METHOD} if call.method in SHOWS else {Use.TENSOR}
            return Holds.NO
        callee = self.facts.bindings.callee(call, self.function)
        if callee is not None:
            return self._enters(call, callee, given)
        if receiver is Holds.BOX:
            if call.method in OF_BOXES:
                return Holds.BOX
            if call.method in TAKES_OUT:
                return Holds.VALUE
            if call.method not in torchapi.GROWING_METHODS and call.method not in ("clear", "remove"):
                self.uses.add(Use.TENSOR)
            return Holds.NO
        return self._handed(call, given) if given else Holds.NO

    def _enters(self, call: ir.Call, callee: ir.Function, given: Holds) -> Holds:
        """An argument goes on as a parameter of a function in sight, and its result may come back."""
        if given and call.star:
            self.uses.add(Use.TENSOR)
        for param, arg in callee.arguments(call):
            holds = self._of(arg)
            if holds and self._is_new(self.held.setdefault(callee, {}), param, holds):
                self._reached.add(callee)
        if any(function is callee and index is not None for function, index in self.returned):
            return Holds.BOX
        return self.returned.get((callee, None), Holds.NO)

    def _handed(self, call: ir.Call, given: Holds) -> Holds:
        """What a function out of sight does with it, by its name."""
        full = self.facts.evidence.resolve(call.path or "", self.function)
        if full in BOXES or torchapi.last(full) == "tqdm":
            return Holds.BOX
        if full in PASSES:
            return Holds.VALUE
        if full == "round":
            self.uses.add(Use.SINGLE)
            return Holds.VALUE
        scheduler = call.method == "step" and torchapi.looks_like_scheduler(torchapi.last((call.path or "").rpartition(".")[0]))
        if full in SINGLE or full.startswith("math.") or scheduler:
            self.uses.add(Use.SINGLE)
        elif full == "len" or (full.startswith("torch.") and full in TELLS):
            self.uses |= set() if full == "len" else {Use.NUMBER}
        elif full.startswith("torch."):
            self.uses |= {Use.TENSOR, self._shown_by(full, given)}
        elif full in TELLS or full.startswith(NUMBER_LIBRARIES) or TAKES_NUMBERS.match(call.method):
            self.uses.add(Use.NUMBER)
        else:
            self.uses.add(Use.TENSOR)
        return Holds.NO

    def _shown_by(self, full: str, given: Holds) -> Use:
        """What one of torch's functions shows its argument to be."""
        if full in JOINS:
            return Use.METHOD if given is Holds.BOX else Use.JOINED
        function = "." not in full.removeprefix("torch.").removeprefix("nn.functional.") and full not in ASK
        return Use.METHOD if given is Holds.VALUE and function else Use.TENSOR
