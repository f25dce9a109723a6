"""What a branch says: implied facts, and whether a condition can change between turns."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.lazy import Words

Facts = frozenset[tuple[str, bool]]
Spelled = set[tuple[str, bool]]
STABLE_CALLS = frozenset({"isinstance", "len", "hasattr", "getattr", "bool", "str", "int"})
CHANGING = Words(r"sync|boundary|should|is_last|do_step|ready|finished|done|flag_step", re.I)
POSITIVE = {"!=": "==", "is not": "is", "not in": "in", ">=": "<", "<=": ">"}
UNKNOWN = object()
OPERATIONS: dict[str, Callable[[Any, Any], object]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "%": operator.mod, "//": operator.floordiv,
    "==": operator.eq, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


class Test(NamedTuple):
    """A condition with negations pushed inward.

    Attributes:
        kind: atom, const, and, or.
        text: canonical spelling of the whole, and of its opposite for an atom that is negative.
        positive: an atom holds when its text does (False: when it does not).
        parts: of `and` and `or`.
        names: access paths that it reads.
        volatile: it may differ in the next turn though nothing in sight was assigned.
        expr: of an atom, what its text spells.
    """

    kind: str
    text: str
    positive: bool
    parts: tuple[Test, ...]
    names: frozenset[str]
    volatile: bool = False
    expr: ir.Expr | None = None

    def truth(self, facts: Facts) -> bool | None:
        """Its value under these facts, None when open."""
        if self.kind == "const":
            return self.positive
        for value in (True, False):
            if (self.text, value) in facts:
                return value is self.positive
        if self.kind == "atom":
            return None
        values = [part.truth(facts) for part in self.parts]
        decisive = self.kind == "or"
        if decisive in values:
            return decisive
        return None if None in values else not decisive

    def implied(self, arm: bool) -> Iterator[tuple[str, bool]]:
        """Facts that are certain once the condition is `arm`."""
        if self.kind != "const":
            yield self.text, arm is self.positive
        if self.kind == ("and" if arm else "or"):
            for part in self.parts:
                yield from part.implied(arm)


def compile_test(cond: ir.Expr, rename: Callable[[str], str], positive: bool = True) -> Test:
    """A condition as a `Test`, its names spelled by `rename`."""
    if isinstance(cond, ir.Op):
        if cond.op == "not":
            return compile_test(cond.args[0], rename, not positive)
        if cond.op in ir.BOOLEAN:
            parts = tuple(compile_test(part, rename, positive) for part in cond.args)
            kind = cond.op if positive else {"and": "or", "or": "and"}[cond.op]
            names = frozenset(name for part in parts for name in part.names)
            return Test(
                kind,
                f"({kind} {' '.join(('' if p.positive else '!') + p.text for p in parts)})",
                True,
                parts,
                names,
                any(p.volatile for p in parts),
            )
        if _has_gradient(cond):
            return Test("const", "", (cond.op == "is not") is positive, (), frozenset())
        if cond.op in POSITIVE:
            return compile_test(ir.Op(POSITIVE[cond.op], cond.args), rename, not positive)
    if isinstance(cond, ir.Const):
        return Test("const", "", bool(cond.value) is positive, (), frozenset())
    return Test("atom", ir.text(cond, rename), positive, (), frozenset(map(rename, ir.names(cond))), changes(cond, ()), cond)


def value_of(expr: ir.Expr, place: str, known: object) -> object:
    """The value of an expression of one variable; `UNKNOWN` if it takes more than arithmetic and comparison.

    Args:
        expr: the expression.
        place: the variable.
        known: its value.
    """
    if isinstance(expr, ir.Const):
        return expr.value
    if isinstance(expr, ir.Name):
        return known if expr.path == place else UNKNOWN
    operate = OPERATIONS.get(expr.op) if isinstance(expr, ir.Op) and len(expr.args) == 2 else None
    if operate is None or not isinstance(expr, ir.Op):
        return UNKNOWN
    left, right = (value_of(arg, place, known) for arg in expr.args)
    if not (isinstance(left, (int, float)) and isinstance(right, (int, float))):
        return UNKNOWN
    try:
        return operate(left, right)
    except (ArithmeticError, ValueError):
        return UNKNOWN


def _has_gradient(cond: ir.Op) -> bool:
    """`p.grad is not None`: where gradients are cleared or read, there are some."""
    if cond.op not in ("is", "is not") or not isinstance(cond.args[0], ir.Name) or not isinstance(cond.args[1], ir.Const):
        return False
    return cond.args[0].path.endswith(".grad") and cond.args[1].value is None


def changes(cond: ir.Expr, loops: tuple[ir.Loop, ...]) -> bool:
    """Whether the condition can differ between turns of the innermost loop."""
    assigned = loops[-1].assigned if loops else set()
    for node in ir.walk(cond):
        if isinstance(node, (ir.Opaque, ir.Comp)):
            return True
        if isinstance(node, ir.Call) and node.path not in STABLE_CALLS:
            return True
        if isinstance(node, ir.Name) and (CHANGING.search(node.path) or any(prefix in assigned for prefix in paths.prefixes(node.path))):
            return True
    return False


def once(cond: ir.Expr, arm: bool, loops: tuple[ir.Loop, ...]) -> bool:
    """Whether this arm is taken in all turns but one: the other arm of `if i == 0`, with the loop's own counter."""
    if arm or not loops or not isinstance(cond, ir.Op) or cond.op != "==" or not isinstance(cond.args[1], ir.Const):
        return False
    return isinstance(cond.args[0], ir.Name) and cond.args[0].path in loops[-1].targets


def spelled(conds: tuple[tuple[ir.Expr, bool, int], ...]) -> Spelled:
    """Conditions by what they say, each with its arm."""
    return {(ir.text(cond), arm) for cond, arm, _ in conds}
