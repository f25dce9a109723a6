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
from flake8_torchmem.analysis.lower.scope import Scope
from flake8_torchmem.analysis.lower.statements import Statements


def lower(modules: Iterable[cst.Module], imports: dict[str, str]) -> ir.Program:
    """Lower the slices of a file.

    Args:
        modules: parsed slices, statements of the module body before definitions: a switch of the gradient mode there holds
            for every function. Each is let go before the next is asked for.
        imports: local name to full dotted name, of the whole file.
    """
    return Lowering(imports).file(modules)


class Lowering:
    """Keeps the program under construction."""

    def __init__(self, imports: dict[str, str]) -> None:
        self.program = ir.Program(imports)
        self.marks: Iterator[int] = count()

    def file(self, modules: Iterable[cst.Module]) -> ir.Program:
        """All slices into one program."""
        body = ir.Function("<module>", None, (), (), None)
        statements = Statements(Scope(body, self.program.imports, ir.Grad.ON, self.marks), self.define)
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
            cls = ir.Class(node.name.value, tuple(scope.resolve(base.path) for base in bases if isinstance(base, ir.Name)))
            self.program.classes[cls.name] = cls
        for statement in node.body.body:
            if isinstance(statement, cst.FunctionDef):
                method = self.function(statement, cls, None, scope)
                cls.methods[method.name] = method

    def function(self, node: cst.FunctionDef, cls: ir.Class | None, parent: ir.Function | None, outer: Scope) -> ir.Function:
        """One function and, on the way, what is defined in it."""
        decorators = self.outside([decorator.decorator for decorator in node.decorators])
        function = ir.Function(node.name.value, cls, parameters(node.params), tuple(decorators), parent)
        function.assigned.update(
            param.name.value for param in (node.params.star_arg, node.params.star_kwarg) if isinstance(param, cst.Param)
        )
        function.grad = guards.of_function(function, self.program.imports, outer.ctx.grad, outer.values)
        scope = Scope(function, self.program.imports, function.grad, self.marks)
        Statements(scope, self.define).suite(node.body)
        return function

    def outside(self, nodes: list[cst.BaseExpression]) -> list[ir.Expr]:
        """Expressions that belong to no function: decorators and base classes."""
        scope = Scope(ir.Function("", None, (), (), None), self.program.imports, ir.Grad.ON, count())
        return [Expressions(scope).lower(node) for node in nodes]


def parameters(params: cst.Parameters) -> tuple[str, ...]:
    """Parameter names, positional ones in order, then keyword-only ones."""
    positional = (*params.posonly_params, *params.params)
    return tuple(param.name.value for param in (*positional, *params.kwonly_params))
