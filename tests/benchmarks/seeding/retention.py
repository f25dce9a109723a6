"""Bugs that keep graphs and tensors (TM2xx)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.benchmarks.seeding.edits import INDENT, Edits, Positioned, last_line
from tests.benchmarks.seeding.gradients import single_clears, steps_of
from tests.benchmarks.seeding.operators import Seed, operator
from tests.benchmarks.seeding.scopes import (
    FUNCTIONS,
    GUARD,
    LOOPS,
    MODEL,
    Loop,
    Scope,
    ended,
    guarding,
    method,
    names,
    peeled,
    receiver,
    spelled,
    stem,
)

NUMBER = re.compile(r"item|numpy|tolist|float\(|\bint\(|len\(")
STATE = re.compile(r"hid|state|mem(?:or|s|$)|^h\d?$|^hx$|^rnn_", re.IGNORECASE)
DETACHES = re.compile(r"detach|repackage")
OUTPUT = re.compile(r"out|pred|logit|feat|embed|hidden", re.IGNORECASE)
TO_HOST = frozenset({"cpu", "numpy"})


def added(node: ast.AST) -> tuple[str, ast.expr] | None:
    """The place and the value of `place += value`, `place = place + value`."""
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        return spelled(node.target), node.value
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add):
        place = spelled(node.targets[0])
        return (place, node.value.right) if place == spelled(node.value.left) else None
    return None


def appended(node: ast.AST) -> tuple[str, ast.expr] | None:
    """The place and the value of `place.append(value)`."""
    call = node.value if isinstance(node, ast.Expr) else None
    if isinstance(call, ast.Call) and method(call) == "append" and len(call.args) == 1:
        return receiver(call), call.args[0]
    return None


def outlives(scope: Scope, stmt: ast.AST, place: str) -> bool:
    """Whether a place is no turn's own, and is not back-propagated."""
    loop = scope.loop(stmt)
    if loop is None or re.match(r"\w*", place).group() in scope.lost:  # type: ignore[union-attr]
        return False
    begun = (node for node in ast.walk(loop) if isinstance(node, ast.Assign) and node is not stmt)
    return not any(spelled(target) == place for node in begun for target in node.targets)


def ending_dropped(scope: Scope, stmt: ast.stmt, value: ast.expr) -> Iterator[Seed]:
    """The statement without what ends the graph of a plain loss in it, where gradients are on."""
    if scope.guards(stmt) or not scope.source.alone(stmt):
        return
    for whole, core in ended(value):
        if scope.lossy(core) and not NUMBER.search(spelled(core)):
            yield Seed(stmt.lineno, Edits(scope.source).rewrite(whole, spelled(core)))
            return


@operator("TM201")
def item_dropped(scope: Scope) -> Iterator[Seed]:
    """`total += loss` without `.item()`."""
    for node in scope.nodes:
        found = added(node)
        if found and outlives(scope, node, found[0]):
            yield from ending_dropped(scope, node, found[1])  # type: ignore[arg-type]


@operator("TM202")
def detach_dropped(scope: Scope) -> Iterator[Seed]:
    """`losses.append(loss)` without `.item()`."""
    for node in scope.nodes:
        found = appended(node)
        if found and outlives(scope, node, found[0]):
            yield from ending_dropped(scope, node, found[1])  # type: ignore[arg-type]


def kept(scope: Scope, first: str, each: str, last: str) -> Iterator[Seed]:
    """The loss kept by every training loop: before, at the end of each turn, and after."""
    for loop in scope.training_loops():
        loss = scope.loss_of(loop)
        if loss is not None and not loop.orelse and scope.source.alone(loop):
            around, inside = scope.source.indent(loop.lineno), scope.source.indent(loop.body[0].lineno)
            edits = Edits(scope.source).put_before(loop.lineno, around + first).put_after(last_line(loop), inside + each.format(loss))
            yield Seed(loop.lineno, edits.put_after(last_line(loop), around + last))


@operator("TM201")
def sum_added(scope: Scope) -> Iterator[Seed]:
    """A running sum of losses in a loop that had none."""
    yield from kept(scope, "kept_total = 0.0", "kept_total += {}", "print(kept_total / 10)")


@operator("TM202")
def list_added(scope: Scope) -> Iterator[Seed]:
    """A list of losses in a loop that had none."""
    yield from kept(scope, "kept_values = []", "kept_values.append({})", "print(sum(kept_values) / 10)")


@operator("TM210")
def cat_added(scope: Scope) -> Iterator[Seed]:
    """A tensor of all losses, grown by concatenation."""
    yield from kept(
        scope, "kept_tensor = torch.empty(0)", "kept_tensor = torch.cat([kept_tensor, {}.reshape(1)])", "print(kept_tensor.mean())"
    )


MOVES = re.compile(r"\.cuda\(|\.to\(\s*[\w.]*device|\.to\(['\"]cuda")
DATA = re.compile(r"loader|dataset|batches", re.IGNORECASE)


def forward_in(scope: Scope, loop: Loop, *, guarded: bool = False) -> ast.Assign | None:
    """The first statement of a loop that runs a model, with or without gradients."""
    made = (node for node in ast.walk(loop) if isinstance(node, ast.Assign) and scope.source.alone(node))
    runs = (node for node in made if isinstance(node.value, ast.Call) and MODEL.search(spelled(node.value.func)))
    return next((node for node in runs if bool(scope.guards(node)) is guarded), None)


@operator("TM203")
def left_on_device(scope: Scope) -> Iterator[Seed]:
    """Outputs collected without `.cpu()`."""
    for node in scope.nodes if MOVES.search(scope.source.text) else ():
        found = appended(node)
        for whole, core in ended(found[1], TO_HOST) if found and outlives(scope, node, found[0]) else ():
            root = stem(peeled(core))
            if isinstance(root, ast.Name) and any(MODEL.search(name) for name in scope.made(root.id)):
                yield Seed(node.lineno, Edits(scope.source).rewrite(whole, spelled(core)))  # type: ignore[attr-defined]


@operator("TM203")
def outputs_added(scope: Scope) -> Iterator[Seed]:
    """A list of all outputs in a loop over a data set without gradients."""
    for loop in scope.nodes if MOVES.search(scope.source.text) else ():
        if not isinstance(loop, ast.For) or not DATA.search(spelled(loop.iter)) or not scope.source.alone(loop):
            continue
        forward = forward_in(scope, loop, guarded=True)
        if forward is not None and forward in loop.body and isinstance(forward.targets[0], ast.Name) and not loop.orelse:
            around, inside = scope.source.indent(loop.lineno), scope.source.indent(forward.lineno)
            edits = Edits(scope.source).put_before(loop.lineno, f"{around}kept_outputs = []")
            edits.put_after(last_line(forward), f"{inside}kept_outputs.append({forward.targets[0].id})")
            yield Seed(loop.lineno, edits.put_after(last_line(loop), f'{around}torch.save(kept_outputs, "outputs.pt")'))


@operator("TM204")
def buffer_added(scope: Scope) -> Iterator[Seed]:
    """A tensor of all losses, written in place."""
    each = "kept_curve[kept_turn] = {}; kept_turn += 1"
    yield from kept(scope, "kept_curve, kept_turn = torch.zeros(100000), 0", each, "print(kept_curve.mean())")


@operator("TM204")
def written_with_graph(scope: Scope) -> Iterator[Seed]:
    """`bank[rows] = features` without `.detach()`."""
    for node in scope.nodes:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if not isinstance(target, ast.Subscript) or isinstance(target.slice, ast.Constant):
            continue
        place, loop = spelled(target.value), scope.loop(node)
        rewrites = isinstance(loop, ast.For) and place in spelled(loop.iter)  # what is there already
        if not rewrites and outlives(scope, node, place):
            yield from ending_dropped(scope, node, node.value)  # type: ignore[attr-defined, arg-type]


def unguarded(scope: Scope, guard: Positioned | ast.With) -> Edits | None:
    """Without a guard: `if True:` for a block, nothing for a decorator."""
    edits = Edits(scope.source)
    if not isinstance(guard, ast.With):
        edits.instead[guard.lineno] = ""
        return edits if guard.lineno == last_line(guard) else None
    items = [item for item in guard.items if not GUARD.match(spelled(item))]
    ends = scope.source.lines[guard.lineno - 1].split("#")[0].rstrip().endswith(":")
    if guard.lineno == guard.body[0].lineno or not ends:
        return None
    head = f"with {', '.join(map(spelled, items))}:" if items else "if True:"
    edits.instead[guard.lineno] = scope.source.indent(guard.lineno) + head
    return edits


def runs_model(scope: Scope, nodes: list[ast.AST]) -> bool:
    """Whether a loop around or among these nodes runs a model, outside of tests."""
    if "/tests/" in scope.source.name or getattr(scope.node, "name", "").startswith("test_"):
        return False
    calls = [node for node in nodes if isinstance(node, ast.Call) and MODEL.search(spelled(node.func))]
    return any(_over_data(scope, call) for call in calls)


def _over_data(scope: Scope, call: ast.Call) -> bool:
    """Whether a model is called in a loop that does not go over models, like the encoders of a pipeline."""
    loop = scope.loop(call)
    return loop is not None and not (isinstance(loop, ast.For) and names(call.func) & names(loop.target))


@operator("TM205")
def decorator_dropped(scope: Scope) -> Iterator[Seed]:
    """An evaluation without its decorator; what derived classes do, their bases may guard."""
    cls = scope.source.parents.get(scope.node)
    if isinstance(cls, ast.ClassDef) and cls.bases:
        return
    inner = any(isinstance(node, ast.With) and guarding(node) for node in scope.nodes)
    for word in getattr(scope.node, "decorator_list", []):
        if GUARD.match(spelled(word)) and not scope.backwards and not inner and runs_model(scope, scope.nodes):
            edits = unguarded(scope, word)
            if edits is not None:
                yield Seed(word.lineno, edits)


@operator("TM205")
def guard_dropped(scope: Scope) -> Iterator[Seed]:
    """An evaluation without its `with torch.no_grad()`."""
    for node in scope.nodes:
        if not isinstance(node, ast.With) or not guarding(node) or len(scope.guards(node.body[0])) > 1:
            continue
        inside = [inner for stmt in node.body for inner in ast.walk(stmt)]
        own_loop = any(isinstance(inner, LOOPS) for inner in inside)
        loop = scope.loop(node)
        trains = loop is not None and not own_loop and "backward(" in spelled(loop)
        edits = None if trains or not runs_model(scope, inside) else unguarded(scope, node)
        if edits is not None:
            yield Seed(node.lineno, edits)


def plain_backward(scope: Scope) -> Iterator[tuple[ast.Expr, ast.Call]]:
    """The one backward of a scope that trains, if it has no arguments."""
    trains = scope.steps or any(other.steps for other in scope.siblings)
    if len(scope.backwards) == 1 and trains:
        stmt = scope.backwards[0]
        if isinstance(stmt.value, ast.Call) and method(stmt.value) == "backward" and not stmt.value.args and not stmt.value.keywords:
            yield stmt, stmt.value


@operator("TM206")
def graph_retained(scope: Scope) -> Iterator[Seed]:
    """backward(retain_graph=True)."""
    for stmt, call in plain_backward(scope):
        yield Seed(stmt.lineno, Edits(scope.source).rewrite(call, f"{spelled(call.func)}(retain_graph=True)"))


@operator("TM207")
def graph_created(scope: Scope) -> Iterator[Seed]:
    """backward(create_graph=True) with nothing that clears."""
    clears = [clear for clear, owner in single_clears(scope) if steps_of(scope, owner)]
    for stmt, call in plain_backward(scope):
        if len(scope.clears) == len(clears) == 1 and scope.loop(stmt) is not None:
            edits = Edits(scope.source).drop(clears[0])
            yield Seed(stmt.lineno, edits.rewrite(call, f"{spelled(call.func)}(create_graph=True)"))


@operator("TM208")
def state_carried(scope: Scope) -> Iterator[Seed]:
    """A recurrent state that is not detached between turns."""
    for node in scope.nodes:
        if not isinstance(node, ast.Assign) or len(node.targets) != 1 or scope.loop(node) is None or scope.guards(node):
            continue
        found = {name for name in names(node.targets[0]) if STATE.search(name)}
        if found & names(node.value) and DETACHES.search(spelled(node.value)) and scope.backwards and scope.source.alone(node):
            yield Seed(node.lineno, Edits(scope.source).drop(node))


@operator("TM209")
def hook_added(scope: Scope) -> Iterator[Seed]:
    """A hook that appends what it sees, on the model that a loop trains."""
    for loop in scope.training_loops():
        forward = forward_in(scope, loop)
        if forward is not None and isinstance(forward.value, ast.Call) and scope.source.alone(loop):
            model = spelled(forward.value.func).removesuffix(".forward")
            hook = (
                "kept = []",
                "def keep(module, inputs, output):",
                f"{INDENT}kept.append(output)",
                f"{model}.register_forward_hook(keep)",
            )
            indent = scope.source.indent(loop.lineno)
            yield Seed(loop.lineno, Edits(scope.source).put_before(loop.lineno, *(indent + line for line in hook)))


@operator("TM211")
def retried_in_handler(scope: Scope) -> Iterator[Seed]:
    """The forward of a training loop tried again inside the handler of an out-of-memory error."""
    for loop in scope.training_loops():
        forward = forward_in(scope, loop)
        if forward is not None:
            indent = scope.source.indent(forward.lineno)
            lines = scope.source.block_of(forward, indent + INDENT)
            handler = (f"{indent}except torch.cuda.OutOfMemoryError:", f"{indent}{INDENT}torch.cuda.empty_cache()")
            edits = Edits(scope.source).remove(forward).put_before(forward.lineno, f"{indent}try:", *lines)
            yield Seed(forward.lineno, edits.put_after(last_line(forward), *handler, *lines))


@operator("TM212")
def copy_dropped(scope: Scope) -> Iterator[Seed]:
    """Weights kept in a variable without a deep copy, outside of tests."""
    for stmt in scope.nodes if "/tests/" not in scope.source.name else ():
        node = stmt.value if isinstance(stmt, (ast.Assign, ast.AnnAssign)) else None
        if isinstance(node, ast.Call) and spelled(node.func).endswith("deepcopy") and method(node.args[0]) == "state_dict":
            yield Seed(node.lineno, Edits(scope.source).rewrite(node, spelled(node.args[0])))


@operator("TM214")
def cache_added(scope: Scope) -> Iterator[Seed]:
    """functools.cache on a function of tensors."""
    node, source = scope.node, scope.source
    if not isinstance(node, FUNCTIONS) or node.decorator_list or isinstance(node, ast.AsyncFunctionDef) or node not in source.tree.body:
        return
    tensors = [arg for arg in node.args.args if arg.annotation is not None and spelled(arg.annotation) in {"torch.Tensor", "Tensor"}]
    returns = any(isinstance(inner, ast.Return) and inner.value is not None for inner in scope.nodes)
    if tensors and returns and node.args.vararg is None:
        first = next(
            stmt for stmt in source.tree.body if isinstance(stmt, (ast.Import, ast.ImportFrom)) and "__future__" not in spelled(stmt)
        )
        edits = Edits(source).put_before(first.lineno, "import functools").put_before(node.lineno, "@functools.lru_cache(maxsize=None)")
        yield Seed(node.lineno, edits)
