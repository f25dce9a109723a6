"""Which files train: a list for `NAME=@FILE`.

    python -m tests.benchmarks.training DIR [DIR ...] > FILE

A file trains if one of its functions, or its module, calls a `backward` and a `step`. Nothing of the analyzer decides about it.
"""

from __future__ import annotations

import argparse
import ast
import sys
import warnings
from pathlib import Path

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module)


def main() -> None:
    """Print the paths, one a line, in sorted order."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="+", type=Path, metavar="DIR")
    for folder in arguments.parse_args().folders:
        for path in sorted(folder.rglob("*.py")):
            if path.is_file() and trains(path.read_bytes()):
                sys.stdout.write(f"{path.resolve()}\n")


def trains(source: bytes) -> bool:
    """Whether something in it back-propagates and steps."""
    if b"backward" not in source:
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            return False
    return any(called(scope) >= {"backward", "step"} for scope in ast.walk(tree) if isinstance(scope, SCOPES))


def called(scope: ast.AST) -> set[str]:
    """The methods that are called in a function or module, those in functions within it left out."""
    found: set[str] = set()
    pending = list(ast.iter_child_nodes(scope))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            found.add(node.func.attr)
        if not isinstance(node, SCOPES):
            pending.extend(ast.iter_child_nodes(node))
    return found


if __name__ == "__main__":
    main()
