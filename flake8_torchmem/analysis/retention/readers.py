"""Which functions may have something of a value: those that read its name, and those that call what returns it."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir, paths

if TYPE_CHECKING:
    from flake8_torchmem.analysis.bindings import Bindings


class Readers:
    """The functions of a program by the words that they read and by what they call.

    Args:
        bindings: of the file.

    Attributes:
        functions: all of them, in order.
    """

    def __init__(self, bindings: Bindings) -> None:
        self.functions = tuple(bindings.program.all_functions())
        self._naming: dict[str, set[ir.Function]] = {}
        self._calling: dict[ir.Function, set[ir.Function]] = {}
        for function in self.functions:
            for node in {id(node): node for expr in expressions(function) for node in ir.walk(expr)}.values():
                if isinstance(node, ir.Name):
                    for word in _words(node.path):
                        self._naming.setdefault(word, set()).add(function)
                elif isinstance(node, ir.Call):
                    callee = bindings.callee(node, function)
                    if callee is not None:
                        self._calling.setdefault(callee, set()).add(function)

    def naming(self, place: str) -> Set[ir.Function]:
        """Functions that read something whose path begins as this one, also as an attribute of something else."""
        return self._naming.get(paths.root(place), frozenset())

    def calling(self, function: ir.Function) -> Set[ir.Function]:
        """Functions that call a function."""
        return self._calling.get(function, frozenset())


def expressions(function: ir.Function) -> Iterator[ir.Expr]:
    """All that a function evaluates."""
    for event in function.events():
        if isinstance(event, (ir.Bind, ir.Store, ir.Return, ir.Backward)):
            yield event.value
        if isinstance(event, (ir.Invoke, ir.Backward, ir.Step, ir.Zero)) and event.call is not None:
            yield event.call
        if isinstance(event, ir.Store) and event.key is not None:
            yield event.key
    yield from (edge.cond for block in function.blocks for edge in block.edges if edge.cond is not None)
    yield from function.tests
    yield from function.managers


def _words(path: str) -> Iterator[str]:
    """What a path begins with, and what each of its attributes begins with."""
    yield paths.root(path)
    yield from (paths.root(path[index + 1 :]) for index, char in enumerate(path) if char == ".")
