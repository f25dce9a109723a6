"""Bugs in loading and moving data, and in the use of the allocator (TM3xx, TM4xx)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.benchmarks.seeding.edits import Edits, last_line
from tests.benchmarks.seeding.operators import Seed, operator
from tests.benchmarks.seeding.scopes import FUNCTIONS, Scope, spelled

WORKS = re.compile(r"(?:^|[._])(?:train|fit|evaluate|validate|test|train_one_epoch)(?:_\w+)?$")


def without(call: ast.Call, keyword: str, positional: int | None = None) -> str | None:
    """A call without one argument; None if it does not have it."""
    args, keywords = call.args, [word for word in call.keywords if word.arg != keyword]
    if positional is not None and len(args) == positional + 1:
        args = args[:positional]
    elif len(keywords) == len(call.keywords):
        return None
    return spelled(ast.Call(call.func, args, keywords))


@operator("TM301")
def map_location_dropped(scope: Scope) -> Iterator[Seed]:
    """torch.load to where the checkpoint was saved, kept while the work goes on."""
    for node in scope.nodes:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Call) or spelled(node.value.func) != "torch.load":
            continue
        text = without(node.value, "map_location", 1)
        later = (inner for inner in scope.nodes if isinstance(inner, ast.Call) and inner.lineno > last_line(node))
        works = any(spelled(call.func).endswith(".backward") or (WORKS.search(spelled(call.func)) and call.args) for call in later)
        if text is not None and works and isinstance(node.targets[0], (ast.Name, ast.Attribute)):
            yield Seed(node.lineno, Edits(scope.source).rewrite(node.value, text))


def loaders(scope: Scope, keyword: str, value: str) -> Iterator[Seed]:
    """Loaders without one of their arguments, in files that move batches to a device."""
    for node in scope.nodes:
        if isinstance(node, ast.Call) and re.search(r"(?:^|\.)DataLoader$", spelled(node.func)):
            text = without(node, keyword)
            given = any(word.arg == keyword and re.search(value, spelled(word.value)) for word in node.keywords)
            spread = any(word.arg is None for word in node.keywords)
            if text is not None and given and not spread and re.search(r"\.cuda\(|\.to\(", scope.source.text):
                yield Seed(node.lineno, Edits(scope.source).rewrite(node, text))


@operator("TM302")
def workers_dropped(scope: Scope) -> Iterator[Seed]:
    """A DataLoader without num_workers."""
    yield from loaders(scope, "num_workers", r"[^0]")


@operator("TM303")
def pinning_dropped(scope: Scope) -> Iterator[Seed]:
    """A DataLoader without pin_memory."""
    yield from loaders(scope, "pin_memory", "True")


def has_workers(text: str) -> bool:
    """Whether a loader of the file is given workers: a number, or an option that has them by default."""
    given = re.findall(r"DataLoader\([^)]*num_workers\s*=\s*([\w.]+)", text)
    options = (rf"add_argument\(\s*[\"']--?{word.rpartition('.')[2]}[\"'][^)]*default\s*=\s*[1-9]" for word in given)
    return any(re.match("[1-9]", word) for word in given) or any(re.search(option, text) for option in options)


@operator("TM304")
def made_on_device(scope: Scope) -> Iterator[Seed]:
    """Samples moved to the device by the workers of a loader."""
    node = scope.node
    if isinstance(node, FUNCTIONS) and node.name == "__getitem__" and has_workers(scope.source.text):
        for inner in scope.nodes:
            if isinstance(inner, ast.Call) and re.search(r"torch\.(?:from_numpy|tensor|\w*Tensor)$", spelled(inner.func)):
                yield Seed(inner.lineno, Edits(scope.source).rewrite(inner, f"{spelled(inner)}.cuda()"))


@operator("TM401")
def cache_emptied(scope: Scope) -> Iterator[Seed]:
    """empty_cache at the end of every turn."""
    if "import torch" not in scope.source.text:
        return
    for loop in scope.training_loops():
        indent = scope.source.indent(loop.body[0].lineno)
        yield Seed(loop.lineno, Edits(scope.source).put_after(last_line(loop.body[-1]), f"{indent}torch.cuda.empty_cache()"))
