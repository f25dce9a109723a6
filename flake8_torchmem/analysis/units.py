"""A file in units: its definitions and statements, with the text and the loops of each."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from copy import copy
from functools import cached_property
from itertools import chain

from flake8_torchmem import torchapi
from flake8_torchmem.lazy import regex
from flake8_torchmem.ownnames import OwnNames

COLLATES = regex(r"collate_fn\s*=\s*(?:[\w.]*partial\s*\(\s*)?(?:\w+\.)*(\w+)")
# What runs no model, whatever it is given.
BUILTINS = frozenset(dir(builtins))
METHODS = (torchapi.TENSOR_METHODS | torchapi.NUMBER_METHODS | torchapi.DETACHING_METHODS | frozenset(dir(str) + dir(list) + dir(dict))) - {
    "backward",
    "update",
}
LIBRARIES = frozenset({"torch", "F", "np", "numpy", "math", "os", "logger", "logging", "warnings", "re", "json"})
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
LOOPS = (ast.For, ast.AsyncFor, ast.While, *COMPREHENSIONS)


class Unit:
    """A definition or module-level statement, with others on its lines: the lines [first, end), name, enclosing class, and text.

    The text is what runs: without docstring and comments, which are full of words that mean nothing.
    """

    def __init__(
        self, node: ast.stmt, name: str, cls: ast.ClassDef | None, first: int, end: int, text: str, rest: tuple[ast.stmt, ...] = ()
    ) -> None:
        self.node = node
        self.name = name
        self.cls = cls
        self.first = first
        self.end = end
        self.text = text
        self.rest = rest

    @cached_property
    def called(self) -> set[str]:
        """Names that it calls or hands to a loader."""
        return {name for part in self.text.split("(")[:-1] if (name := _last_word(part))} | set(COLLATES.findall(self.text))

    def trimmed(self) -> ast.stmt:
        """Its node without what declares options: of a training script that is often a third, which no rule looks at."""
        if not isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef)) or "add_argument" not in self.text:
            return self.node
        node = copy(self.node)
        node.body = self.node.body[:1] + [statement for statement in self.node.body[1:] if not declares_option(statement)]
        return node

    @cached_property
    def loops(self) -> tuple[ast.AST, ...]:
        """Its loops and comprehensions."""
        return tuple(self._loops())

    @cached_property
    def has_loops(self) -> bool:
        """Whether there are any; the first one is enough to tell."""
        return any(True for _ in self._loops())

    def _loops(self) -> Iterator[ast.AST]:
        if "for" in self.text or "while" in self.text:
            nodes = (node for each in (self.node, *self.rest) for node in chain((each,), descendants(each)))
            yield from (node for node in nodes if isinstance(node, LOOPS))

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
        return any(isinstance(node, ast.Call) and _may_run(node.func) for loop in self._loops() for node in descendants(loop))


def _last_word(text: str) -> str:
    """The name that a text ends with. A pattern that is to end there would be tried at every character before."""
    end = len(text.rstrip())
    begin = end
    while begin and (text[begin - 1].isalnum() or text[begin - 1] == "_"):
        begin -= 1
    return text[begin:end]


def declares_option(statement: ast.stmt) -> bool:
    """`parser.add_argument(...)`, unless its default may be a number, which is read where an option says how many."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or call.func.attr != "add_argument":
        return False
    if any(keyword.arg is None for keyword in call.keywords):
        return False
    default = next((keyword.value for keyword in call.keywords if keyword.arg == "default"), ast.Constant(None))
    return isinstance(default, ast.Constant) and not isinstance(default.value, int)


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


def units_of(tree: ast.Module, text: str, own: OwnNames) -> Iterator[Unit]:
    """Definitions and statements; those that share a line make one unit, as its text is of whole lines.

    Args:
        tree: of a file or a piece of one.
        text: the file.
        own: names that are read as PyTorch's.
    """
    lines = [_code(line) if "#" in line else line for line in own.spelled(text).split("\n")]
    for node, *rest in _by_lines(tree.body):
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    yield _unit(method, node, lines)
        elif rest or not isinstance(node, (ast.Import, ast.ImportFrom)):
            yield _unit(node, None, lines, tuple(rest))


def _by_lines(body: list[ast.stmt]) -> Iterator[list[ast.stmt]]:
    """Statements together with those that begin on the line where they end: `a = 1; b = 2`."""
    group: list[ast.stmt] = []
    for node in body:
        if group and node.lineno > (group[-1].end_lineno or group[-1].lineno):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _unit(node: ast.stmt, cls: ast.ClassDef | None, lines: list[str], rest: tuple[ast.stmt, ...] = ()) -> Unit:
    first = first_line(node)
    last = rest[-1] if rest else node
    end = (last.end_lineno or last.lineno) + 1
    before, after = _docstring(node) or (end, end)
    code = "\n".join(lines[first - 1 : before - 1] + lines[after - 1 : end - 1])
    return Unit(node, getattr(node, "name", ""), cls, first, end, code, rest)


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
