"""The syntax tree to `ir`: the only reader of syntax in the analysis.

Statements are numbered in the order in which they are lowered. What may be reported keeps where it is.

It reads `ast`, which flake8 has at hand for nothing. Parsing by libcst costs over eight times an `ast.parse`, and keeps spaces and comments
that mean nothing here; it reads what is to be edited.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Iterator
from itertools import count

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import guards
from flake8_torchmem.analysis.lower.expressions import Expressions
from flake8_torchmem.analysis.lower.scope import Scope, defaults, every, extent, mark, parameters
from flake8_torchmem.analysis.lower.statements import Statements


def lower(body: Iterable[ast.stmt], file: ir.File) -> ir.Program:
    """Lower what was selected of a file.

    Args:
        body: statements of the module body before definitions: a switch of the gradient mode there holds for every function. A class may
            come in parts, by method.
        file: the file that they are of.
    """
    return Lowering(file).lower(body)


Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = Function | ast.ClassDef


class Lowering:
    """Keeps the program under construction."""

    def __init__(self, file: ir.File) -> None:
        self.file = file
        self.program = ir.Program(file)
        self.marks: Iterator[int] = count()

    def lower(self, statements: Iterable[ast.stmt]) -> ir.Program:
        """All of it into one program."""
        body = ir.Function("<module>", ir.Mark(-1, self.file), None, (), (), None)
        Statements(Scope(body, ir.Grad.ON, self.marks), self.define).suite(statements)
        self.program.module = body
        return self.program

    def define(self, node: Definition, scope: Scope) -> None:
        """A definition met in a scope: the module's go to the program, others hang on their parent."""
        if isinstance(node, ast.ClassDef):
            self.cls(node, scope)
            return
        parent = scope.fn if scope.fn.name != "<module>" else None
        function = self.function(node, None, parent, scope)
        (parent.nested if parent else self.program.functions)[function.name] = function

    def cls(self, node: ast.ClassDef, scope: Scope) -> None:
        """A class, or a further slice of one: its methods; other statements of its body are not looked at."""
        cls = self.program.classes.get(node.name)
        if cls is None:
            bases = self.outside(node.bases)
            cls = ir.Class(node.name, tuple(scope.resolve(base.path) for base in bases if isinstance(base, ir.Name)), self.file)
            self.program.classes[cls.name] = cls
        for statement in node.body:
            if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
                outer, scope.mark = scope.mark, mark(next(self.marks), statement, self.file)
                method = self.function(statement, cls, None, scope)
                cls.methods[method.name] = method
                scope.mark = outer

    def function(self, node: Function, cls: ir.Class | None, parent: ir.Function | None, outer: Scope) -> ir.Function:
        """One function and, on the way, what is defined in it."""
        function = ir.Function(node.name, outer.mark, cls, parameters(node.args), tuple(self.outside(node.decorator_list)), parent)
        function.assigned.update(param.arg for param in (node.args.vararg, node.args.kwarg) if param is not None)
        function.decorated = tuple([extent(decorator) for decorator in node.decorator_list])
        given = defaults(node.args)
        function.defaults = dict(zip(given, self.outside(given.values()), strict=True))
        annotated = {param.arg: param.annotation for param in every(node.args) if param.annotation is not None}
        function.annotations = dict(zip(annotated, self.outside(annotated.values()), strict=True))
        function.grad = guards.of_function(function, self.file, outer.ctx.grad, outer.values)
        scope = Scope(function, function.grad, self.marks)
        scope.values = {name: value for name, value in outer.values.items() if name not in function.params}
        Statements(scope, self.define).suite(node.body)
        return function

    def outside(self, nodes: Collection[ast.expr]) -> list[ir.Expr]:
        """Expressions that belong to no function: decorators and base classes."""
        if not nodes:
            return []
        scope = Scope(ir.Function("", ir.Mark(-1, self.file), None, (), (), None), ir.Grad.ON, count())
        return [Expressions(scope).lower(node) for node in nodes]
