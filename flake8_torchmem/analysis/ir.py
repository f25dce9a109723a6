"""Events, blocks, functions: the small language that rules read.

A function is a control-flow graph of blocks. A block holds events in evaluation order; events hold expressions, small
trees without syntax. Identity is the node itself: two equal-looking calls are two calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "is", "is not", "in", "not in", "not"})
BOOLEAN = frozenset({"and", "or"})
BY_HAND = "<by hand>"  # the owner of a step that is written out: `p.data -= lr * p.grad`


class Grad(Enum):
    """Whether autograd records at a point: ON, OFF, or MAYBE when it depends on what the analysis cannot see."""

    ON = "on"
    OFF = "off"
    MAYBE = "maybe"


@dataclass(eq=False, slots=True)
class Mark:
    """A statement by its number in the order of lowering, and how many calls and comprehensions it holds."""

    number: int
    expressions: int = 0


@dataclass(eq=False, slots=True)
class Site:
    """A statement, or the call or comprehension of this rank in it. `source` finds the place, only when it is reported."""

    mark: Mark
    rank: int | None = None


class Expr:
    """Base of the expression trees."""

    __slots__ = ()


@dataclass(eq=False, slots=True)
class Name(Expr):
    """An access path: `x`, `self.opt`, `torch.nn.Linear`, `d['loss']`."""

    path: str


@dataclass(eq=False, slots=True)
class Attr(Expr):
    """An attribute of something that is no path: `f(x).loss`."""

    base: Expr
    name: str


@dataclass(eq=False, slots=True)
class Item(Expr):
    """A subscript whose key is not constant, or whose base is no path."""

    base: Expr
    key: Expr


@dataclass(eq=False, slots=True)
class Const(Expr):
    """A literal; strings, numbers, True, False, None."""

    value: object


@dataclass(eq=False, slots=True)
class Call(Expr):
    """A call, with the context it is evaluated in. `star` when arguments are spread into it."""

    func: Expr
    args: tuple[Expr, ...]
    kwargs: dict[str, Expr]
    star: bool
    ctx: Context
    site: Site

    @property
    def path(self) -> str | None:
        """The callee's access path, if it has one."""
        return self.func.path if isinstance(self.func, Name) else None

    @property
    def method(self) -> str:
        """The last part of the callee: `backward` of `loss.backward(...)` and of `f().backward()`."""
        if isinstance(self.func, Name):
            return self.func.path.rpartition(".")[2]
        return self.func.name if isinstance(self.func, Attr) else ""

    @property
    def receiver(self) -> Expr | None:
        """What stands before the last dot, if anything."""
        if isinstance(self.func, Name):
            base = self.func.path.rpartition(".")[0]
            return Name(base) if base else None
        return self.func.base if isinstance(self.func, Attr) else None

    @property
    def operands(self) -> tuple[Expr, ...]:
        """Positional, then keyword arguments."""
        return self.args + tuple(self.kwargs.values())


@dataclass(eq=False, slots=True)
class Op(Expr):
    """An operator, a comparison, `and`/`or`/`not`, or `if` (condition, then, else)."""

    op: str
    args: tuple[Expr, ...]


@dataclass(eq=False, slots=True)
class Seq(Expr):
    """A display: list, tuple, set, or dict (its values; `keys` beside them)."""

    kind: str
    items: tuple[Expr, ...]
    keys: tuple[Expr | None, ...] = ()


@dataclass(eq=False, slots=True)
class Comp(Expr):
    """A comprehension: its element and its innermost loop."""

    kind: str
    element: Expr
    loop: Loop

    @property
    def site(self) -> Site | None:
        """The comprehension itself."""
        return self.loop.site


@dataclass(eq=False, slots=True)
class Opaque(Expr):
    """Anything else: what it is made of, nothing known of the result."""

    args: tuple[Expr, ...] = ()


@dataclass(eq=False, slots=True)
class Loop:
    """A loop: `kind` is for, while, comp, or body (a whole function). `skips`: conditions under which a turn is cut short."""

    kind: str
    iterable: Expr | None
    targets: tuple[str, ...]
    site: Site | None
    parent: Loop | None
    assigned: set[str] = field(default_factory=set)
    skips: list[Expr] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Context:
    """Where an event stands: enclosing loops (outermost first), gradient mode, conditions with their arm, handler or not."""

    loops: tuple[Loop, ...] = ()
    grad: Grad = Grad.ON
    conds: tuple[tuple[Expr, bool, int], ...] = ()
    handler: bool = False
    accumulate: bool = False

    def conds_inside(self, loop: Loop | None) -> tuple[tuple[Expr, bool], ...]:
        """The conditions between this loop and the event."""
        depth = self.loops.index(loop) + 1 if loop in self.loops else 0
        return tuple((cond, arm) for cond, arm, level in self.conds if level >= depth)


@dataclass(eq=False, slots=True)
class Event:
    """Something that happens; `site` is what to report."""

    ctx: Context
    site: Site


@dataclass(eq=False, slots=True)
class Bind(Event):
    """A place gets a new value. `delta` is what `+=` adds; `kind`: assign, augment, target (of a loop), with, delete."""

    place: str
    value: Expr
    kind: str = "assign"
    delta: Expr | None = None


@dataclass(eq=False, slots=True)
class Store(Event):
    """A value goes into a container that stays what it is. `kind`: append, extend, setitem, augment."""

    place: str
    value: Expr
    kind: str
    key: Expr | None = None


@dataclass(eq=False, slots=True)
class Clear(Event):
    """A container is emptied."""

    place: str


@dataclass(eq=False, slots=True)
class Invoke(Event):
    """A call that is none of the events below."""

    call: Call


@dataclass(eq=False, slots=True)
class Backward(Event):
    """Gradients of `value` are added into the leaves. `engine` is the wrapper that does it, if any (`accelerator`)."""

    call: Call
    value: Expr
    engine: str | None = None


@dataclass(eq=False, slots=True)
class Step(Event):
    """The owner's parameters move by their gradients. `closure`: the step evaluates its own loss."""

    owner: str
    call: Call | None
    closure: bool = False


@dataclass(eq=False, slots=True)
class Zero(Event):
    """The owner's gradients are cleared; None when whose is not visible. `written`: set by hand, to who knows what."""

    owner: str | None
    call: Call | None
    written: bool = False


@dataclass(eq=False, slots=True)
class Return(Event):
    """A value leaves the function; `kind`: return or yield."""

    value: Expr
    kind: str = "return"


@dataclass(eq=False, slots=True)
class Edge:
    """Control flows to `target` if `cond`, where given, is `arm`. `turn`: a loop starts over. `loops`: around the branch.

    `handler`: an exception leads here, and what happened before it is not known.
    """

    target: Block
    cond: Expr | None = None
    arm: bool = True
    turn: Loop | None = None
    loops: tuple[Loop, ...] = ()
    handler: bool = False


@dataclass(eq=False, slots=True)
class Block:
    """Events in order, then one of the edges; `raises`: it ends in an exception."""

    index: int
    events: list[Event] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    raises: bool = False


@dataclass(eq=False, slots=True)
class Function:
    """A function, method, nested function or lambda, or the module body (`name` is `<module>`)."""

    name: str
    owner: Class | None
    params: tuple[str, ...]
    decorators: tuple[Expr, ...]
    parent: Function | None
    blocks: list[Block] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    nested: dict[str, Function] = field(default_factory=dict)
    assigned: set[str] = field(default_factory=set)
    free: set[str] = field(default_factory=set)
    grad: Grad = Grad.ON

    def events(self) -> Iterator[Event]:
        """All events, in source order of their blocks."""
        for block in self.blocks:
            yield from block.events

    def arguments(self, call: Call) -> list[tuple[str, Expr]]:
        """Parameters with what a call gives for them, `self` left out."""
        params = self.params[1:] if self.owner and self.params[:1] == ("self",) else self.params
        return [*zip(params, call.args, strict=False), *call.kwargs.items()]

    @property
    def locals(self) -> set[str]:
        """Names that live in this function alone."""
        return (set(self.params) | {p for p in self.assigned if "." not in p and "[" not in p}) - self.free


@dataclass(eq=False, slots=True)
class Class:
    """A class of the file: full names of its bases, and its methods."""

    name: str
    bases: tuple[str, ...]
    methods: dict[str, Function] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Program:
    """One file: its functions by name, its classes, and what imported names stand for."""

    imports: dict[str, str]
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    module: Function | None = None

    def release(self) -> None:
        """Cut the cycles that loops make in the graph, so that the file's syntax goes when its last user does."""
        for function in self.all_functions():
            for block in function.blocks:
                block.edges.clear()
                block.events.clear()

    def all_functions(self) -> Iterator[Function]:
        """Every function of the file, nested ones after their parents, the module body first."""
        pending = [self.module] if self.module else []
        pending += self.functions.values()
        pending += [method for cls in self.classes.values() for method in cls.methods.values()]
        for function in pending:
            yield function
            pending.extend(function.nested.values())


def parts(expr: Expr) -> tuple[Expr, ...]:
    """The direct parts of an expression."""
    if isinstance(expr, (Op, Opaque)):
        return expr.args
    if isinstance(expr, Call):
        return (expr.func, *expr.operands)
    if isinstance(expr, Seq):
        return expr.items
    if isinstance(expr, Item):
        return (expr.base, expr.key)
    if isinstance(expr, Attr):
        return (expr.base,)
    if isinstance(expr, Comp):
        return (expr.element,) if expr.loop.iterable is None else (expr.element, expr.loop.iterable)
    return ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all below it, parents first."""
    pending = [expr]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(parts(node)))


def names(expr: Expr) -> Iterator[str]:
    """Every access path that the expression reads."""
    return (node.path for node in walk(expr) if isinstance(node, Name))


def text(expr: Expr, rename: Callable[[str], str] = str) -> str:
    """Canonical spelling, to tell whether two conditions are the same; `rename` is applied to access paths."""
    if isinstance(expr, Name):
        return rename(expr.path)
    if isinstance(expr, Const):
        return repr(expr.value)
    if isinstance(expr, Call):
        words = [text(arg, rename) for arg in expr.args] + [f"{key}={text(arg, rename)}" for key, arg in expr.kwargs.items()]
        return f"{text(expr.func, rename)}({', '.join(words)})"
    if isinstance(expr, Op):
        return f"({expr.op} {' '.join(text(arg, rename) for arg in expr.args)})"
    if isinstance(expr, Attr):
        return f"{text(expr.base, rename)}.{expr.name}"
    if isinstance(expr, Item):
        return f"{text(expr.base, rename)}[{text(expr.key, rename)}]"
    if isinstance(expr, Seq):
        return f"{expr.kind}({', '.join(text(item, rename) for item in expr.items)})"
    return f"?{id(expr)}"
