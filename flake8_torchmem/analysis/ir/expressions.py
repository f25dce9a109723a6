"""Expressions: small trees without syntax, each with the place it stands in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum

from flake8_torchmem.ownnames import NONE, OwnNames

COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "is", "is not", "in", "not in", "not"})
BOOLEAN = frozenset({"and", "or"})


# First line, column in bytes, last line, column of its end.
Extent = tuple[int, int, int, int]


class Grad(Enum):
    """Whether autograd records at a point: ON, OFF, or MAYBE when it depends on what the analysis cannot see."""

    ON = "on"
    OFF = "off"
    MAYBE = "maybe"


@dataclass(eq=False, slots=True)
class File:
    """A source file.

    Attributes:
        name: as findings and messages spell it.
        imports: local name to full dotted name; in a linked file also for the names that it defines itself.
        linked: read because the checked file imports from it.
        own: names for what PyTorch does.
    """

    name: str
    imports: dict[str, str]
    linked: bool = False
    own: OwnNames = NONE


@dataclass(eq=False, slots=True)
class Mark:
    """A statement by its number in the order of lowering, and where it is, an `if` where its test is; the module body is nowhere.

    `inner`: where the first statement of its suite is.
    """

    number: int
    file: File
    extent: Extent | None = None
    inner: Extent | None = None

    @property
    def first(self) -> Mark:
        """The first statement of its suite, which has the next number; itself where it has none."""
        return Mark(self.number + 1, self.file, self.inner) if self.inner is not None else self


@dataclass(eq=False, slots=True)
class Site:
    """A statement, or a call, comprehension or decorator in it, with where that is."""

    mark: Mark
    extent: Extent | None = None

    @property
    def file(self) -> File:
        """The file that it is in."""
        return self.mark.file


class Expr:
    """Base of the expression trees."""

    __slots__ = ("_names",)
    _names: tuple[str, ...]


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
    """A call, with the context it is evaluated in. `star` when arguments are spread into it.

    `path`: the callee's access path, if it has one. `method`: the last part of the callee, `backward` of `loss.backward(...)` and of
    `f().backward()`. `receiver`: what stands before the last dot, if anything. All rules ask for these, so they are worked out once.
    """

    func: Expr
    args: tuple[Expr, ...]
    kwargs: dict[str, Expr]
    star: bool
    ctx: Context
    site: Site
    path: str | None = field(init=False, default=None)
    method: str = field(init=False, default="")
    receiver: Expr | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        func = self.func
        if isinstance(func, Name):
            self.path = func.path
            base, _, self.method = func.path.rpartition(".")
            self.receiver = Name(base) if base else None
        elif isinstance(func, Attr):
            self.method, self.receiver = func.name, func.base

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
class Handler:
    """An `except` clause: what it catches (None for all), the name it binds, and the blocks [first, end) of what it guards."""

    types: Expr | None
    name: str | None
    first: int
    end: int


@dataclass(eq=False, slots=True)
class Context:
    """Where an event stands: file, enclosing loops (outermost first), gradient mode, conditions with their arm, handler."""

    file: File
    loops: tuple[Loop, ...] = ()
    grad: Grad = Grad.ON
    conds: tuple[tuple[Expr, bool, int], ...] = ()
    handler: Handler | None = None
    accumulate: bool = False

    def differing(
        self,
        loops: tuple[Loop, ...] | None = None,
        grad: Grad | None = None,
        cond: tuple[Expr, bool, int] | None = None,
        handler: Handler | None = None,
        accumulate: bool | None = None,
    ) -> Context:
        """This one with some of it changed, and a condition more."""
        return Context(
            self.file,
            self.loops if loops is None else loops,
            self.grad if grad is None else grad,
            self.conds if cond is None else (*self.conds, cond),
            self.handler if handler is None else handler,
            self.accumulate if accumulate is None else accumulate,
        )

    def conds_inside(self, loop: Loop | None) -> tuple[tuple[Expr, bool], ...]:
        """The conditions between this loop and the event."""
        depth = self.loops.index(loop) + 1 if loop in self.loops else 0
        return tuple((cond, arm) for cond, arm, level in self.conds if level >= depth)


def parts(expr: Expr) -> tuple[Expr, ...]:
    """The direct parts of an expression."""
    below = PARTS.get(type(expr))
    return below(expr) if below is not None else ()


def walk(expr: Expr) -> Iterator[Expr]:
    """The expression and all below it, parents first."""
    pending = [expr]
    while pending:
        node = pending.pop()
        yield node
        below = PARTS.get(type(node))
        if below is not None:
            pending.extend(reversed(below(node)))


def names(expr: Expr) -> tuple[str, ...]:
    """Every access path that the expression reads; kept with it, as many ask."""
    try:
        return expr._names
    except AttributeError:
        expr._names = tuple([node.path for node in walk(expr) if type(node) is Name])
        return expr._names


def _of_comprehension(expr: Comp) -> tuple[Expr, ...]:
    return (expr.element,) if expr.loop.iterable is None else (expr.element, expr.loop.iterable)


# Names and constants have none.
PARTS: dict[type[Expr], Callable[..., tuple[Expr, ...]]] = {
    Op: lambda expr: expr.args,
    Opaque: lambda expr: expr.args,
    Call: lambda expr: (expr.func, *expr.operands),
    Seq: lambda expr: expr.items,
    Item: lambda expr: (expr.base, expr.key),
    Attr: lambda expr: (expr.base,),
    Comp: _of_comprehension,
}


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
