"""Blocks, functions, classes, files: the control-flow graphs that hold the events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from flake8_torchmem.analysis.ir.events import Bind, Event, Invoke
from flake8_torchmem.analysis.ir.expressions import Call, Expr, Extent, File, Grad, Loop, Mark, Site


@dataclass(eq=False, slots=True)
class Edge:
    """Control flows to `target` if `cond`, where given, is `arm`. `turn`: a loop starts over. `loops`: around the branch.

    `handler`: an exception leads here, and what happened before it is not known. `site`: the branch, to be reported.
    """

    target: Block
    cond: Expr | None = None
    arm: bool = True
    turn: Loop | None = None
    loops: tuple[Loop, ...] = ()
    handler: bool = False
    site: Site | None = None


@dataclass(eq=False, slots=True)
class Block:
    """Events in order, then one of the edges; `raises`: it ends in an exception. `index`: its place among the function's blocks."""

    index: int = -1
    events: list[Event] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    raises: bool = False


@dataclass(eq=False, slots=True)
class Function:
    """A function, method, nested function or lambda (`<lambda 1>`), or the module body (`name` is `<module>`).

    `mark` is its `def` statement, or the statement that a lambda stands in. `managers`: what its `with` statements enter.
    `tests`: what asserts, `while` loops and comprehensions ask, and statements that are no more than an expression.
    `annotations`: by parameter. `decorated`: where its decorators are.
    """

    name: str
    mark: Mark
    owner: Class | None
    params: tuple[str, ...]
    decorators: tuple[Expr, ...]
    parent: Function | None
    defaults: dict[str, Expr] = field(default_factory=dict)
    blocks: list[Block] = field(default_factory=list)
    loops: list[Loop] = field(default_factory=list)
    managers: list[Expr] = field(default_factory=list)
    tests: list[Expr] = field(default_factory=list)
    nested: dict[str, Function] = field(default_factory=dict)
    assigned: set[str] = field(default_factory=set)
    free: set[str] = field(default_factory=set)
    grad: Grad = Grad.ON
    annotations: dict[str, Expr] = field(default_factory=dict)
    decorated: tuple[Extent, ...] = ()
    _events: tuple[Event, ...] | None = None
    _calls: tuple[Invoke, ...] | None = None
    _locals: frozenset[str] | None = None
    _binds: dict[str, list[Bind]] | None = None

    @property
    def file(self) -> File:
        """The file that it is in."""
        return self.mark.file

    def scopes(self) -> Iterator[Function]:
        """The function, and those that it is nested in, innermost first."""
        scope: Function | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def release(self) -> None:
        """Let go of what leads back to the function."""
        self._events = self._calls = self._binds = None
        self.nested.clear()
        for loop in self.loops:
            loop.skips.clear()
        for block in self.blocks:
            block.edges.clear()
            block.events.clear()

    def decorator(self, index: int) -> Site:
        """Where its decorator of this index stands, to be reported."""
        return Site(self.mark, self.decorated[index])

    def events(self) -> tuple[Event, ...]:
        """All events in source order; those of one statement in evaluation order, what a loop does after each turn behind its body.

        To be asked for when the function has been lowered: they are kept.
        """
        if self._events is None:
            self._events = tuple(chain.from_iterable([block.events for block in self.blocks]))
        return self._events

    def calls(self) -> tuple[Invoke, ...]:
        """The plain calls among its events."""
        if self._calls is None:
            self._calls = tuple([event for event in self.events() if isinstance(event, Invoke)])
        return self._calls

    def arguments(self, call: Call) -> list[tuple[str, Expr]]:
        """Parameters with what a call gives for them, `self` left out."""
        params = self.params[1:] if self.owner and self.params[:1] == ("self",) else self.params
        return [*zip(params, call.args, strict=False), *call.kwargs.items()]

    def binds(self) -> dict[str, list[Bind]]:
        """Its bindings by place."""
        if self._binds is None:
            self._binds = {}
            for event in self.events():
                if isinstance(event, Bind):
                    self._binds.setdefault(event.place, []).append(event)
        return self._binds

    @property
    def comprehends(self) -> bool:
        """Whether there is a comprehension in it."""
        return any(loop.kind == "comp" for loop in self.loops)

    @property
    def locals(self) -> frozenset[str]:
        """Names that live in this function alone; to be asked for when it has been lowered."""
        if self._locals is None:
            self._locals = frozenset((*self.params, *[p for p in self.assigned if "." not in p and "[" not in p])) - self.free
        return self._locals


@dataclass(eq=False, slots=True)
class Class:
    """A class: full names of its bases, and its methods."""

    name: str
    bases: tuple[str, ...]
    file: File
    methods: dict[str, Function] = field(default_factory=dict)

    @property
    def full(self) -> str:
        """Its name in the project; the plain one in the checked file."""
        return self.file.imports.get(self.name, self.name) if self.file.linked else self.name


@dataclass(eq=False, slots=True)
class Program:
    """One file: its functions by name, and its classes; those of linked files by their names in the project.

    `outside`: calls of its functions in other files, where those have been looked for. `added`: what was read of those files.
    """

    file: File
    functions: dict[str, Function] = field(default_factory=dict)
    classes: dict[str, Class] = field(default_factory=dict)
    module: Function | None = None
    outside: dict[Function, list[tuple[Function, Call]]] = field(default_factory=dict)
    added: list[Program] = field(default_factory=list)

    def add(self, other: Program) -> None:
        """Take in functions and classes of a file that calls this one's, and what it does when it is run; other parts may follow."""
        where = f"{other.file.name}#{len(self.functions)}"
        self.functions.update({f"{where}:{name}": function for name, function in other.functions.items()})
        self.classes.update({f"{where}:{name}": cls for name, cls in other.classes.items()})
        if other.module is not None:
            self.functions[f"{where}:<module>"] = other.module

    def release(self) -> None:
        """Cut the cycles that loops, methods and nested functions make, so that all of it goes at once: the collector would need long.

        What other files define and a project keeps stays as it is.
        """
        for program in (self, *self.added):
            for function in [function for function in program.all_functions() if function.file is program.file]:
                function.release()
            for cls in program.classes.values():
                if cls.file is program.file:
                    cls.methods.clear()
        self.added.clear()

    def own_functions(self) -> Iterator[Function]:
        """Every function of the file, nested ones after their parents, the module body first."""
        return (function for function in self.all_functions() if not function.file.linked)

    def all_functions(self) -> Iterator[Function]:
        """Every function of the file, then those of linked files; a linked one may go by several names."""
        pending = [self.module] if self.module else []
        pending += self.functions.values()
        pending += [method for cls in self.classes.values() for method in cls.methods.values()]
        pending = list(dict.fromkeys(pending))
        for function in pending:
            yield function
            pending.extend(function.nested.values())
