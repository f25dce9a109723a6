"""Rewritings of a source that keep what it does to gradients: None where one does not apply.

A definition that moves to another file of the project is to be added here once tests can lay out a project.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Callable, Iterator

Rewriting = Callable[[str], "str | None"]

NEW_NAMES = {
    "optimizer": "opt", "model": "net", "criterion": "loss_fn", "loader": "data_loader", "scaler": "grad_scaler", "loss": "batch_loss",
    "x": "inputs", "y": "targets", "i": "step_index",
}  # fmt: skip
NAMES = frozenset({(ast.Name, "id"), (ast.arg, "arg")})
EVENTS = frozenset({"backward", "step", "zero_grad"})
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
JUMPS = (ast.Break, ast.Continue, ast.Return, ast.Yield, ast.YieldFrom, ast.Await)
Function = ast.FunctionDef


def reformatted(source: str) -> str:
    return ast.unparse(ast.parse(source))


def renamed(source: str) -> str | None:
    """Names that say the same: `optimizer` becomes `opt`, also as an attribute of self."""
    tree = ast.parse(source)
    taken = {name for node in ast.walk(tree) for name in _names(node)}
    new = {old: name for old, name in NEW_NAMES.items() if old in taken and name not in taken}
    keywords = {arg.arg for arg in _arguments(tree)}
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            of_self = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
            own = isinstance(node, ast.keyword) and node.arg in keywords
            known = (type(node), field) in NAMES or (field == "attr" and of_self) or (field == "arg" and own)
            if known and value in new:
                setattr(node, field, new[value])
    return ast.unparse(tree) if new else None


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Name):
        yield node.id
    elif isinstance(node, ast.arg):
        yield node.arg
    elif isinstance(node, ast.Attribute):
        yield node.attr
    elif isinstance(node, ast.alias):
        yield (node.asname or node.name).partition(".")[0]
    elif isinstance(node, DEFINITIONS):
        yield node.name


def _arguments(tree: ast.AST) -> Iterator[ast.arg]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.arg))


def arms_swapped(source: str) -> str | None:
    """`if a: b else: c` as `if not a: c else: b`."""
    tree = ast.parse(source)
    branches = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    for node in branches:
        node.test = ast.UnaryOp(ast.Not(), node.test)
        node.body, node.orelse = node.orelse or [ast.Pass()], node.body
    return ast.unparse(ast.fix_missing_locations(tree)) if branches else None


def logged(source: str) -> str | None:
    """Statements that have nothing to do with training, in every body."""
    tree = ast.parse(source)
    bodies = [node for node in ast.walk(tree) if isinstance(node, (ast.For, ast.While, ast.FunctionDef, ast.With))]
    for node in bodies:
        start = 1 if isinstance(node, ast.FunctionDef) and ast.get_docstring(node) is not None else 0
        node.body.insert(start, ast.parse("print('turn')").body[0])
        node.body.insert(start + 1, ast.parse("if verbose_level > 1:\n    print('more')").body[0])
    return ast.unparse(ast.fix_missing_locations(tree)) if bodies else None


def moved(source: str) -> str | None:
    """Functions in reverse order, after the classes."""
    tree = ast.parse(source)
    functions = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    if len(functions) + len([node for node in tree.body if isinstance(node, ast.ClassDef)]) < 2:
        return None
    imports = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    rest = [node for node in tree.body if node not in (*functions, *imports, *classes)]
    tree.body = [*imports, *classes, *reversed(functions), *rest]
    return ast.unparse(tree)


def peeled(source: str) -> str | None:
    """The first turn of a loop that trains, written out before it; not where it counts its turns or begins with a step."""
    tree = ast.parse(source)
    done = False
    for node in ast.walk(tree):
        for body in (value for _, value in ast.iter_fields(node) if isinstance(value, list)):
            for loop in [item for item in body if isinstance(item, ast.For)]:
                inner = [part for item in loop.body for part in ast.walk(item)]
                text, jumps = ast.unparse(loop), (*JUMPS, ast.For, ast.While, ast.AugAssign)
                plain = not loop.orelse and not any(isinstance(part, jumps) for part in inner)
                if not plain or not _trains(loop) or text.find("step(") < text.find("backward("):
                    continue
                first = ast.parse(f"{ast.unparse(loop.target)} = next(iter({ast.unparse(loop.iter)}))").body
                turn = [*first, *ast.parse("\n".join(map(ast.unparse, loop.body))).body]
                body[body.index(loop) : body.index(loop)] = turn
                done = True
    return ast.unparse(tree) if done else None


def _trains(node: ast.AST) -> bool:
    calls = {part.func.attr for part in ast.walk(node) if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute)}
    return calls >= {"backward", "step"}


def extracted(source: str) -> str | None:
    """Backwards, steps and clears that are statements, each in a function or method of its own."""
    tree = ast.parse(source)
    known = {name for node in tree.body for name in _bound(node)} | set(dir(builtins))
    made: list[ast.stmt] = []
    owners: list[ast.Module | ast.ClassDef] = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef))]
    for owner in owners:
        helpers = made if owner is tree else owner.body
        for function in [node for node in owner.body if isinstance(node, Function) and "helper_" not in node.name]:
            if any(isinstance(node, (*DEFINITIONS, ast.Lambda)) for item in function.body for node in ast.walk(item)):
                continue
            for statement in [node for node in ast.walk(function) if _is_event(node)]:
                names = sorted({node.id for node in ast.walk(statement) if isinstance(node, ast.Name)} - known - {"self"})
                name = f"{'' if owner is tree else '_'}helper_{len(made) + len(helpers)}_{statement.value.func.attr}"  # type: ignore[attr-defined]
                first = ["self"] if owner is not tree else []
                helper = ast.parse(f"def {name}({', '.join(first + names)}):\n    {ast.unparse(statement)}").body[0]
                call = ast.parse(f"{'self.' if first else ''}{name}({', '.join(names)})", mode="eval").body
                statement.value = call  # type: ignore[attr-defined]
                helpers.append(helper)
    if "helper_" not in ast.unparse(tree) and not made:
        return None
    start = next((index for index, node in enumerate(tree.body) if isinstance(node, DEFINITIONS)), len(tree.body))
    tree.body[start:start] = made
    return ast.unparse(tree)


def _bound(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield from (name for alias in node.names for name in _names(alias))
    elif isinstance(node, DEFINITIONS):
        yield node.name


def _is_event(node: ast.AST) -> bool:
    if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call) or not isinstance(node.value.func, ast.Attribute):
        return False
    return node.value.func.attr in EVENTS and all(
        isinstance(part, (ast.Name, ast.Attribute, ast.Call, ast.Load)) for part in ast.walk(node.value)
    )


def in_a_class(source: str) -> str | None:
    """A function that trains, and that nothing here calls, as a method."""
    tree = ast.parse(source)
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    found = [
        node for node in tree.body if isinstance(node, Function) and not node.decorator_list and node.name not in called and _trains(node)
    ]
    for function in found:
        function.args.args.insert(0, ast.arg("self"))
        holder = ast.ClassDef(name=f"Holder{function.lineno}", bases=[], keywords=[], body=[function], decorator_list=[])
        tree.body[tree.body.index(function)] = holder
    return ast.unparse(ast.fix_missing_locations(tree)) if found else None


REWRITINGS: dict[str, Rewriting] = {
    "reformatted": reformatted, "renamed": renamed, "arms swapped": arms_swapped, "logged": logged, "moved": moved, "peeled": peeled,
    "extracted": extracted, "in a class": in_a_class,
}  # fmt: skip
