"""Statements of the syntax tree to blocks and edges."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import guards
from flake8_torchmem.analysis.lower.expressions import OPERATORS, Expressions, target_names
from flake8_torchmem.analysis.lower.scope import Scope, mark

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Statements:
    """Lowers one function's statements into its scope; nested definitions go to `define`."""

    def __init__(self, scope: Scope, define: Callable[[Definition, Scope], None]) -> None:
        self.scope = scope
        self.expressions = Expressions(scope)
        self.define = define

    def suite(self, body: Iterable[ast.stmt]) -> None:
        """Lower a block of statements; unknown kinds have no effect."""
        for node in body:
            self.statement(node, HANDLERS.get(type(node)))

    def statement(self, node: ast.stmt, handler: Callable[..., None] | None) -> None:
        """Lower one statement, which what its handler emits is marked with."""
        outer, self.scope.mark = self.scope.mark, mark(next(self.scope.marks), node, self.scope.fn.file)
        if handler is not None:
            handler(self, node)
        self.scope.mark = outer

    def _expr(self, node: ast.expr) -> ir.Expr:
        return self.expressions.lower(node)

    def expression(self, node: ast.Expr) -> None:
        value = self._expr(node.value)
        if isinstance(value, ir.Call):
            mode = guards.of_statement(value, self.scope.fn.file, self.scope.values)
            if mode is not None:
                self.scope.switch(mode)
        else:
            self.scope.fn.tests.append(value)

    def assign(self, node: ast.Assign) -> None:
        value = self._expr(node.value)
        for target in node.targets:
            self.expressions.bind(target, value)

    def annotated(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.expressions.bind(node.target, self._expr(node.value))

    def augment(self, node: ast.AugAssign) -> None:
        delta = self._expr(node.value)
        target = self._expr(node.target)
        site = self.scope.site()
        value = ir.Op(OPERATORS[type(node.op)], (target, delta))
        if isinstance(target, ir.Name):
            self.scope.assign(target.path, value, "augment", site, delta)
        elif isinstance(target, ir.Item):
            container = self.expressions.path(target)
            if container:
                self.scope.emit(ir.Store(self.scope.ctx, site, container, delta, "augment", target.key))

    def delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            for part in target.elts if isinstance(target, (ast.Tuple, ast.List)) else (target,):
                place = self._expr(part)
                if isinstance(place, ir.Name):
                    self.scope.assign(place.path, ir.Const(None), "delete", self.scope.site())

    def leave(self, node: ast.Return | ast.Raise) -> None:
        if isinstance(node, ast.Return):
            value = self._expr(node.value) if node.value is not None else ir.Const(None)
            self.scope.emit(ir.Return(self.scope.ctx, self.scope.site(), value))
        else:
            self._expr(node.exc) if node.exc is not None else None
            self.scope.block.raises = True
        self.scope.start(self.scope.new_block())

    def jump(self, node: ast.Break | ast.Continue) -> None:
        if self.scope.jumps:
            after, latch = self.scope.jumps[-1]
            self.scope.link(after if isinstance(node, ast.Break) else latch)
            loop = self.scope.ctx.loops[-1]
            loop.skips.extend(cond for cond, _ in self.scope.ctx.conds_inside(loop))
        self.scope.start(self.scope.new_block())

    def names(self, node: ast.Global | ast.Nonlocal) -> None:
        self.scope.fn.free.update(node.names)

    def check(self, node: ast.Assert) -> None:
        self.scope.fn.tests.append(self._expr(node.test))

    def definition(self, node: Definition) -> None:
        self.define(node, self.scope)

    def branch(self, node: ast.If) -> None:
        cond, holds = self._expr(node.test), True
        while isinstance(cond, ir.Op) and cond.op == "not":
            cond, holds = cond.args[0], not holds
        before, after = self.scope.block, self.scope.new_block()
        for arm, body in ((holds, node.body), (not holds, node.orelse)):
            self.scope.start(before)
            block = self.scope.new_block()
            self.scope.link(block, cond, arm)
            self.scope.start(block)
            with self.scope.branch(cond, arm):
                self.suite(body)
            self.scope.link(after)
        self.scope.start(after)

    def match(self, node: ast.Match) -> None:
        self.scope.fn.tests.append(self._expr(node.subject))
        before, after = self.scope.block, self.scope.new_block()
        before.edges.append(ir.Edge(after, ir.Opaque(), False, None, self.scope.ctx.loops))
        for case in node.cases:
            cond, block = ir.Opaque(), self.scope.new_block()
            before.edges.append(ir.Edge(block, cond, True, None, self.scope.ctx.loops))
            self.scope.start(block)
            with self.scope.branch(cond, True):
                self.suite(case.body)
            self.scope.link(after)
        self.scope.start(after)

    def for_loop(self, node: ast.For | ast.AsyncFor) -> None:
        iterable = self._expr(node.iter)
        start = counted(iterable)
        counter, element = (None, node.target) if start is None else split_target(node.target, iterable)
        if counter is not None:
            self.expressions.bind(counter, start or ir.Opaque(), "target")

        def head() -> None:
            if element is not None:
                self.expressions.bind(element, ir.Item(iterable, ir.Opaque()), "target")

        self._loop(node, iterable, head, counter)

    def while_loop(self, node: ast.While) -> None:
        test = self._expr(node.test)
        self.scope.fn.tests.append(test)
        self._loop(node, None, lambda: None, None, endless=isinstance(test, ir.Const) and bool(test.value))

    def _loop(
        self,
        node: ast.For | ast.AsyncFor | ast.While,
        iterable: ir.Expr | None,
        head: Callable[[], None],
        counter: ast.expr | None,
        endless: bool = False,
    ) -> None:
        """Bodies run at least once: an empty loader is no training. The back edge leaves from a latch block."""
        scope = self.scope
        kind, targets = ("while", ()) if isinstance(node, ast.While) else ("for", target_names(node.target))
        loop = ir.Loop(kind, iterable, targets, scope.site(), scope.ctx.loops[-1] if scope.ctx.loops else None)
        body, latch, after = scope.new_block(), scope.new_block(), scope.new_block()
        scope.link(body)
        scope.start(body)
        with scope.loop(loop):
            head()
            scope.jumps.append((after, latch))
            self.suite(node.body)
            scope.jumps.pop()
            scope.link(latch)
            scope.start(latch)
            if counter is not None:
                name = self._expr(counter)
                self.expressions.bind(counter, ir.Op("+", (name, ir.Const(1))), "target")
        scope.link(body, turn=loop)
        if not endless:
            scope.link(after)
        scope.start(after)
        self.suite(node.orelse)

    def with_block(self, node: ast.With | ast.AsyncWith) -> None:
        mode, accumulate = None, False
        for item in node.items:
            manager = self._expr(item.context_expr)
            self.scope.fn.managers.append(manager)
            entered = guards.of_expression(manager, self.scope.fn.file, self.scope.values)
            mode = mode if entered is None else entered
            accumulate = accumulate or (isinstance(manager, ir.Call) and manager.method == "accumulate")
            if item.optional_vars is not None:
                self.expressions.bind(item.optional_vars, managed(manager), "with")
        with self.scope.within(self.scope.ctx.differing(grad=mode, accumulate=accumulate or None)):
            self.suite(node.body)

    def attempt(self, node: ast.Try) -> None:
        """A handler starts from the state before the `try`: what a failed statement did is not guessed."""
        scope = self.scope
        before, body, after = scope.block, scope.new_block(), scope.new_block()
        scope.link(body)
        scope.start(body)
        self.suite(node.body)
        passed = scope.new_block() if node.orelse else after
        scope.link(passed)
        end = len(scope.fn.blocks)
        for handler in node.handlers:
            types = self._expr(handler.type) if handler.type is not None else None
            block = scope.new_block()
            before.edges.append(ir.Edge(block, ir.Opaque(), True, None, scope.ctx.loops, handler=True))
            scope.start(block)
            with scope.within(scope.ctx.differing(handler=ir.Handler(types, handler.name, body.index, end))):
                self.suite(handler.body)
            scope.link(after)
        if node.orelse:
            scope.start(passed)
            self.suite(node.orelse)
            scope.link(after)
        scope.start(after)
        self.suite(node.finalbody)


def managed(manager: ir.Expr) -> ir.Expr:
    """What `with ... as x` binds: apex's `amp.scale_loss(loss, opt)` gives the loss back."""
    return manager.args[0] if isinstance(manager, ir.Call) and manager.method == "scale_loss" and manager.args else manager


def counted(iterable: ir.Expr) -> ir.Expr | None:
    """Where a `for` that counts its turns starts: `enumerate(x, 1)`, `range(n)`, also inside `tqdm(...)`; else None."""
    if not isinstance(iterable, ir.Call) or not isinstance(iterable.func, ir.Name):
        return None
    args = iterable.args
    if iterable.method == "enumerate":
        return iterable.kwargs.get("start") or (args[1] if len(args) > 1 else ir.Const(0))
    if iterable.method in ("range", "trange") and args and len(args) < 3:
        return ir.Const(0) if len(args) == 1 else args[0]
    if iterable.method in ("tqdm", "track") and args:
        return counted(args[0])
    return None


def split_target(target: ast.expr, iterable: ir.Expr) -> tuple[ast.expr | None, ast.expr | None]:
    """The counter and the element of a counting loop's target."""
    if isinstance(target, ast.Name):
        enumerates = any(isinstance(node, ir.Call) and node.method == "enumerate" for node in ir.walk(iterable))
        return (None, target) if enumerates else (target, None)
    if isinstance(target, (ast.Tuple, ast.List)) and len(target.elts) == 2:
        return target.elts[0], target.elts[1]
    return None, target


HANDLERS: dict[type[ast.stmt], Callable[..., None]] = {
    ast.Expr: Statements.expression, ast.Assign: Statements.assign, ast.AnnAssign: Statements.annotated,
    ast.AugAssign: Statements.augment, ast.Delete: Statements.delete, ast.Return: Statements.leave, ast.Raise: Statements.leave,
    ast.Break: Statements.jump, ast.Continue: Statements.jump, ast.Global: Statements.names, ast.Nonlocal: Statements.names,
    ast.Assert: Statements.check, ast.FunctionDef: Statements.definition, ast.AsyncFunctionDef: Statements.definition,
    ast.ClassDef: Statements.definition, ast.If: Statements.branch, ast.Match: Statements.match, ast.For: Statements.for_loop,
    ast.AsyncFor: Statements.for_loop, ast.While: Statements.while_loop, ast.With: Statements.with_block,
    ast.AsyncWith: Statements.with_block, ast.Try: Statements.attempt, getattr(ast, "TryStar", ast.Try): Statements.attempt,
}  # fmt: skip
