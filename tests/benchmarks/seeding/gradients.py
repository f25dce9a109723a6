"""Bugs in the order and the accumulation of gradients (TM1xx)."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator

from tests.benchmarks.seeding.edits import INDENT, Edits, Positioned, last_line
from tests.benchmarks.seeding.operators import Seed, operator
from tests.benchmarks.seeding.scopes import LOOPS, WINDOW, Loop, Scope, Step, method, names, receiver, spelled

CLIP = re.compile(r"clip_grad(?:_norm|_value)?_?$")


def single_clears(scope: Scope) -> Iterator[tuple[ast.Expr, str]]:
    """Clears that are the only one of their owner, with the owner."""
    owners = Counter(owner_of(clear) for clear in scope.clears)
    yield from ((clear, owner_of(clear)) for clear in scope.clears if owners[owner_of(clear)] == 1 and scope.source.alone(clear))


def owner_of(stmt: ast.Expr) -> str:
    return receiver(stmt.value) if isinstance(stmt.value, ast.Call) else ""


def steps_of(scope: Scope, owner: str) -> list[Step]:
    """The steps that use what a clear empties: of the same name, or all if there is one optimizer."""
    named = [step for step in scope.steps if step.owner == owner]
    return named or (scope.steps if len({step.owner for step in scope.steps}) == 1 else [])


@operator("TM101")
def clear_removed(scope: Scope) -> Iterator[Seed]:
    """No zero_grad."""
    for clear, owner in single_clears(scope):
        here = scope.backwards and steps_of(scope, owner)
        others = scope.siblings
        in_class = (
            any(other.steps for other in others)
            and any(other.backwards for other in others)
            and sum(owner_of(stmt) == owner for other in others for stmt in other.clears) == 1
        )
        if here or (in_class and not (scope.steps and scope.backwards)):
            yield Seed(clear.lineno, Edits(scope.source).drop(clear))


@operator("TM101")
def clear_once(scope: Scope) -> Iterator[Seed]:
    """zero_grad before the loop over batches instead of in it."""
    for clear, owner in single_clears(scope):
        loop = scope.loop(clear)
        if loop is not None and scope.backwards and any(loop in scope.loops(step.stmt) for step in steps_of(scope, owner)):
            yield Seed(clear.lineno, Edits(scope.source).move_before(clear, loop.lineno))


@operator("TM102")
def clear_between(scope: Scope) -> Iterator[Seed]:
    """zero_grad between backward and step."""
    for clear, owner in single_clears(scope):
        steps = [step.stmt for step in steps_of(scope, owner) if scope.source.alone(step.stmt)]
        if len(steps) == 1 and scope.loop(steps[0]) is scope.loop(clear) and any(b.lineno < steps[0].lineno for b in scope.backwards):
            yield Seed(steps[0].lineno, Edits(scope.source).move_before(clear, steps[0].lineno))


def in_block(scope: Scope, node: ast.AST, block: list[ast.stmt]) -> ast.stmt | None:
    """The statement of a block that a node is in, unless a loop is between."""
    for current in (node, *scope.around(node)):
        if isinstance(current, LOOPS) and current is not node:
            return None
        if isinstance(current, ast.stmt) and any(current is stmt for stmt in block):
            return current
    return None


@operator("TM103")
def step_early(scope: Scope) -> Iterator[Seed]:
    """The step before the backward."""
    for step in scope.steps:
        earlier = [other.stmt.lineno for other in scope.steps if other.owner == step.owner and other.stmt.lineno < step.stmt.lineno]
        since = [b for b in scope.backwards if max(earlier, default=0) < b.lineno < step.stmt.lineno]
        if len(since) == 1 and scope.source.alone(step.stmt):
            before = in_block(scope, since[0], scope.source.blocks[step.stmt])
            if before is not None and scope.source.alone(before):
                yield Seed(step.stmt.lineno, Edits(scope.source).move_before(step.stmt, before.lineno))


@operator("TM104")
def backward_in_else(scope: Scope) -> Iterator[Seed]:
    """The backward in the else of the stepping test."""
    source = scope.source
    for window in scope.windows():
        before = [b for b in scope.backwards if b.lineno < window.lineno and scope.loop(b) is scope.loop(window)]
        if len(before) != 1 or window.orelse or not source.alone(window):
            continue
        stmt = in_block(scope, before[0], source.blocks[window])
        if isinstance(stmt, ast.With) and len(stmt.body) > 1 and before[0] in stmt.body:
            stmt = before[0]
        stepped = stmt is not None and any(stmt.lineno < step.stmt.lineno < window.lineno for step in scope.steps)
        if stmt is not None and not stepped and source.alone(stmt):
            indent = source.indent(window.lineno)
            moved = source.block_of(stmt, indent + INDENT)
            yield Seed(window.lineno, Edits(source).drop(stmt).put_after(last_line(window), f"{indent}else:", *moved))


@operator("TM105")
def clear_each_turn(scope: Scope) -> Iterator[Seed]:
    """zero_grad for each micro-batch, the step once per window."""
    for window in scope.windows():
        loop = scope.loop(window)
        inside = {inner for stmt in window.body for inner in ast.walk(stmt)}
        for clear, _ in single_clears(scope):
            if loop is not None and clear in inside and scope.source.alone(loop.body[0]) and loop.body[0].lineno > loop.lineno:
                yield Seed(clear.lineno, Edits(scope.source).move_before(clear, loop.body[0].lineno))


def sizes(scope: Scope) -> set[str]:
    """What something is taken modulo, and how often loops turn that back-propagate and do not step."""
    found = {spelled(node.right) for node in scope.nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mod)}
    stepping = {loop for step in scope.steps for loop in scope.loops(step.stmt)}
    for loop in {loop for stmt in scope.backwards for loop in scope.loops(stmt)} - stepping:
        if isinstance(loop, ast.For) and isinstance(loop.iter, ast.Call) and spelled(loop.iter.func) == "range":
            found.add(spelled(loop.iter.args[-1]))
    return found


@operator("TM106")
def division_dropped(scope: Scope) -> Iterator[Seed]:
    """The loss not divided by the size of its window."""
    found = sizes(scope) if scope.steps else set()
    for node in scope.nodes if scope.backwards else ():
        divides = isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.Div)
        by = node.right if isinstance(node, ast.BinOp) else node.value if isinstance(node, ast.AugAssign) else None
        if not divides or by is None or not found or not (spelled(by) in found or WINDOW.search(spelled(by))):
            continue
        stmt = next(inner for inner in (node, *scope.around(node)) if isinstance(inner, ast.stmt))
        target = stmt.targets[0] if isinstance(stmt, ast.Assign) else stmt.target if isinstance(stmt, ast.AugAssign) else None
        if stmt in scope.backwards or (target is not None and names(target) & scope.lost):
            edits = Edits(scope.source)
            yield Seed(stmt.lineno, edits.drop(stmt) if node is stmt else edits.rewrite(node, spelled(node.left)))  # type: ignore[arg-type, attr-defined]


def moduli(window: ast.If) -> Iterator[ast.Compare]:
    """The comparisons `counter % size == 0` of a test."""
    for node in ast.walk(window.test):
        modulo = isinstance(node, ast.Compare) and isinstance(node.left, ast.BinOp) and isinstance(node.left.op, ast.Mod)
        if modulo and isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq) and spelled(node.comparators[0]) == "0":
            yield node


def accumulating(scope: Scope) -> Iterator[ast.If]:
    """Windows around steps whose micro-batches back-propagate outside: one that back-propagates by itself alternates between models."""
    for window in scope.windows():
        inside = {inner for stmt in window.body for inner in ast.walk(stmt)}
        backwards = [stmt for stmt in scope.backwards if scope.loop(stmt) is scope.loop(window)]
        if backwards and not inside.intersection(scope.backwards):
            yield window


@operator("TM108")
def window_negated(scope: Scope) -> Iterator[Seed]:
    """`!= 0` instead of `== 0`, where every micro-batch back-propagates."""
    for window in accumulating(scope):
        for test in moduli(window):
            yield Seed(window.lineno, Edits(scope.source).rewrite(test, f"{spelled(test.left)} != 0"))


@operator("TM108")
def window_shifted(scope: Scope) -> Iterator[Seed]:
    """`i % n == 0` instead of `(i + 1) % n == 0`, with a counter that starts at 0."""
    for window in accumulating(scope):
        loop = scope.loop(window)
        for test in moduli(window):
            counter = test.left.left if isinstance(test.left, ast.BinOp) else None
            counts = isinstance(loop, ast.For) and re.search(r"^(?:tqdm\()?enumerate\([^,]*\)|^range\([^,]*\)", spelled(loop.iter))
            if counts and isinstance(counter, ast.BinOp) and spelled(counter.right) == "1" and names(counter) & names(loop.target):  # type: ignore[union-attr]
                yield Seed(window.lineno, Edits(scope.source).rewrite(counter, spelled(counter.left)))


@operator("TM107")
def tail_dropped(scope: Scope) -> Iterator[Seed]:
    """The clause for the last batch dropped from the test of a window."""
    for window in scope.windows():
        for node in ast.walk(window.test):
            either = isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or) and "%" in spelled(node.values[0])
            if either and isinstance(node, ast.BoolOp) and any(re.search(r"len\(|last|final", spelled(value)) for value in node.values[1:]):
                yield Seed(window.lineno, Edits(scope.source).rewrite(node, spelled(node.values[0])))


@operator("TM109")
def zeros_kept(scope: Scope) -> Iterator[Seed]:
    """zero_grad(set_to_none=False)."""
    for clear in scope.clears:
        if isinstance(clear.value, ast.Call) and not clear.value.args:
            yield Seed(clear.lineno, Edits(scope.source).rewrite(clear.value, f"{spelled(clear.value.func)}(set_to_none=False)"))


def clips(scope: Scope) -> Iterator[tuple[ast.stmt, Loop | None]]:
    """Statements that clip gradients, and their loops."""
    for node in scope.nodes:
        value = node.value if isinstance(node, (ast.Expr, ast.Assign)) else None
        only_measures = isinstance(value, ast.Call) and any(spelled(arg) == "None" for arg in value.args)
        if isinstance(value, ast.Call) and not only_measures and CLIP.search(spelled(value.func)) and scope.source.alone(node):  # type: ignore[arg-type]
            yield node, scope.loop(node)  # type: ignore[misc]


def in_own_block(scope: Scope, stmt: ast.stmt, others: list[ast.Expr]) -> Iterator[Positioned]:
    """Those of some statements that stand, maybe deeper, in the block of another."""
    block = scope.source.blocks[stmt]
    found = ((other, in_block(scope, other, block)) for other in others)
    yield from (around for _, around in found if around is not None and around is not stmt and scope.source.alone(around))


@operator("TM110")
def unscale_removed(scope: Scope) -> Iterator[Seed]:
    """A clip of scaled gradients."""
    for node in scope.nodes:
        if isinstance(node, ast.Expr) and method(node.value) == "unscale_" and scope.source.alone(node):
            for clip, loop in clips(scope):
                if loop is scope.loop(node) and clip.lineno > node.lineno and any(step.scaled for step in scope.steps):
                    yield Seed(clip.lineno, Edits(scope.source).drop(node))


@operator("TM110")
def clip_late(scope: Scope) -> Iterator[Seed]:
    """A clip after the step."""
    for clip, _ in clips(scope):
        for step in in_own_block(scope, clip, [step.stmt for step in scope.steps if step.stmt.lineno > clip.lineno][:1]):
            yield Seed(clip.lineno, Edits(scope.source).move_after(clip, step))  # type: ignore[arg-type]


@operator("TM110")
def clip_early(scope: Scope) -> Iterator[Seed]:
    """A clip before the backward."""
    for clip, _ in clips(scope):
        for backward in in_own_block(scope, clip, [stmt for stmt in scope.backwards if stmt.lineno < clip.lineno][-1:]):
            yield Seed(clip.lineno, Edits(scope.source).move_before(clip, backward.lineno))
