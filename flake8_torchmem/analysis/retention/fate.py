"""What becomes of a collection after its loop: it goes to the host, it is computed with where it is, or it is handed on."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.loading.placement import COPIES_TO_HOST, TO_HOST

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

HOST_LIBRARIES = (
    *torchapi.NUMBER_NAMESPACES,
    "torch.save",
    "torch.distributions",
    "pickle.",
    "h5py.",
    "joblib.",
    "torchmetrics.functional",
)
# Of containers, and of tensors with nothing but numbers for arguments.
HANDS_ON = frozenset(
    (
        "append extend insert update items values keys get pop copy clear cat concat stack hstack vstack split chunk"
        " zip enumerate list tuple dict sorted reversed iter next map tqdm range sum mean max min std var argmax argmin"
        " topk sort softmax log_softmax sigmoid norm normalize interpolate detach clone view reshape squeeze unsqueeze"
        " permute transpose flatten contiguous float double half long int round t numel dim size log exp log_dict"
    ).split()
)


class Fate(Enum):
    """USED: computed with together with something else, so it may have to be where it is."""

    HOST = "host"
    USED = "used"
    HANDED_ON = "handed on"


class Follower:
    """Follows values through the events of one function.

    Args:
        function: where to look.
        facts: of its file.
        start: paths that hold what is followed.
        key: of what is followed, where the paths hold dicts.
        skipped: loops whose events do not count.
    """

    def __init__(
        self, function: ir.Function, facts: FileFacts, start: Iterable[str], key: str = "", skipped: tuple[ir.Loop, ...] = ()
    ) -> None:
        self.function = function
        self.facts = facts
        self.held = set(start)
        self.key = f"['{key}']"
        self.found: set[Fate] = set()
        for member in (function, *function.nested.values()):
            for event in member.events():
                if not set(skipped) & set(event.ctx.loops):
                    self._follow(event)

    def _follow(self, event: ir.Event) -> None:
        if isinstance(event, (ir.Bind, ir.Store)):
            if self._keeps(event.value):
                self.held.add(event.place)
        elif isinstance(event, ir.Return):
            if self._keeps(event.value):
                self.found.add(Fate.HANDED_ON)
        elif isinstance(event, ir.Invoke):
            self._keeps(event.call)

    def _keeps(self, expr: ir.Expr) -> bool:
        """Whether the value is, or holds, what is followed, still where it was; what happens on the way is noted."""
        if isinstance(expr, ir.Name):
            prefixes = list(paths.prefixes(expr.path))
            if self.key != "['']" and "['" in expr.path and self.key not in expr.path:
                return False
            return torchapi.last(expr.path) not in torchapi.NUMBER_ATTRIBUTES and any(path in self.held for path in prefixes)
        if isinstance(expr, ir.Call):
            return self._call(expr)
        if isinstance(expr, ir.Op):
            return self._operator(expr)
        kept = [self._keeps(part) for part in ir.parts(expr)]  # all of them: what happens in each is noted
        return any(kept)

    def _operator(self, expr: ir.Op) -> bool:
        if expr.op in ("is", "is not", "in", "not in", "not", "format", "and", "or", "%"):
            return False
        args = expr.args[1:] if expr.op == "if" else expr.args
        kept = [self._keeps(arg) for arg in args]
        if expr.op == "if" or not any(kept):
            return any(kept)
        if not all(kept[index] or _is_number(arg) for index, arg in enumerate(args)):
            self.found.add(Fate.USED)
        return expr.op not in ir.COMPARISONS

    def _call(self, call: ir.Call) -> bool:
        receiver = call.receiver is not None and self._keeps(call.receiver)
        operands = [self._keeps(arg) for arg in call.operands]
        if not receiver and not any(operands):
            return False
        full = self.facts.evidence.resolve(call.path or "", self.function)
        if call.method in TO_HOST or COPIES_TO_HOST.search(call.method) or full.startswith(HOST_LIBRARIES) or self._to_host(call):
            self.found.add(Fate.HOST)
            return False
        if full in torchapi.NUMBER_FUNCTIONS or call.method in torchapi.NUMBER_METHODS:
            return False
        callee = self.facts.bindings.callee(call, self.function)
        alone = all(kept or _is_number(arg) for kept, arg in zip(operands, call.operands, strict=True))
        if callee is not None or call.method not in HANDS_ON or not (alone or not receiver):
            self.found.add(Fate.USED)
            return False
        return True

    def _to_host(self, call: ir.Call) -> bool:
        return call.method == "to" and any(isinstance(arg, ir.Const) and arg.value == "cpu" for arg in call.operands)


def _is_number(expr: ir.Expr) -> bool:
    return all(isinstance(node, (ir.Const, ir.Op, ir.Seq)) for node in ir.walk(expr))


def fate(facts: FileFacts, function: ir.Function, place: str, key: str, loops: tuple[ir.Loop, ...]) -> Fate:
    """What becomes of a place after its loops: in its function, the class that it belongs to, and the callers that get it."""
    cls = function.owner
    methods = [m for m in cls.methods.values() if m is not function] if cls is not None and place.startswith("self.") else []
    found = set(Follower(function, facts, {place}, key, loops).found)
    for method in methods:
        found |= Follower(method, facts, {place}, key).found
    if Fate.HANDED_ON in found:
        for caller, call in facts.summaries.callers.get(function, ()):
            found |= Follower(caller, facts, _taken(caller, call), key).found
    for result in (Fate.USED, Fate.HOST):
        if result in found:
            return result
    return Fate.HANDED_ON


def _taken(caller: ir.Function, call: ir.Call) -> set[str]:
    """The places that get a call's result, or a part of it."""
    binds = (event for event in caller.events() if isinstance(event, ir.Bind))
    return {bind.place for bind in binds if any(node is call for node in ir.walk(bind.value))}
