"""libcst statements to blocks and edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import libcst as cst

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.lower import guards
from flake8_torchmem.analysis.lower.expressions import Expressions, operator, target_names
from flake8_torchmem.analysis.lower.scope import Scope

Body = cst.BaseSuite | Sequence[cst.BaseStatement]


class Statements:
    """Lowers one function's statements into its scope; nested definitions go to `define`."""

    def __init__(self, scope: Scope, define: Callable[[cst.FunctionDef | cst.ClassDef, Scope], None]) -> None:
        self.scope = scope
        self.expressions = Expressions(scope)
        self.define = define

    def suite(self, body: Body) -> None:
        """Lower a block of statements."""
        statements: Sequence[cst.CSTNode] = body.body if isinstance(body, (cst.BaseSuite, cst.Module)) else body
        for statement in statements:
            if isinstance(statement, cst.SimpleStatementLine):
                for small in statement.body:
                    self.statement(small)
            else:
                self.statement(statement)

    def statement(self, node: cst.CSTNode) -> None:
        """Lower one statement; unknown kinds have no effect."""
        outer, self.scope.mark = self.scope.mark, ir.Mark(next(self.scope.marks), self.scope.fn.file)
        handler = HANDLERS.get(type(node))
        if handler is not None:
            handler(self, node)
        self.scope.mark = outer

    def _expr(self, node: cst.CSTNode) -> ir.Expr:
        return self.expressions.lower(node)

    def expression(self, node: cst.Expr) -> None:
        value = self._expr(node.value)
        if isinstance(value, ir.Call):
            mode = guards.of_statement(value, self.scope.fn.file, self.scope.values)
            if mode is not None:
                self.scope.switch(mode)
        else:
            self.scope.fn.tests.append(value)

    def assign(self, node: cst.Assign) -> None:
        value = self._expr(node.value)
        for target in node.targets:
            self.expressions.bind(target.target, value)

    def annotated(self, node: cst.AnnAssign) -> None:
        if node.value is not None:
            self.expressions.bind(node.target, self._expr(node.value))

    def augment(self, node: cst.AugAssign) -> None:
        delta = self._expr(node.value)
        target = self._expr(node.target)
        site = self.scope.site()
        value = ir.Op(operator(node.operator), (target, delta))
        if isinstance(target, ir.Name):
            self.scope.assign(target.path, value, "augment", site, delta)
        elif isinstance(target, ir.Item):
            container = self.expressions.path(target)
            if container:
                self.scope.emit(ir.Store(self.scope.ctx, site, container, delta, "augment", target.key))

    def delete(self, node: cst.Del) -> None:
        targets = node.target.elements if isinstance(node.target, cst.Tuple) else (node.target,)
        for target in targets:
            place = self._expr(target.value if isinstance(target, cst.Element) else target)
            if isinstance(place, ir.Name):
                self.scope.assign(place.path, ir.Const(None), "delete", self.scope.site())

    def leave(self, node: cst.Return | cst.Raise) -> None:
        if isinstance(node, cst.Return):
            value = self._expr(node.value) if node.value is not None else ir.Const(None)
            self.scope.emit(ir.Return(self.scope.ctx, self.scope.site(), value))
        else:
            self._expr(node.exc) if node.exc is not None else None
            self.scope.block.raises = True
        self.scope.start(self.scope.new_block())

    def jump(self, node: cst.Break | cst.Continue) -> None:
        if self.scope.jumps:
            after, latch = self.scope.jumps[-1]
            self.scope.link(after if isinstance(node, cst.Break) else latch)
            loop = self.scope.ctx.loops[-1]
            loop.skips.extend(cond for cond, _ in self.scope.ctx.conds_inside(loop))
        self.scope.start(self.scope.new_block())

    def names(self, node: cst.Global | cst.Nonlocal) -> None:
        self.scope.fn.free.update(item.name.value for item in node.names)

    def check(self, node: cst.Assert) -> None:
        self.scope.fn.tests.append(self._expr(node.test))

    def definition(self, node: cst.FunctionDef | cst.ClassDef) -> None:
        self.define(node, self.scope)

    def branch(self, node: cst.If) -> None:
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
                if isinstance(body, cst.If):
                    self.statement(body)
                elif isinstance(body, cst.Else):
                    self.suite(body.body)
                elif body is not None:
                    self.suite(body)
            self.scope.link(after)
        self.scope.start(after)

    def match(self, node: cst.Match) -> None:
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

    def for_loop(self, node: cst.For) -> None:
        iterable = self._expr(node.iter)
        start = counted(iterable)
        counter, element = (None, node.target) if start is None else split_target(node.target, iterable)
        if counter is not None:
            self.expressions.bind(counter, start or ir.Opaque(), "target")

        def head() -> None:
            if element is not None:
                self.expressions.bind(element, ir.Item(iterable, ir.Opaque()), "target")

        self._loop(node, iterable, head, counter)

    def while_loop(self, node: cst.While) -> None:
        test = self._expr(node.test)
        self.scope.fn.tests.append(test)
        self._loop(node, None, lambda: None, None, endless=isinstance(test, ir.Const) and bool(test.value))

    def _loop(
        self,
        node: cst.For | cst.While,
        iterable: ir.Expr | None,
        head: Callable[[], None],
        counter: cst.CSTNode | None,
        endless: bool = False,
    ) -> None:
        """Bodies run at least once: an empty loader is no training. The back edge leaves from a latch block."""
        scope = self.scope
        kind = "for" if isinstance(node, cst.For) else "while"
        loop = ir.Loop(
            kind,
            iterable,
            target_names(node.target) if isinstance(node, cst.For) else (),
            scope.site(),
            scope.ctx.loops[-1] if scope.ctx.loops else None,
        )
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
        if node.orelse is not None:
            self.suite(node.orelse.body)

    def with_block(self, node: cst.With) -> None:
        mode, accumulate = None, False
        for item in node.items:
            manager = self._expr(item.item)
            self.scope.fn.managers.append(manager)
            entered = guards.of_expression(manager, self.scope.fn.file, self.scope.values)
            mode = mode if entered is None else entered
            accumulate = accumulate or (isinstance(manager, ir.Call) and manager.method == "accumulate")
            if item.asname is not None:
                self.expressions.bind(item.asname.name, managed(manager), "with")
        changes: dict[str, object] = {"grad": mode} if mode is not None else {}
        if accumulate:
            changes["accumulate"] = True
        with self.scope.within(**changes):
            self.suite(node.body)

    def attempt(self, node: cst.Try | cst.TryStar) -> None:
        """A handler starts from the state before the `try`: what a failed statement did is not guessed."""
        scope = self.scope
        before, body, after = scope.block, scope.new_block(), scope.new_block()
        scope.link(body)
        scope.start(body)
        self.suite(node.body)
        passed = after if node.orelse is None else scope.new_block()
        scope.link(passed)
        end = len(scope.fn.blocks)
        for handler in node.handlers:
            types = self._expr(handler.type) if handler.type is not None else None
            block = scope.new_block()
            before.edges.append(ir.Edge(block, ir.Opaque(), True, None, scope.ctx.loops, handler=True))
            scope.start(block)
            name = target_names(handler.name.name)[0] if handler.name is not None else None
            with scope.within(handler=ir.Handler(types, name, body.index, end)):
                self.suite(handler.body)
            scope.link(after)
        if node.orelse is not None:
            scope.start(passed)
            self.suite(node.orelse.body)
            scope.link(after)
        scope.start(after)
        if node.finalbody is not None:
            self.suite(node.finalbody.body)


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


def split_target(target: cst.CSTNode, iterable: ir.Expr) -> tuple[cst.CSTNode | None, cst.CSTNode | None]:
    """The counter and the element of a counting loop's target."""
    if isinstance(target, cst.Name):
        enumerates = any(isinstance(node, ir.Call) and node.method == "enumerate" for node in ir.walk(iterable))
        return (None, target) if enumerates else (target, None)
    if isinstance(target, (cst.Tuple, cst.List)) and len(target.elements) == 2:
        return target.elements[0].value, target.elements[1].value
    return None, target


HANDLERS: dict[type[cst.CSTNode], Callable[..., None]] = {
    cst.Expr: Statements.expression, cst.Assign: Statements.assign, cst.AnnAssign: Statements.annotated,
    cst.AugAssign: Statements.augment, cst.Del: Statements.delete, cst.Return: Statements.leave, cst.Raise: Statements.leave,
    cst.Break: Statements.jump, cst.Continue: Statements.jump, cst.Global: Statements.names, cst.Nonlocal: Statements.names,
    cst.Assert: Statements.check, cst.FunctionDef: Statements.definition, cst.ClassDef: Statements.definition,
    cst.If: Statements.branch, cst.Match: Statements.match, cst.For: Statements.for_loop, cst.While: Statements.while_loop,
    cst.With: Statements.with_block, cst.Try: Statements.attempt, cst.TryStar: Statements.attempt,
}  # fmt: skip
