"""libcst to `ir`: the only reader of syntax in the analysis."""

from __future__ import annotations

import libcst as cst

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import guards
from flake8_torchmem.analysis.lower.expressions import Expressions
from flake8_torchmem.analysis.lower.scope import Scope
from flake8_torchmem.analysis.lower.statements import Statements


def lower(module: cst.Module, imports: dict[str, str]) -> ir.Program:
    """Lower a module, or the slices of one.

    Args:
        module: parsed source; what was sliced away simply is not there.
        imports: local name to full dotted name, of the whole file.
    """
    return Lowering(imports).module(module)


class Lowering:
    """Keeps the program under construction."""

    def __init__(self, imports: dict[str, str]) -> None:
        self.program = ir.Program(imports)

    def module(self, module: cst.Module) -> ir.Program:
        """The module body first: a switch of the gradient mode there holds for every function."""
        body = ir.Function("<module>", None, (), (), None, None)
        scope = Scope(body, self.program.imports, ir.Grad.ON)
        later: list[tuple[cst.FunctionDef | cst.ClassDef, Scope]] = []
        Statements(scope, lambda node, where: later.append((node, where))).suite(module.body)
        self.program.module = body
        for node, where in later:
            self.define(node, where)
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
        """A class: its methods; other statements of its body are not looked at."""
        names = Expressions(Scope(ir.Function("", None, (), (), None, None), self.program.imports, ir.Grad.ON))
        bases = [names.lower(arg.value) for arg in node.bases]
        cls = ir.Class(node.name.value, tuple(scope.resolve(base.path) for base in bases if isinstance(base, ir.Name)))
        self.program.classes[cls.name] = cls
        for statement in node.body.body:
            if isinstance(statement, cst.FunctionDef):
                method = self.function(statement, cls, None, scope)
                cls.methods[method.name] = method

    def function(self, node: cst.FunctionDef, cls: ir.Class | None, parent: ir.Function | None, outer: Scope) -> ir.Function:
        """One function and, on the way, what is defined in it."""
        decorators = Expressions(Scope(ir.Function("", None, (), (), None, None), self.program.imports, ir.Grad.ON))
        function = ir.Function(
            node.name.value,
            cls,
            parameters(node.params),
            tuple(decorators.lower(decorator.decorator) for decorator in node.decorators),
            parent,
            ir.Site(node, node),
        )
        function.assigned.update(
            param.name.value for param in (node.params.star_arg, node.params.star_kwarg) if isinstance(param, cst.Param)
        )
        function.grad = guards.of_function(function, self.program.imports, outer.ctx.grad)
        scope = Scope(function, self.program.imports, function.grad)
        Statements(scope, self.define).suite(node.body)
        return function


def parameters(params: cst.Parameters) -> tuple[str, ...]:
    """Parameter names, positional ones in order, then keyword-only ones."""
    positional = (*params.posonly_params, *params.params)
    return tuple(param.name.value for param in (*positional, *params.kwonly_params))
