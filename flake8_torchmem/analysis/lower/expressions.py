"""libcst expressions to `ir` expressions, with their calls emitted in evaluation order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import libcst as cst

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import own
from flake8_torchmem.analysis.lower.calls import classify
from flake8_torchmem.analysis.lower.scope import Scope

# Deeper expressions are opaque: nobody writes training code fifty levels deep, generated tables do.
MAX_DEPTH = 50

OPERATORS = {
    "Add": "+", "Subtract": "-", "Multiply": "*", "Divide": "/", "FloorDivide": "//", "Modulo": "%", "Power": "**",
    "MatrixMultiply": "@", "BitAnd": "&", "BitOr": "|", "BitXor": "^", "LeftShift": "<<", "RightShift": ">>",
    "And": "and", "Or": "or", "Not": "not", "Minus": "neg", "Plus": "pos", "BitInvert": "~",
    "Equal": "==", "NotEqual": "!=", "LessThan": "<", "LessThanEqual": "<=", "GreaterThan": ">", "GreaterThanEqual": ">=",
    "Is": "is", "IsNot": "is not", "In": "in", "NotIn": "not in",
}  # fmt: skip


def operator(node: cst.CSTNode) -> str:
    """The sign of an operator node; augmented assignments by the operator that they apply."""
    return OPERATORS.get(type(node).__name__.removesuffix("Assign"), "?")


def literal(node: cst.BaseNumber) -> object:
    """The number that is written, or None when it is none that Python can build."""
    try:
        return int(node.value, 0) if isinstance(node, cst.Integer) else float(getattr(node, "value", "nan"))
    except ValueError:
        return None


class Expressions:
    """Lowers expressions into a scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope
        self.depth = 0

    def lower(self, node: cst.CSTNode) -> ir.Expr:
        """The expression's tree; its calls have been emitted."""
        handler = HANDLERS.get(type(node))
        if handler is None or self.depth >= MAX_DEPTH:
            return ir.Opaque()
        self.depth += 1
        result = handler(self, node)
        self.depth -= 1
        return result

    def name(self, node: cst.Name) -> ir.Expr:
        if node.value in ("True", "False", "None"):
            return ir.Const({"True": True, "False": False, "None": None}[node.value])
        return ir.Name(self.scope.renamed.get(node.value, node.value))

    def attribute(self, node: cst.Attribute) -> ir.Expr:
        base = self.lower(node.value)
        return ir.Name(f"{base.path}.{node.attr.value}") if isinstance(base, ir.Name) else ir.Attr(base, node.attr.value)

    def subscript(self, node: cst.Subscript) -> ir.Expr:
        base = self.lower(node.value)
        keys = [self.lower(element.slice) for element in node.slice]
        key = keys[0] if len(keys) == 1 else ir.Seq("tuple", tuple(keys))
        if isinstance(base, ir.Name) and isinstance(key, ir.Const) and isinstance(key.value, (str, int)):
            return ir.Name(f"{base.path}[{key.value!r}]")
        return ir.Item(base, key)

    def index(self, node: cst.Index) -> ir.Expr:
        return self.lower(node.value)

    def slice(self, node: cst.Slice) -> ir.Expr:
        return ir.Seq("slice", tuple(self.lower(part) for part in (node.lower, node.upper, node.step) if part is not None))

    def number(self, node: cst.BaseNumber) -> ir.Expr:
        return ir.Const(literal(node))

    def string(self, node: cst.SimpleString) -> ir.Expr:
        return ir.Const(node.raw_value)

    def joined(self, node: cst.ConcatenatedString) -> ir.Expr:
        return ir.Op("format", (self.lower(node.left), self.lower(node.right)))

    def formatted(self, node: cst.FormattedString) -> ir.Expr:
        return ir.Op("format", tuple(self.part(part) for part in node.parts))

    def part(self, node: cst.BaseFormattedStringContent) -> ir.Expr:
        if not isinstance(node, cst.FormattedStringExpression):
            return ir.Const(getattr(node, "value", ""))
        value = self.lower(node.expression)
        return ir.Op("spec", (value,)) if node.format_spec else value  # `{x:.3f}` takes a number, `{x}` anything

    def call(self, node: cst.Call) -> ir.Expr:
        site = self.scope.expression()
        func = self.lower(node.func)
        if isinstance(func, ir.Name) and func.path in self.scope.methods:
            func = ir.Name(self.scope.methods[func.path])
        args = tuple(self.lower(arg.value) for arg in node.args if arg.keyword is None)
        kwargs = {arg.keyword.value: self.lower(arg.value) for arg in node.args if arg.keyword is not None}
        star = any(arg.star for arg in node.args)
        call = ir.Call(func, args, kwargs, star, self.scope.ctx, site)
        call, events = own.read(call, self.scope) or (call, list(classify(call, self.scope)))
        for event in events:
            self.scope.emit(event)
        return call

    def binary(self, node: cst.BinaryOperation) -> ir.Expr:
        spine: list[cst.BinaryOperation] = []
        left: cst.CSTNode = node
        while isinstance(left, cst.BinaryOperation):
            spine.append(left)
            left = left.left
        if len(spine) > MAX_DEPTH:
            return ir.Opaque()
        result = self.lower(left)
        for part in reversed(spine):
            result = ir.Op(operator(part.operator), (result, self.lower(part.right)))
        return result

    def boolean(self, node: cst.BooleanOperation) -> ir.Expr:
        return ir.Op(operator(node.operator), (self.lower(node.left), self.lower(node.right)))

    def unary(self, node: cst.UnaryOperation) -> ir.Expr:
        return ir.Op(operator(node.operator), (self.lower(node.expression),))

    def comparison(self, node: cst.Comparison) -> ir.Expr:
        left = self.lower(node.left)
        tests: list[ir.Expr] = []
        for target in node.comparisons:
            right = self.lower(target.comparator)
            tests.append(ir.Op(operator(target.operator), (left, right)))
            left = right
        return tests[0] if len(tests) == 1 else ir.Op("and", tuple(tests))

    def conditional(self, node: cst.IfExp) -> ir.Expr:
        test = self.lower(node.test)
        with self.scope.branch(test, True):
            then = self.lower(node.body)
        with self.scope.branch(test, False):
            other = self.lower(node.orelse)
        return ir.Op("if", (test, then, other))

    def sequence(self, node: cst.Tuple | cst.List | cst.Set) -> ir.Expr:
        return ir.Seq(type(node).__name__.lower(), tuple(self.lower(element.value) for element in node.elements))

    def dictionary(self, node: cst.Dict) -> ir.Expr:
        keys = tuple(self.lower(e.key) if isinstance(e, cst.DictElement) else None for e in node.elements)
        return ir.Seq("dict", tuple(self.lower(element.value) for element in node.elements), keys)

    def comprehension(self, node: cst.BaseSimpleComp | cst.DictComp) -> ir.Expr:
        return self._comprehension(node, node.for_in, self.scope.expression())

    def _comprehension(self, node: cst.BaseSimpleComp | cst.DictComp, clause: cst.CompFor, site: ir.Site) -> ir.Expr:
        iterable = self.lower(clause.iter)
        with self.scope.comprehension(iterable, site, target_names(clause.target)) as loop:
            self.bind(clause.target, ir.Item(iterable, ir.Opaque()), "target")
            conditions = [self.lower(test.test) for test in clause.ifs]
            self.scope.fn.tests.extend(conditions)
            if clause.inner_for_in is not None:
                return self._comprehension(node, clause.inner_for_in, site)
            element = node.value if isinstance(node, cst.DictComp) else node.elt
            if isinstance(node, cst.DictComp):
                self.lower(node.key)
            kind = type(node).__name__
            if conditions:
                with self.scope.branch(conditions[0], True):
                    return ir.Comp(kind, self.lower(element), loop)
            return ir.Comp(kind, self.lower(element), loop)

    def function(self, node: cst.Lambda) -> ir.Expr:
        """A lambda by the name of the function that it makes."""
        scope = self.scope.nested(node.params)
        value = Expressions(scope).lower(node.body)
        scope.emit(ir.Return(scope.ctx, scope.site(), value))
        return ir.Name(scope.fn.name)

    def wrapped(self, node: cst.Await | cst.Yield | cst.From) -> ir.Expr:
        inner: cst.CSTNode | None = (
            node.item if isinstance(node, cst.From) else getattr(node, "expression", None) or getattr(node, "value", None)
        )
        value = self.lower(inner) if inner is not None else ir.Const(None)
        if isinstance(node, cst.Yield):
            self.scope.emit(ir.Return(self.scope.ctx, self.scope.site(), value, "yield"))
            return ir.Opaque()
        return value

    def walrus(self, node: cst.NamedExpr) -> ir.Expr:
        value = self.lower(node.value)
        self.bind(node.target, value)
        return value

    def bind(self, target: cst.CSTNode, value: ir.Expr, kind: str = "assign") -> None:
        """Emit what assigning `value` to a target means, tuple targets part by part."""
        site = self.scope.site()
        if isinstance(target, (cst.Tuple, cst.List)):
            values = value.items if isinstance(value, ir.Seq) and len(value.items) == len(target.elements) else None
            self._unpack(target.elements, values, value, kind)
            return
        place = self.lower(target)
        if isinstance(place, ir.Item):
            container = self.path(place.base)
            if container:
                self.scope.emit(ir.Store(self.scope.ctx, site, container, value, "setitem", place.key))
        elif isinstance(place, ir.Name):
            self.scope.assign(place.path, value, kind, site)

    def _unpack(self, elements: Sequence[cst.BaseElement], values: Sequence[ir.Expr] | None, value: ir.Expr, kind: str) -> None:
        for index, element in enumerate(elements):
            part = values[index] if values is not None else ir.Item(value, ir.Const(index))
            self.bind(element.value, part, kind)

    def path(self, expr: ir.Expr) -> str | None:
        """The access path of what a subscript is taken of; `d[k]` of an unknown key stands for the whole `d`."""
        while isinstance(expr, ir.Item):
            expr = expr.base
        return expr.path if isinstance(expr, ir.Name) else None


def target_names(target: cst.CSTNode) -> tuple[str, ...]:
    """The plain names that a loop's or comprehension's target binds."""
    found, pending = [], [target]
    while pending:
        node = pending.pop()
        if isinstance(node, (cst.Tuple, cst.List)):
            pending.extend(element.value for element in node.elements)
        elif isinstance(node, cst.Name):
            found.append(node.value)
    return tuple(found)


HANDLERS: dict[type[cst.CSTNode], Callable[..., ir.Expr]] = {
    cst.Name: Expressions.name, cst.Attribute: Expressions.attribute, cst.Subscript: Expressions.subscript,
    cst.Index: Expressions.index, cst.Slice: Expressions.slice, cst.Integer: Expressions.number, cst.Float: Expressions.number,
    cst.SimpleString: Expressions.string, cst.ConcatenatedString: Expressions.joined, cst.FormattedString: Expressions.formatted,
    cst.Call: Expressions.call, cst.BinaryOperation: Expressions.binary, cst.BooleanOperation: Expressions.boolean,
    cst.UnaryOperation: Expressions.unary, cst.Comparison: Expressions.comparison, cst.IfExp: Expressions.conditional,
    cst.Tuple: Expressions.sequence, cst.List: Expressions.sequence, cst.Set: Expressions.sequence, cst.Dict: Expressions.dictionary,
    cst.ListComp: Expressions.comprehension, cst.SetComp: Expressions.comprehension, cst.GeneratorExp: Expressions.comprehension,
    cst.DictComp: Expressions.comprehension, cst.Lambda: Expressions.function, cst.Await: Expressions.wrapped,
    cst.Yield: Expressions.wrapped, cst.From: Expressions.wrapped, cst.NamedExpr: Expressions.walrus,
}  # fmt: skip
