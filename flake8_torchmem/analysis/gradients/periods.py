"""Tests that hold once in a number of turns: remainders in every spelling, counters that are reset, locals bound to such a test."""

from __future__ import annotations

import re
from typing import NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.bindings import Bindings
from flake8_torchmem.analysis.memo import memoized
from flake8_torchmem.lazy import Words

MAX_NAMES = 4
REMAINDERS = frozenset({"numpy.mod", "numpy.remainder", "numpy.fmod", "math.fmod", "torch.remainder", "torch.fmod", "operator.mod"})
WINDOW_NAME = Words(
    r"accum|should_?(?:step|update|sync|optim)|sync_grad|boundary|do_(?:step|update|opt)|is_(?:update|step|sync|last_micro)"
    r"|update_(?:now|step|freq)|step_now|iter_size|micro|grad_acc|acc_(?:steps|iters|grad)",
    re.I,
)
MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "==": "==", "!=": "!=", "is": "==", "is not": "!="}


class Period(NamedTuple):
    """A test that comes true once per `size` turns.

    Attributes:
        counter: what is divided, or the path that is counted and reset.
        size: turns per window, None when it is counted in something else.
        residue: the remainder that is asked for; None for a counter that is reset.
        holds: the test is true for that remainder; False: for all others.
        guards: what must hold besides.
        tails: what ends a window as well: the last batch.
        read: where a local was bound to the test, None when it stands where it decides.
    """

    counter: ir.Expr
    size: ir.Expr | None
    residue: ir.Expr | None = None
    holds: bool = True
    guards: tuple[ir.Expr, ...] = ()
    tails: tuple[ir.Expr, ...] = ()
    read: ir.Bind | None = None


class Periods:
    """Reads conditions of one program.

    Args:
        bindings: what names stand for.
    """

    def __init__(self, bindings: Bindings) -> None:
        self.bindings = bindings

    def ends_window(self, cond: ir.Expr, function: ir.Function) -> bool:
        """Whether a condition is true once per accumulation window, by what it says or by what its names say."""
        for node in ir.walk(cond):
            if self.remainder(node, function) is not None:
                return True
            if not isinstance(node, ir.Name):
                continue
            if WINDOW_NAME.search(node.path) or self.is_reset(node.path, function):
                return True
            values = (bind.value for bind in self.bindings.binds(node.path, function) if not isinstance(bind.value, ir.Name))
            if any(self._says_window(part, function) for value in values for part in ir.walk(value)):
                return True
        return False

    def _says_window(self, node: ir.Expr, function: ir.Function) -> bool:
        return self.remainder(node, function) is not None or (isinstance(node, ir.Name) and bool(WINDOW_NAME.search(node.path)))

    def remainder(self, expr: ir.Expr, function: ir.Function, names: int = MAX_NAMES) -> tuple[ir.Expr, ir.Expr] | None:
        """Dividend and divisor: `a % b`, `divmod(a, b)[1]`, `np.mod(a, b)`, or a local bound to one of these."""
        if isinstance(expr, ir.Op) and expr.op == "%":
            dividend, divisor = expr.args
            return None if isinstance(dividend, ir.Const) else (dividend, divisor)
        if isinstance(expr, ir.Item) and isinstance(expr.key, ir.Const) and expr.key.value == 1:
            pair = expr.base
            if isinstance(pair, ir.Call) and pair.path == "divmod" and len(pair.args) == 2:
                return pair.args[0], pair.args[1]
        if isinstance(expr, ir.Call) and len(expr.args) == 2 and torchapi.resolve(expr.path or "", expr.ctx.file.imports) in REMAINDERS:
            return expr.args[0], expr.args[1]
        bind = self._only_bind(expr, function) if names else None
        return self.remainder(bind.value, function, names - 1) if bind else None

    def _only_bind(self, expr: ir.Expr, function: ir.Function) -> ir.Bind | None:
        binds = self.bindings.binds(expr.path, function) if isinstance(expr, ir.Name) else []
        return binds[0] if len(binds) == 1 and binds[0].kind == "assign" else None

    def binds(self, path: str, function: ir.Function) -> list[ir.Bind]:
        """Where a path is bound; an attribute in all methods of the class."""
        methods = function.owner.methods.values() if path.startswith("self.") and function.owner else ()
        everywhere = [bind for method in methods for bind in self.bindings.assigned(method).get(path, ())]
        return everywhere or self.bindings.binds(path, function)

    def is_reset(self, path: str, function: ir.Function) -> bool:
        """Whether a path is counted up or down and set anew in a loop, or under a test of itself."""
        return self._count(path, function) is not None

    @memoized
    def _count(self, path: str, function: ir.Function) -> tuple[ir.Expr | None, ir.Bind] | None:
        """By what a path is counted up (None: down), and where it is set anew."""
        binds = self.binds(path, function)
        steps = [found for bind in binds if (found := increment(bind)) is not None]
        if len(steps) != 1:
            return None
        anew = [bind for bind in binds if bind.kind == "assign" and increment(bind) is None]
        for bind in anew:
            tested = any(path in ir.names(cond) for cond, _, _ in bind.ctx.conds)
            if tested or (bind.ctx.loops and isinstance(bind.value, ir.Const)):
                sign, amount = steps[0]
                return (amount if sign == "+" else None), bind
        return None

    def read(self, cond: ir.Expr, function: ir.Function, holds: bool = True, names: int = MAX_NAMES) -> Period | None:
        """The period in a condition that is to be `holds`, None when there is none that can be read."""
        if isinstance(cond, ir.Op) and cond.op == "not":
            return self.read(cond.args[0], function, not holds, names)
        if isinstance(cond, ir.Call) and cond.path == "bool" and len(cond.args) == 1:
            return self.read(cond.args[0], function, holds, names)
        if isinstance(cond, ir.Op) and cond.op in ir.BOOLEAN:
            return self._among(cond, function, holds, names)
        if isinstance(cond, ir.Op) and cond.op in MIRRORED:
            left, right = cond.args
            op = {"is": "==", "is not": "!="}.get(cond.op, cond.op)
            return self._compared(left, op, right, function, holds) or self._compared(right, MIRRORED[op], left, function, holds)
        found = self.remainder(cond, function)
        if found is not None:
            return Period(*found, ir.Const(0), not holds)
        bind = self._only_bind(cond, function) if names else None
        if bind is not None:
            period = self.read(bind.value, function, holds, names - 1)
            return period._replace(read=period.read or bind) if period else None
        return self._counted(cond, "!=", ir.Const(0), function, holds) if isinstance(cond, ir.Name) else None

    def _among(self, cond: ir.Op, function: ir.Function, holds: bool, names: int) -> Period | None:
        """A period beside guards, or beside what ends the window as well."""
        together = (cond.op == "and") is holds
        for part in cond.args:
            period = self.read(part, function, holds, names)
            if period is not None:
                others = tuple(other for other in cond.args if other is not part)
                return period._replace(guards=period.guards + others) if together else period._replace(tails=period.tails + others)
        return None

    def _compared(self, left: ir.Expr, op: str, right: ir.Expr, function: ir.Function, holds: bool) -> Period | None:
        found = self.remainder(left, function)
        if found is None:
            return self._counted(left, op, right, function, holds)
        if op in ("==", "!="):
            return Period(*found, right, holds is (op == "=="))
        limit = right.value if isinstance(right, ir.Const) else None
        if (op, limit) in (("<", 1), ("<=", 0)):
            return Period(*found, ir.Const(0), holds)
        return Period(*found, ir.Const(0), not holds) if (op, limit) in ((">", 0), (">=", 1)) else None

    def _counted(self, left: ir.Expr, op: str, right: ir.Expr, function: ir.Function, holds: bool) -> Period | None:
        """`count == n`, `count >= n` of a counter that is reset; `left == 0` of one that is counted down."""
        found = self._count(left.path, function) if isinstance(left, ir.Name) else None
        if found is None:
            return None
        amount, anew = found
        reached = holds is (op in (("==", ">=", ">") if amount is not None else ("==", "<=", "<")))
        if amount is None:
            return Period(left, anew.value, holds=reached) if isinstance(right, ir.Const) else None
        one = isinstance(amount, ir.Const) and amount.value == 1 and isinstance(anew.value, ir.Const) and anew.value.value == 0
        return Period(left, right if one and op in ("==", ">=", "!=", "<") else None, holds=reached)

    def number(self, expr: ir.Expr | None, function: ir.Function, names: int = MAX_NAMES) -> float | None:
        """The number that an expression stands for: a literal, or a name that is bound to one alone."""
        if isinstance(expr, ir.Const):
            return expr.value if isinstance(expr.value, (int, float)) and not isinstance(expr.value, bool) else None
        bind = self._only_bind(expr, function) if expr is not None and names and not self._given(expr, function) else None
        return self.number(bind.value, function, names - 1) if bind else None

    def _given(self, expr: ir.Expr, function: ir.Function) -> bool:
        return isinstance(expr, ir.Name) and expr.path in function.params

    def shifted(self, expr: ir.Expr, function: ir.Function) -> tuple[ir.Expr | None, int] | None:
        """An expression as something plus a whole number: `i + 1` is (i, 1), `3` is (None, 3)."""
        value = self.number(expr, function)
        if value is not None:
            return None, int(value)
        if isinstance(expr, ir.Op) and expr.op in ("+", "-") and len(expr.args) == 2:
            for base, other in (expr.args, reversed(expr.args)) if expr.op == "+" else (expr.args,):
                amount = self.number(other, function)
                if amount is not None:
                    inner = self.shifted(base, function)
                    return (inner[0], inner[1] + int(amount if expr.op == "+" else -amount)) if inner else None
        return (expr, 0) if isinstance(expr, ir.Name) else None


def increment(bind: ir.Bind) -> tuple[str, ir.Expr] | None:
    """Sign and amount of `x += amount` and `x = x + amount`."""
    value = bind.value
    if not isinstance(value, ir.Op) or value.op not in ("+", "-") or len(value.args) != 2 or bind.kind not in ("assign", "augment"):
        return None
    left, right = value.args
    if isinstance(left, ir.Name) and left.path == bind.place:
        return value.op, right
    return (value.op, left) if value.op == "+" and isinstance(right, ir.Name) and right.path == bind.place else None
