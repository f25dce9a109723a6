"""Expressions of the syntax tree to `ir` expressions, with their calls emitted in evaluation order."""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import own
from flake8_torchmem.analysis.lower.calls import classify
from flake8_torchmem.analysis.lower.scope import Scope

# Deeper expressions are opaque: nobody writes training code fifty levels deep, generated tables do.
MAX_DEPTH = 50
# Literals that no rule asks for.
UNREAD = (bytes, complex, type(...))

Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp

OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.MatMult: "@",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^", ast.LShift: "<<", ast.RShift: ">>", ast.And: "and", ast.Or: "or",
    ast.Not: "not", ast.USub: "neg", ast.UAdd: "pos", ast.Invert: "~", ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=",
    ast.Gt: ">", ast.GtE: ">=", ast.Is: "is", ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip


class Expressions:
    """Lowers expressions into a scope.

    Args:
        scope: receives their events.
        depth: of lambdas and what they stand in, around.
    """

    def __init__(self, scope: Scope, depth: int = 0) -> None:
        self.scope = scope
        self.depth = depth

    def lower(self, node: ast.expr) -> ir.Expr:
        """The expression's tree; its calls have been emitted."""
        handler = HANDLERS.get(type(node))
        if handler is None or self.depth >= MAX_DEPTH:
            return ir.Opaque()
        self.depth += 1
        result = handler(self, node)
        self.depth -= 1
        return result

    def name(self, node: ast.Name) -> ir.Expr:
        return ir.Name(self.scope.renamed.get(node.id, node.id))

    def attribute(self, node: ast.Attribute) -> ir.Expr:
        base = self.lower(node.value)
        return ir.Name(f"{base.path}.{node.attr}") if isinstance(base, ir.Name) else ir.Attr(base, node.attr)

    def subscript(self, node: ast.Subscript) -> ir.Expr:
        base, key = self.lower(node.value), self.lower(node.slice)
        if isinstance(base, ir.Name) and isinstance(key, ir.Const) and isinstance(key.value, (str, int)):
            return ir.Name(f"{base.path}[{key.value!r}]")
        return ir.Item(base, key)

    def slice(self, node: ast.Slice) -> ir.Expr:
        return ir.Seq("slice", tuple([self.lower(part) for part in (node.lower, node.upper, node.step) if part is not None]))

    def constant(self, node: ast.Constant) -> ir.Expr:
        return ir.Opaque() if isinstance(node.value, UNREAD) else ir.Const(node.value)

    def formatted(self, node: ast.JoinedStr) -> ir.Expr:
        return ir.Op("format", tuple([self.lower(part) for part in node.values]))

    def part(self, node: ast.FormattedValue) -> ir.Expr:
        value = self.lower(node.value)
        return ir.Op("spec", (value,)) if node.format_spec else value  # `{x:.3f}` takes a number, `{x}` anything

    def starred(self, node: ast.Starred) -> ir.Expr:
        return self.lower(node.value)

    def call(self, node: ast.Call) -> ir.Expr:
        site = self.scope.expression(node)
        func = self.lower(node.func)
        if isinstance(func, ir.Name) and func.path in self.scope.methods:
            func = ir.Name(self.scope.methods[func.path])
        args = [self.lower(arg) for arg in node.args]
        spread = [self.lower(keyword.value) for keyword in node.keywords if keyword.arg is None]
        kwargs = {keyword.arg: self.lower(keyword.value) for keyword in node.keywords if keyword.arg is not None}
        star = bool(spread) or any(isinstance(arg, ast.Starred) for arg in node.args)
        call = ir.Call(func, (*args, *spread), kwargs, star, self.scope.ctx, site)
        call, events = own.read(call, self.scope) or (call, list(classify(call, self.scope)))
        for event in events:
            self.scope.emit(event)
        return call

    def binary(self, node: ast.BinOp) -> ir.Expr:
        spine: list[ast.BinOp] = []
        left: ast.expr = node
        while isinstance(left, ast.BinOp):
            spine.append(left)
            left = left.left
        if len(spine) > MAX_DEPTH:
            return ir.Opaque()
        result = self.lower(left)
        for part in reversed(spine):
            result = ir.Op(OPERATORS[type(part.op)], (result, self.lower(part.right)))
        return result

    def boolean(self, node: ast.BoolOp) -> ir.Expr:
        if len(node.values) > MAX_DEPTH:
            return ir.Opaque()
        sign, result = OPERATORS[type(node.op)], self.lower(node.values[0])
        for value in node.values[1:]:
            result = ir.Op(sign, (result, self.lower(value)))
        return result

    def unary(self, node: ast.UnaryOp) -> ir.Expr:
        return ir.Op(OPERATORS[type(node.op)], (self.lower(node.operand),))

    def comparison(self, node: ast.Compare) -> ir.Expr:
        left = self.lower(node.left)
        tests: list[ir.Expr] = []
        for sign, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.lower(comparator)
            tests.append(ir.Op(OPERATORS[type(sign)], (left, right)))
            left = right
        return tests[0] if len(tests) == 1 else ir.Op("and", tuple(tests))

    def conditional(self, node: ast.IfExp) -> ir.Expr:
        test = self.lower(node.test)
        with self.scope.branch(test, True):
            then = self.lower(node.body)
        with self.scope.branch(test, False):
            other = self.lower(node.orelse)
        return ir.Op("if", (test, then, other))

    def sequence(self, node: ast.Tuple | ast.List | ast.Set) -> ir.Expr:
        return ir.Seq(type(node).__name__.lower(), tuple([self.lower(element) for element in node.elts]))

    def dictionary(self, node: ast.Dict) -> ir.Expr:
        keys = tuple([self.lower(key) if key is not None else None for key in node.keys])
        return ir.Seq("dict", tuple([self.lower(value) for value in node.values]), keys)

    def comprehension(self, node: Comprehension) -> ir.Expr:
        return self._comprehension(node, node.generators, self.scope.expression(node))

    def _comprehension(self, node: Comprehension, clauses: Sequence[ast.comprehension], site: ir.Site) -> ir.Expr:
        clause, inner = clauses[0], clauses[1:]
        iterable = self.lower(clause.iter)
        with self.scope.comprehension(iterable, site, target_names(clause.target)) as loop:
            self.bind(clause.target, ir.Item(iterable, ir.Opaque()), "target")
            conditions = [self.lower(test) for test in clause.ifs]
            self.scope.fn.tests.extend(conditions)
            if inner:
                return self._comprehension(node, inner, site)
            element = node.value if isinstance(node, ast.DictComp) else node.elt
            if isinstance(node, ast.DictComp):
                self.lower(node.key)
            kind = type(node).__name__
            if conditions:
                with self.scope.branch(conditions[0], True):
                    return ir.Comp(kind, self.lower(element), loop)
            return ir.Comp(kind, self.lower(element), loop)

    def function(self, node: ast.Lambda) -> ir.Expr:
        """A lambda by the name of the function that it makes."""
        scope = self.scope.nested(node.args)
        value = Expressions(scope, self.depth).lower(node.body)
        scope.emit(ir.Return(scope.ctx, scope.site(), value))
        return ir.Name(scope.fn.name)

    def awaited(self, node: ast.Await) -> ir.Expr:
        return self.lower(node.value)

    def yielded(self, node: ast.Yield | ast.YieldFrom) -> ir.Expr:
        value = self.lower(node.value) if node.value is not None else ir.Const(None)
        self.scope.emit(ir.Return(self.scope.ctx, self.scope.site(), value, "yield"))
        return ir.Opaque()

    def walrus(self, node: ast.NamedExpr) -> ir.Expr:
        value = self.lower(node.value)
        self.bind(node.target, value)
        return value

    def bind(self, target: ast.expr, value: ir.Expr, kind: str = "assign") -> None:
        """Emit what assigning `value` to a target means, tuple targets part by part."""
        pending = [(target, value)]
        while pending:
            target, value = pending.pop()
            if isinstance(target, ast.Starred):
                target = target.value
            if isinstance(target, (ast.Tuple, ast.List)):
                given = value.items if isinstance(value, ir.Seq) and len(value.items) == len(target.elts) else None
                parts = given or [ir.Item(value, ir.Const(index)) for index in range(len(target.elts))]
                pending.extend(reversed(list(zip(target.elts, parts, strict=True))))
                continue
            place = self.lower(target)
            if isinstance(place, ir.Item):
                container = self.path(place.base)
                if container:
                    self.scope.emit(ir.Store(self.scope.ctx, self.scope.site(), container, value, "setitem", place.key))
            elif isinstance(place, ir.Name):
                self.scope.assign(place.path, value, kind, self.scope.site())

    def path(self, expr: ir.Expr) -> str | None:
        """The access path of what a subscript is taken of; `d[k]` of an unknown key stands for the whole `d`."""
        while isinstance(expr, ir.Item):
            expr = expr.base
        return expr.path if isinstance(expr, ir.Name) else None


def target_names(target: ast.expr) -> tuple[str, ...]:
    """The plain names that a loop's or comprehension's target binds."""
    found, pending = [], [target]
    while pending:
        node = pending.pop()
        if isinstance(node, (ast.Tuple, ast.List)):
            pending.extend(node.elts)
        elif isinstance(node, ast.Starred):
            pending.append(node.value)
        elif isinstance(node, ast.Name):
            found.append(node.id)
    return tuple(found)


HANDLERS: dict[type[ast.expr], Callable[..., ir.Expr]] = {
    ast.Name: Expressions.name, ast.Attribute: Expressions.attribute, ast.Subscript: Expressions.subscript, ast.Slice: Expressions.slice,
    ast.Constant: Expressions.constant, ast.JoinedStr: Expressions.formatted, ast.FormattedValue: Expressions.part,
    ast.Starred: Expressions.starred, ast.Call: Expressions.call, ast.BinOp: Expressions.binary, ast.BoolOp: Expressions.boolean,
    ast.UnaryOp: Expressions.unary, ast.Compare: Expressions.comparison, ast.IfExp: Expressions.conditional,
    ast.Tuple: Expressions.sequence, ast.List: Expressions.sequence, ast.Set: Expressions.sequence, ast.Dict: Expressions.dictionary,
    ast.ListComp: Expressions.comprehension, ast.SetComp: Expressions.comprehension, ast.GeneratorExp: Expressions.comprehension,
    ast.DictComp: Expressions.comprehension, ast.Lambda: Expressions.function, ast.Await: Expressions.awaited,
    ast.Yield: Expressions.yielded, ast.YieldFrom: Expressions.yielded, ast.NamedExpr: Expressions.walrus,
}  # fmt: skip
