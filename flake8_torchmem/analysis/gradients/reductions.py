"""How a loss was reduced, and by what it was divided: from its definitions to its backward, through helpers of the file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.evidence import Evidence
from flake8_torchmem.analysis.reaching import in_order
from flake8_torchmem.analysis.summaries import Summaries
from flake8_torchmem.lazy import Words

MAX_DEPTH = 12
MAX_CALLERS = 2
FUNCTIONAL = Words(
    r"^torch\.nn\.functional\.(?:cross_entropy|nll_loss|mse_loss|l1_loss|smooth_l1_loss|huber_loss|binary_cross_entropy(?:_with_logits)?"
    r"|poisson_nll_loss|gaussian_nll_loss|ctc_loss|\w+_margin_loss|\w*margin_\w*loss|hinge_embedding_loss|cosine_embedding_loss)$"
)
MODULES = Words(r"^torch\.nn\.(?:modules\.loss\.)?\w+Loss$")
CRITERION = Words(r"^_?(?:criterion|loss_?(?:fn|func|function)|lossfn|loss_criterion)$", re.I)
SAME = frozenset({"to", "cuda", "float", "half", "double", "squeeze", "view", "reshape", "contiguous", "clone", "scale", "requires_grad_"})
COUNTS = frozenset({"sum", "numel", "size", "len", "count_nonzero"})
IN_PLACE = frozenset({"div_", "mul_", "true_divide_"})


class Reduced(NamedTuple):
    """What is known of a loss.

    Attributes:
        mean: it is a mean over its batch, or a sum that such a mean is a part of.
        divisors: what it was divided by since.
        calls: those that reduced it, or its parts.
    """

    mean: bool = False
    divisors: tuple[ir.Expr, ...] = ()
    calls: tuple[ir.Call, ...] = ()


UNKNOWN = Reduced()


def every(parts: Iterable[Reduced]) -> Reduced:
    """One of several: a mean if each of them is, divided if one of them is."""
    found = list(parts)
    return Reduced(
        bool(found) and all(part.mean for part in found),
        tuple(divisor for part in found for divisor in part.divisors),
        tuple(call for part in found for call in part.calls),
    )


def total(parts: Iterable[Reduced]) -> Reduced:
    """A sum: the mean in it counts, whatever is added to it."""
    found = list(parts)
    return every(found)._replace(mean=any(part.mean for part in found))


def divided(part: Reduced, divisor: ir.Expr) -> Reduced:
    """A quotient. Of a sum of several losses the divisor may be their number: it says nothing."""
    return part._replace(divisors=(*part.divisors, divisor if len(part.calls) == 1 else ir.Opaque()))


class Reductions:
    """Judges losses of one program.

    Args:
        evidence: of the program.
        summaries: knows the callers.
    """

    def __init__(self, evidence: Evidence, summaries: Summaries) -> None:
        self.evidence = evidence
        self.summaries = summaries
        self.bindings = evidence.bindings
        self._open: set[ir.Bind] = set()

    def of(self, expr: ir.Expr, event: ir.Event, function: ir.Function, depth: int = MAX_DEPTH) -> Reduced:
        """How the value of an expression was reduced, where an event happens."""
        if depth == 0:
            return UNKNOWN
        if isinstance(expr, ir.Name):
            return self._name(expr.path, event, function, depth - 1)
        if isinstance(expr, ir.Op):
            return self._operator(expr, event, function, depth - 1)
        if isinstance(expr, ir.Call):
            return self._call(expr, event, function, depth - 1)
        if isinstance(expr, ir.Attr) and expr.name == "loss" and isinstance(expr.base, ir.Call):
            return self._output(expr.base, function)
        if isinstance(expr, ir.Item) and isinstance(expr.base, ir.Call) and isinstance(expr.key, ir.Const):
            return self._returned(expr.base, function, expr.key.value, depth - 1)
        return UNKNOWN

    def _name(self, path: str, event: ir.Event, function: ir.Function, depth: int) -> Reduced:
        if any(
            isinstance(other, ir.Invoke) and other.call.method in IN_PLACE and _receiver(other.call) == path for other in function.events()
        ):
            return UNKNOWN
        at = self.evidence.reaching(function).at.get(event, {})
        binds = [bind for bind in in_order(at.get(path, ())) if bind not in self._open and not isinstance(bind.value, ir.Const)]
        if binds:
            return every(self._bound(bind, function, depth) for bind in binds)
        base, _, name = path.rpartition(".")
        outputs = at.get(base or path.removesuffix("['loss']"), ()) if name == "loss" or path.endswith("['loss']") else ()
        if outputs:
            calls = [bind.value for bind in in_order(outputs)]
            return every(self._output(call, function) if isinstance(call, ir.Call) else UNKNOWN for call in calls)
        return self._given(path, function, depth) if path in function.params else UNKNOWN

    def _bound(self, bind: ir.Bind, function: ir.Function, depth: int) -> Reduced:
        self._open.add(bind)
        found = self.of(bind.value, bind, function, depth)
        self._open.discard(bind)
        return found

    def _given(self, param: str, function: ir.Function, depth: int) -> Reduced:
        """What every caller in the file gives for a parameter."""
        found = []
        for caller, call in self.summaries.callers.get(function, ()):
            event = next((event for event in caller.events() if getattr(event, "call", None) is call), None)
            value = dict(function.arguments(call)).get(param)
            found.append(self.of(value, event, caller, depth) if value is not None and event is not None else UNKNOWN)
        return every(found)

    def _operator(self, expr: ir.Op, event: ir.Event, function: ir.Function, depth: int) -> Reduced:
        parts = [self.of(arg, event, function, depth) for arg in expr.args]
        if expr.op in ("+", "-"):
            return total(parts)
        if expr.op == "if":
            return every(parts[1:])
        if expr.op == "neg":
            return parts[0]
        if expr.op == "/":
            by_hand = self._averages_by_hand(expr, event, function)
            return Reduced(True, (), by_hand) if by_hand else divided(parts[0], expr.args[1])
        if expr.op == "*":
            for factor, part in zip(expr.args, reversed(parts), strict=True):
                if isinstance(factor, ir.Const):
                    return part
        return Reduced(False, every(parts).divisors)

    def _averages_by_hand(self, expr: ir.Op, event: ir.Event, function: ir.Function) -> tuple[ir.Call, ...]:
        """The losses in `losses.sum() / (targets != ignored).sum()`, where a helper counts what it was given itself."""
        whole = expr.args[0]
        if event.ctx.loops or not isinstance(event, ir.Return) or not isinstance(whole, ir.Call) or whole.method != "sum" or whole.operands:
            return ()
        above, below = (self._made_of(part, event, function) for part in expr.args)
        losses = [call for call in _calls(above) if FUNCTIONAL.match(self.evidence.resolve(call.path or "", function))]
        single = all(isinstance(how := call.kwargs.get("reduction"), ir.Const) and how.value == "none" for call in losses)
        shared = {node.path for node in above if isinstance(node, ir.Name)} & set(function.params)
        own = any(isinstance(node, ir.Name) and node.path in shared for node in below)
        return tuple(losses) if single and own and any(call.method in COUNTS for call in _calls(below)) else ()

    def _made_of(self, expr: ir.Expr, event: ir.Event, function: ir.Function) -> list[ir.Expr]:
        """All parts of a value, and of what its names stand for in the function."""
        pending: list[tuple[ir.Expr, ir.Event]] = [(expr, event)]
        seen: set[ir.Bind] = set()
        found: list[ir.Expr] = []
        at = self.evidence.reaching(function).at
        while pending:
            value, where = pending.pop()
            found += ir.walk(value)
            binds = {bind for path in ir.names(value) for bind in at.get(where, {}).get(path, ())} - seen
            seen |= binds
            pending += [(bind.value, bind) for bind in binds]
        return found

    def _call(self, call: ir.Call, event: ir.Event, function: ir.Function, depth: int) -> Reduced:
        name = call.method
        full = self.evidence.resolve(call.path, function) if call.path else ""
        if FUNCTIONAL.match(full):
            return Reduced(averages(call), (), (call,))
        inner = call.args[0] if full.startswith("torch.") or name == "scale" else call.receiver
        if name in ("div", "true_divide") and call.args and inner is not None:
            return divided(self.of(inner, event, function, depth), call.args[-1])
        if name == "mean" and inner is not None and not call.operands[1 if full else 0 :]:
            return Reduced(True, self.of(inner, event, function, depth).divisors, (call,))
        if name in SAME and inner is not None:
            return self.of(inner, event, function, depth)
        callee = self.bindings.callee(call, function)
        if callee is not None:
            return self._returned(call, function, None, depth)
        return Reduced(self._criterion(call, function), (), (call,))

    def _returned(self, call: ir.Call, function: ir.Function, index: object, depth: int) -> Reduced:
        """What a function of the file returns, or one part of it."""
        callee = self.bindings.callee(call, function)
        if callee is None:
            return self._output(call, function) if index in (0, "loss") else UNKNOWN
        found = []
        for event in callee.events():
            if isinstance(event, ir.Return):
                value = event.value
                if index is not None:
                    value = (
                        value.items[index]
                        if isinstance(value, ir.Seq) and isinstance(index, int) and index < len(value.items)
                        else ir.Opaque()
                    )
                found.append(self.of(value, event, callee, depth))
        return every(found)

    def _criterion(self, call: ir.Call, function: ir.Function) -> bool:
        """Whether a call is one of a criterion that takes the mean: built so in sight, or by its name where it is given."""
        if isinstance(call.func, ir.Call):
            return self._builds_loss(call.func, function) and averages(call.func)
        return self._is_mean(call.path, function, MAX_CALLERS) if call.path else False

    def _is_mean(self, path: str, function: ir.Function, depth: int) -> bool:
        path = self.bindings.canonical(path, function)
        binds = self.bindings.binds(path, function)
        if not binds:
            given = self._arguments(path, function) if depth else []
            known = [value for value, caller in given if isinstance(value, ir.Call)]
            passed = all(self._is_mean(value.path, caller, depth - 1) for value, caller in given if isinstance(value, ir.Name))
            return bool(CRITERION.match(torchapi.last(path))) and passed and all(averages(value) for value in known)
        calls = [node for bind in binds for node in ir.walk(bind.value) if isinstance(node, ir.Call)]
        losses = [node for node in calls if self._builds_loss(node, function)]
        return bool(losses) and all(averages(node) for node in losses)

    def _arguments(self, param: str, function: ir.Function) -> list[tuple[ir.Expr, ir.Function]]:
        """What callers in the file give for a parameter."""
        callers = self.summaries.callers.get(function, ()) if param in function.params else ()
        found = ((dict(function.arguments(call)).get(param), caller) for caller, call in callers)
        return [(value, caller) for value, caller in found if value is not None]

    def _builds_loss(self, call: ir.Call, function: ir.Function) -> bool:
        return bool(MODULES.match(self.evidence.resolve(call.path or "", function)))

    def _output(self, call: ir.Call, function: ir.Function) -> Reduced:
        """The loss that a model computes by itself from the labels it is given: by convention a mean."""
        labelled = "labels" in call.kwargs or call.star
        module = call.path is not None and self.evidence.is_module(call.path, function)
        counted = any("num_items" in key for key in call.kwargs)
        return Reduced(labelled and module and not counted and self.bindings.callee(call, function) is None, (), (call,))


def averages(call: ir.Call) -> bool:
    """Whether a loss is called or built with the default reduction."""
    reduction = call.kwargs.get("reduction")
    default = reduction is None or (isinstance(reduction, ir.Const) and reduction.value == "mean")
    return default and not call.star and not call.kwargs.keys() & {"size_average", "reduce"}


def _calls(parts: list[ir.Expr]) -> list[ir.Call]:
    return [part for part in parts if isinstance(part, ir.Call)]


def _receiver(call: ir.Call) -> str | None:
    return call.receiver.path if isinstance(call.receiver, ir.Name) else None
