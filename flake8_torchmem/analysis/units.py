"""A file in units: its definitions and statements, with the text and the loops of each."""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from flake8_torchmem import torchapi

CALLED = re.compile(r"(\w+)\s*\(|\bcollate_fn\s*=\s*(?:[\w.]*partial\s*\(\s*)?(?:\w+\.)*(\w+)")
# What runs no model, whatever it is given.
BUILTINS = frozenset(dir(builtins))
METHODS = (torchapi.TENSOR_METHODS | torchapi.NUMBER_METHODS | torchapi.DETACHING_METHODS | frozenset(dir(str) + dir(list) + dir(dict))) - {
    "backward",
    "update",
}
LIBRARIES = frozenset({"torch", "F", "np", "numpy", "math", "os", "logger", "logging", "warnings", "re", "json"})
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LOOPS = (ast.For, ast.AsyncFor, ast.While, *COMPREHENSIONS)


@dataclass(eq=False)
class Unit:
    """A definition or module-level statement: its lines [first, end), name, enclosing class, and text.

    The text is what runs: without docstring and comments, which are full of words that mean nothing.
    """

    node: ast.stmt
    name: str
    cls: ast.ClassDef | None
    first: int
    end: int
    text: str

    @cached_property
    def called(self) -> set[str]:
        """Names that it calls or hands to a loader."""
        return {name for names in CALLED.findall(self.text) for name in names if name}

    @cached_property
    def loops(self) -> tuple[ast.AST, ...]:
        """Its loops and comprehensions."""
        if "for" not in self.text and "while" not in self.text:
            return ()
        return tuple(node for node in (self.node, *descendants(self.node)) if isinstance(node, LOOPS))

    @cached_property
    def loop_words(self) -> frozenset[str]:
        """Names in the headers of its loops: what they go over, and what they call an element."""
        headers = [header for loop in self.loops for header in _headers(loop)]
        nodes = (node for header in headers for node in (header, *descendants(header)))
        return frozenset(
            node.id if isinstance(node, ast.Name) else node.attr for node in nodes if isinstance(node, (ast.Name, ast.Attribute))
        )

    @cached_property
    def runs_models(self) -> bool:
        """Whether something is called in a loop that may be a model, or a function that runs one."""
        return any(isinstance(node, ast.Call) and _may_run(node.func) for loop in self.loops for node in descendants(loop))


def _headers(loop: ast.AST) -> list[ast.expr]:
    if isinstance(loop, ast.While):
        return [loop.test]
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        return [loop.iter, loop.target]
    return [part for clause in getattr(loop, "generators", ()) for part in (clause.iter, clause.target)]


def _may_run(called: ast.expr) -> bool:
    """Whether it is neither a built-in function or one of PyTorch's, nor a method of tensors, containers and strings."""
    if isinstance(called, ast.Name):
        return called.id not in BUILTINS
    if not isinstance(called, ast.Attribute):
        return True
    if called.attr in METHODS or (called.attr.endswith("_") and not called.attr.startswith("_")):
        return False
    base = called.value
    while isinstance(base, ast.Attribute):
        base = base.value
    return not (isinstance(base, ast.Name) and base.id in LIBRARIES)


def descendants(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node, without what only tells how names are used."""
    pending = [node]
    while pending:
        current = pending.pop()
        for name in current._fields:
            value = getattr(current, name, None)
            for child in value if isinstance(value, list) else (value,):
                if isinstance(child, ast.AST) and not isinstance(child, ast.expr_context):
                    pending.append(child)
                    yield child


def units_of(tree: ast.Module, text: str) -> Iterator[Unit]:
    """Definitions and statements that have their lines to themselves: a slice is made of whole lines."""
    lines = [_code(line) if "#" in line else line for line in text.split("\n")]
    starts = Counter(node.lineno for node in tree.body)
    ends = {node.end_lineno for node in tree.body if node.end_lineno != node.lineno}
    for node in tree.body:
        if starts[node.lineno] > 1 or node.lineno in ends or (node.end_lineno != node.lineno and node.end_lineno in starts):
            continue
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield _unit(method, node, lines)
        elif not isinstance(node, (ast.Import, ast.ImportFrom)):
            yield _unit(node, None, lines)


def _unit(node: ast.stmt, cls: ast.ClassDef | None, lines: list[str]) -> Unit:
    first = first_line(node)
    end = (node.end_lineno or node.lineno) + 1
    before, after = _docstring(node) or (end, end)
    return Unit(node, getattr(node, "name", ""), cls, first, end, "\n".join(lines[first - 1 : before - 1] + lines[after - 1 : end - 1]))


def first_line(node: ast.stmt) -> int:
    """The line on which a statement begins, with its decorators."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _code(line: str) -> str:
    """A line without its comment; a `#` that may be within a string is left alone."""
    before, _, comment = line.partition("#")
    return line if before.strip() and ('"' in comment or "'" in comment) else before


def _docstring(node: ast.stmt) -> tuple[int, int] | None:
    """The lines [first, end) of a definition's docstring, where they hold nothing else."""
    body: list[ast.stmt] = getattr(node, "body", [])
    first = body[0] if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) else None
    if not isinstance(first, ast.Expr) or not isinstance(first.value, ast.Constant) or not isinstance(first.value.value, str):
        return None
    end = first.end_lineno or first.lineno
    alone = first.lineno > node.lineno and (len(body) == 1 or body[1].lineno > end)
    return (first.lineno, end + 1) if alone else None
