"""The training code of one function, by names and syntax alone: nothing of the analyzer decides where a bug is seeded."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tests.benchmarks.seeding.edits import Positioned, Source

Loop = ast.For | ast.While
Def = ast.FunctionDef | ast.AsyncFunctionDef
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)
LOOPS = (ast.For, ast.While)
LEAVES = (ast.Break, ast.Continue, ast.Return, ast.Raise)
OPTIMIZER = re.compile(r"optim|solver|(?:^|[._])opts?(?:$|[._\[])|(?:^|_)opt_", re.IGNORECASE)
SCHEDULER = re.compile(r"sched|warmup", re.IGNORECASE)
LOSS = re.compile(r"loss|crit|mse|nll|\bkl|elbo|err[DG]", re.IGNORECASE)
MODEL = re.compile(
    r"(?:^|[._])(?:model|net|network|encoder|decoder|backbone|classifier|generator|discriminator|unet|vae|transformer|policy|actor|critic"
    r"|teacher|student|netG|netD|forward)\d?$|(?:^|\.)[GD]$",
)
WINDOW = re.compile(r"accum|should_|do_step|need_update|window|sync_grad", re.IGNORECASE)
GUARD = re.compile(r"^(?:torch\.)?(?:autograd\.)?(?:no_grad|inference_mode)(?:\(.*\))?$")
ENDERS = frozenset({"item", "detach", "cpu", "numpy", "tolist"})


@dataclass(frozen=True)
class Step:
    """A statement that steps, and what it steps."""

    stmt: ast.Expr
    owner: str
    scaled: bool


class Scope:
    """A function, or a module's body, without what is nested in it.

    Args:
        source: the file.
        node: its syntax.
    """

    def __init__(self, source: Source, node: Def | ast.Module) -> None:
        self.source = source
        self.node = node
        self.nodes = list(own(node))
        self.clears: list[ast.Expr] = []
        self.steps: list[Step] = []
        self.backwards: list[ast.Expr] = []
        for stmt in self.nodes:
            if isinstance(stmt, ast.Expr) and isinstance(stmt.value, ast.Call):
                self._training(stmt, stmt.value)

    def _training(self, stmt: ast.Expr, call: ast.Call) -> None:
        name = method(call)
        if name == "zero_grad":
            self.clears.append(stmt)
        elif name in {"backward", "manual_backward"}:
            self.backwards.append(stmt)
        elif name == "step" and call.args and "scaler" in receiver(call).lower():
            self.steps.append(Step(stmt, spelled(call.args[0]), scaled=True))
        elif name == "step" and not call.args and OPTIMIZER.search(receiver(call)) and not SCHEDULER.search(receiver(call)):
            self.steps.append(Step(stmt, receiver(call), scaled=False))

    @cached_property
    def siblings(self) -> list[Scope]:
        """The methods of the class that this one is a method of."""
        cls = self.source.parents.get(self.node)
        return [Scope(self.source, node) for node in cls.body if isinstance(node, FUNCTIONS)] if isinstance(cls, ast.ClassDef) else []

    @cached_property
    def lost(self) -> frozenset[str]:
        """Names in what is back-propagated."""
        return frozenset(name for stmt in self.backwards for name in names(stmt.value))

    def loops(self, node: ast.AST) -> list[Loop]:
        """The loops of this scope around a node, innermost first."""
        return [parent for parent in self.around(node) if isinstance(parent, LOOPS)]

    def loop(self, node: ast.AST) -> Loop | None:
        """The innermost loop around a node."""
        return next(iter(self.loops(node)), None)

    def around(self, node: ast.AST) -> Iterator[ast.AST]:
        """What stands around a node, up to the scope."""
        parents = self.source.parents
        while node is not self.node and (node := parents[node]) is not self.node:
            yield node

    def guards(self, node: ast.AST) -> list[Positioned]:
        """`with` blocks and decorators that turn gradients off around a node."""
        found: list[Positioned] = [parent for parent in self.around(node) if isinstance(parent, ast.With) and guarding(parent)]
        return found + [word for word in getattr(self.node, "decorator_list", []) if GUARD.match(spelled(word))]

    def windows(self) -> Iterator[ast.If]:
        """Branches on the size of a window that hold a step."""
        for node in self.nodes:
            if isinstance(node, ast.If) and ("%" in spelled(node.test) or WINDOW.search(spelled(node.test))):
                inside = {inner for stmt in node.body for inner in ast.walk(stmt)}
                if any(step.stmt in inside for step in self.steps):
                    yield node

    def training_loops(self) -> Iterator[Loop]:
        """Innermost loops that back-propagate and step, with room at their end."""
        for node in self.nodes:
            if isinstance(node, LOOPS):
                inside = {inner for inner in ast.walk(node) if inner is not node}
                trains = inside.intersection(self.backwards) and any(step.stmt in inside for step in self.steps)
                deeper = any(isinstance(inner, LOOPS) and set(ast.walk(inner)).intersection(self.backwards) for inner in inside)
                last = node.body[-1]
                if trains and not deeper and not isinstance(last, LEAVES) and self.source.alone(last) and last.lineno > node.lineno:
                    yield node

    def loss_of(self, loop: Loop) -> str | None:
        """The variable that a loop back-propagates, where it is one and stays it until the turn ends."""
        stmt = next((stmt for stmt in self.backwards if loop in self.loops(stmt)), None)
        if stmt is None or not isinstance(stmt.value, ast.Call):
            return None
        value = stmt.value.args[0] if stmt.value.args else getattr(stmt.value.func, "value", None)
        if isinstance(value, ast.Call) and method(value) == "scale" and value.args:
            value = value.args[0]
        if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Div):
            value = value.left
        scaled = any("scale_loss" in spelled(item) for node in self.around(stmt) if isinstance(node, ast.With) for item in node.items)
        if not isinstance(value, ast.Name) or scaled:
            return None
        again = (node for node in ast.walk(loop) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        return None if any(node.id == value.id and node.lineno > stmt.lineno for node in again) else value.id

    def lossy(self, value: ast.expr) -> bool:
        """Whether a value is plainly a tensor with a graph: back-propagated here, or made by a criterion or a model here."""
        root = stem(value)
        if not isinstance(root, ast.Name):
            return False
        return root.id in self.lost or any(LOSS.search(made) or MODEL.search(made) or made.startswith("F.") for made in self.made(root.id))

    def made(self, name: str) -> Iterator[str]:
        """The functions whose results a name is bound to."""
        for node in self.nodes:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and name in {n for t in node.targets for n in names(t)}:
                yield spelled(node.value.func)


def scopes(source: Source) -> Iterator[Scope]:
    """The module's body, and every function."""
    yield Scope(source, source.tree)
    for node in ast.walk(source.tree):
        if isinstance(node, FUNCTIONS):
            yield Scope(source, node)


def own(node: Def | ast.Module) -> Iterator[ast.AST]:
    """The nodes of a scope in source order, nested scopes left out."""
    pending: list[ast.AST] = list(reversed(node.body))
    while pending:
        current = pending.pop()
        yield current
        if not isinstance(current, SCOPES):
            pending.extend(reversed(list(ast.iter_child_nodes(current))))


def spelled(node: ast.AST) -> str:
    """The source of a node, spelled in one way."""
    return ast.unparse(node)


def method(node: ast.AST) -> str:
    """The name after the last dot of what is called."""
    return node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""


def receiver(call: ast.Call) -> str:
    """What stands before that dot."""
    return spelled(call.func.value) if isinstance(call.func, ast.Attribute) else ""


def names(node: ast.AST) -> set[str]:
    """Plain names in a node."""
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def guarding(node: ast.With) -> bool:
    """Whether a `with` turns gradients off."""
    return any(GUARD.match(spelled(item.context_expr)) for item in node.items)


def stem(value: ast.expr) -> ast.expr:
    """A value without subscripts, attributes and reductions."""
    while isinstance(value, (ast.Subscript, ast.Attribute)) or method(value) in {"mean", "sum"}:
        value = value.func.value if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) else value.value  # type: ignore[attr-defined]
    return value


def peeled(value: ast.expr, enders: frozenset[str] = ENDERS) -> ast.expr:
    """A value without the calls around it that end its graph or move it."""
    while True:
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in enders and not value.args:
            value = value.func.value
        elif isinstance(value, ast.Call) and spelled(value.func) == "float" and "item" in enders and len(value.args) == 1:
            value = value.args[0]
        elif isinstance(value, ast.Attribute) and value.attr == "data" and "detach" in enders:
            value = value.value
        else:
            return value


def ended(value: ast.expr, enders: frozenset[str] = ENDERS) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The outermost parts of a value that such calls stand around, each with what is left without them."""
    core = peeled(value, enders)
    if core is not value:
        yield value, core
        return
    for child in ast.iter_child_nodes(value):
        if isinstance(child, (ast.expr, ast.keyword)):
            yield from ended(child.value if isinstance(child, ast.keyword) else child, enders)
