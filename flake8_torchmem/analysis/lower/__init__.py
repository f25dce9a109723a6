"""libcst to `ir`: the only reader of syntax in the analysis.

Statements are numbered in the order in which they are lowered, and calls and comprehensions within their statement: that is
all that is kept of the syntax. `positions` numbers the ast in the same order, and so finds the places of findings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import libcst as cst

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import guards
from flake8_torchmem.analysis.lower.expressions import Expressions
from flake8_torchmem.analysis.lower.scope import Scope, every, parameters
from flake8_torchmem.analysis.lower.statements import Statements


def lower(modules: Iterable[cst.Module], file: ir.File) -> ir.Program:
    """Lower the slices of a file.

    Args:
        modules: parsed slices, statements of the module body before definitions: a switch of the gradient mode there holds
            for every function. Each is let go before the next is asked for.
        file: the file that they are of.
    """
    return Lowering(file).lower(modules)


class Lowering:
    """Keeps the program under construction."""

    def __init__(self, file: ir.File) -> None:
        self.file = file
        self.program = ir.Program(file)
        self.marks: Iterator[int] = count()

    def lower(self, modules: Iterable[cst.Module]) -> ir.Program:
        """All slices into one program."""
        body = ir.Function("<module>", ir.Mark(-1, self.file), None, (), (), None)
        statements = Statements(Scope(body, ir.Grad.ON, self.marks), self.define)
        for module in modules:
            statements.suite(module.body)
        self.program.module = body
        return self.program

    def define(self, node: cst.FunctionDef | cst.ClassDef, scope: Scope) -> None:
        """A definition met in a scope: the module's go to the program, others hang on their parent."""
        if isinstance(node, cst.ClassDef):
            self.cls(node, scope)
            return
        parent = scope.fn if scope.fn.name != "<module>" else None
        function = self.function(node, None, parent, scope)
        (parent.nested if parent else self.program.functions)[function.name] = function

    def cls(self, node: cst.ClassDef, scope: Scope) -> None:
        """A class, or a further slice of one: its methods; other statements of its body are not looked at."""
        cls = self.program.classes.get(node.name.value)
        if cls is None:
            bases = self.outside([arg.value for arg in node.bases])
            cls = ir.Class(node.name.value, tuple(scope.resolve(base.path) for base in bases if isinstance(base, ir.Name)), self.file)
            self.program.classes[cls.name] = cls
        for statement in node.body.body:
            if isinstance(statement, cst.FunctionDef):
                outer, scope.mark = scope.mark, ir.Mark(next(self.marks), self.file)
                method = self.function(statement, cls, None, scope)
                cls.methods[method.name] = method
                scope.mark = outer

    def function(self, node: cst.FunctionDef, cls: ir.Class | None, parent: ir.Function | None, outer: Scope) -> ir.Function:
        """One function and, on the way, what is defined in it."""
        decorators = self.outside([decorator.decorator for decorator in node.decorators])
        function = ir.Function(node.name.value, outer.mark, cls, parameters(node.params), tuple(decorators), parent)
        function.assigned.update(
            param.name.value for param in (node.params.star_arg, node.params.star_kwarg) if isinstance(param, cst.Param)
        )
        defaults = {param.name.value: param.default for param in every(node.params) if param.default is not None}
        function.defaults = dict(zip(defaults, self.outside(list(defaults.values())), strict=True))
        annotated = {param.name.value: param.annotation.annotation for param in every(node.params) if param.annotation is not None}
        function.annotations = dict(zip(annotated, self.outside(list(annotated.values())), strict=True))
        function.grad = guards.of_function(function, self.file, outer.ctx.grad, outer.values)
        scope = Scope(function, function.grad, self.marks)
        scope.values = {name: value for name, value in outer.values.items() if name not in function.params}
        Statements(scope, self.define).suite(node.body)
        return function

    def outside(self, nodes: list[cst.BaseExpression]) -> list[ir.Expr]:
        """Expressions that belong to no function: decorators and base classes."""
        scope = Scope(ir.Function("", ir.Mark(-1, self.file), None, (), (), None), ir.Grad.ON, count())
        return [Expressions(scope).lower(node) for node in nodes]
