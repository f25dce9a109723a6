"""The function that is being lowered: its current block, its context, and how both change."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths


class Scope:
    """Where lowered events go.

    Args:
        function: receives blocks and loops.
        grad: gradient mode at the function's entry.
        marks: numbers for statements, shared by the whole file.
    """

    def __init__(self, function: ir.Function, grad: ir.Grad, marks: Iterator[int]) -> None:
        self.fn = function
        self.imports = function.file.imports
        self.ctx = ir.Context(function.file, grad=grad)
        self.marks = marks
        self.mark = function.mark
        self.start(self.new_block())
        self.jumps: list[tuple[ir.Block, ir.Block]] = []
        self.switched: ir.Grad | None = None
        self.methods: dict[str, str] = {}
        self.renamed: dict[str, str] = {}
        self.values: dict[str, ir.Expr] = {}

    def new_block(self) -> ir.Block:
        """A fresh block, neither linked nor a part of the function until something starts in it."""
        return ir.Block()

    def link(self, target: ir.Block, cond: ir.Expr | None = None, arm: bool = True, turn: ir.Loop | None = None) -> None:
        """An edge from the current block."""
        self.block.edges.append(ir.Edge(target, cond, arm, turn, self.ctx.loops, site=self.site()))

    def start(self, block: ir.Block) -> None:
        """Go on in this block. Blocks are numbered as they are first started, which is the order of the source."""
        if block.index < 0:
            block.index = len(self.fn.blocks)
            self.fn.blocks.append(block)
        self.block = block

    def nested(self, params: ast.arguments) -> Scope:
        """The scope of a lambda: a function of its own, on the statement it stands in."""
        name = f"<lambda {len(self.fn.nested) + 1}>"
        function = ir.Function(name, self.mark, None, parameters(params), (), self.fn)
        function.grad = ir.Grad.ON if self.ctx.grad is ir.Grad.ON else ir.Grad.MAYBE
        self.fn.nested[name] = function
        scope = Scope(function, function.grad, self.marks)
        scope.renamed = {name: other for name, other in self.renamed.items() if name not in function.params}
        return scope

    def emit(self, event: ir.Event) -> None:
        """Append an event to the current block."""
        self.block.events.append(event)

    def site(self) -> ir.Site:
        """The statement that is being lowered."""
        return ir.Site(self.mark)

    def expression(self, node: ast.expr) -> ir.Site:
        """A call or comprehension of the statement."""
        return ir.Site(self.mark, extent(node))

    def resolve(self, path: str) -> str:
        """The path with imports spelled out."""
        return torchapi.resolve(path, self.imports)

    def assign(self, place: str, value: ir.Expr, kind: str, site: ir.Site, delta: ir.Expr | None = None) -> None:
        """Emit a binding, and note it on the function and on every loop around."""
        self.fn.assigned.add(place)
        for loop in self.ctx.loops:
            loop.assigned.add(place)
        self.methods.pop(place, None)
        self.values.pop(place, None)
        if kind == "assign" and isinstance(value, (ir.Name, ir.Call, ir.Op)):
            self.values[place] = value
        method = value.args[0] if isinstance(value, ir.Call) and value.method == "partial" and value.args else value
        if isinstance(method, ir.Name) and torchapi.last(method.path) in BOUND_METHODS and "." in method.path:
            self.methods[place] = method.path
        event = ir.Bind(self.ctx, site, place, value, kind, delta)
        for gradient in gradient_assignment(event):
            self.emit(gradient)
        self.emit(event)

    @contextmanager
    def within(self, ctx: ir.Context) -> Iterator[None]:
        """Another context, for the events emitted inside."""
        outer, self.ctx = self.ctx, ctx
        try:
            yield
        finally:
            self.ctx = outer if self.switched is None else outer.differing(grad=self.switched)

    def switch(self, mode: ir.Grad) -> None:
        """Gradient mode changes from here to the end of the function."""
        self.switched = mode
        self.ctx = self.ctx.differing(grad=mode)

    def branch(self, cond: ir.Expr, arm: bool) -> AbstractContextManager[None]:
        """Events inside happen only if the condition is `arm`."""
        return self.within(self.ctx.differing(cond=(cond, arm, len(self.ctx.loops))))

    def loop(self, loop: ir.Loop) -> AbstractContextManager[None]:
        """Events inside happen once per turn of this loop."""
        self.fn.loops.append(loop)
        return self.within(self.ctx.differing(loops=(*self.ctx.loops, loop)))

    @contextmanager
    def comprehension(self, iterable: ir.Expr, site: ir.Site, targets: tuple[str, ...]) -> Iterator[ir.Loop]:
        """A comprehension: a loop whose body is one block with a back edge, and whose variables are its own."""
        loop = ir.Loop("comp", iterable, (), site, self.ctx.loops[-1] if self.ctx.loops else None)
        body, after = self.new_block(), self.new_block()
        self.link(body)
        self.start(body)
        outer = self.renamed
        self.renamed = {**outer, **{name: f"{name}#{len(self.fn.loops)}" for name in targets}}
        with self.loop(loop):
            yield loop
        self.renamed = outer
        self.link(body, turn=loop)
        self.link(after)
        self.start(after)


def extent(node: ast.stmt | ast.expr) -> ir.Extent:
    """Where syntax is."""
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def mark(number: int, node: ast.stmt, file: ir.File) -> ir.Mark:
    """A statement by its number."""
    suite = getattr(node, "body", None)
    return ir.Mark(number, file, extent(node.test if isinstance(node, ast.If) else node), extent(suite[0]) if suite else None)


def parameters(params: ast.arguments) -> tuple[str, ...]:
    """Parameter names, positional ones in order, then keyword-only ones."""
    return tuple(param.arg for param in every(params))


def every(params: ast.arguments) -> tuple[ast.arg, ...]:
    """Parameters, positional ones in order, then keyword-only ones."""
    return (*params.posonlyargs, *params.args, *params.kwonlyargs)


def defaults(params: ast.arguments) -> dict[str, ast.expr]:
    """What parameters are when they are not given; of positional ones the last have such."""
    positional = (*params.posonlyargs, *params.args)
    given = [*zip(positional[len(positional) - len(params.defaults) :], params.defaults, strict=True)]
    named = zip(params.kwonlyargs, params.kw_defaults, strict=True)
    return {param.arg: default for param, default in (*given, *named) if default is not None}


def gradient_assignment(event: ir.Bind) -> Iterator[ir.Event]:
    """Assignments that are gradient events: `p.grad = None` clears, `p.data -= lr * p.grad` steps."""
    place = event.place
    if place.endswith((".grad", ".grad.data")):
        scaled = event.kind == "augment" and not (isinstance(event.delta, ir.Const) and event.delta.value == 0)
        cleared = event.kind in ("augment", "delete") or (isinstance(event.value, ir.Const) and event.value.value is None)
        if not scaled:
            yield ir.Zero(event.ctx, event.site, place.partition(".grad")[0], None, written=not cleared)
        return
    source = event.delta if event.kind == "augment" else event.value if place.endswith(".data") else None
    if source is not None and any(uses_gradient_of(path, place) for path in ir.names(source)):
        yield ir.Step(event.ctx, event.site, ir.BY_HAND, None)


def uses_gradient_of(path: str, place: str) -> bool:
    """Whether `path` reads the gradient of the tensor that `place` belongs to."""
    base, found, _ = path.partition(".grad")
    return bool(found) and paths.root(base) == paths.root(place)


BOUND_METHODS = frozenset({"step", "zero_grad", "backward", "append"})
