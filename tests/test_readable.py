"""Which files libcst is given, and which not."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from flake8_torchmem.fixes.readable import readable

READ = {
    "strings in a row": "x = " + "'a' " * 100,
    "quotes in a string": '"""' + "say \"a\" or 'b', 'c'\n" * 300 + '"""',
    "escaped quotes": "x = '" + "\\'" * 500 + "'",
    "strings side by side": "x = [" + "'a' 'b',\n" * 1_000 + "]",
    "conditions": "a = x" + " and y" * 350,
    "operands": "a = x" + " + y" * 350,
    "arguments": "f(" + "'a', " * 5_000 + ")",
    "a long string": "x = '" + "a " * 500_000 + "'",
    "elif": "if x: pass\n" + "elif y: pass\n" * 100,
    "patterns": "match x:\n    case [{1: f(a, (b, [c]))}]: pass",
    "subjects": "match " + "(" * 20 + "x" + ")" * 20 + ":\n    case 1: " + "(" * 20 + "x" + ")" * 20,
    "annotated attributes": "x.y: int = 1",
}
UNREAD = {
    "strings in a row": "x = (" + "'a'  # 'b\n" * 200 + ")",
    "f-strings in a row": "x = (\n" + "f'{a}'\n" * 200 + ")",
    "conditions": "a = x" + " and y" * 1_100,
    "operands": "a = x" + " + y" * 1_100,
    "calls": "a = x" + ".f()" * 200,
    "managers": "with " + "-" * 200 + "x: pass",
    "defaults": "def f(x=" + "-" * 200 + "x): pass",
    "loops of a comprehension": "a = [x" + " for x in y" * 150 + "]",
    "elif": "if x: pass\n" + "elif y: pass\n" * 150,
    "packages": "import " + "a." * 200 + "b",
    "class patterns": "match x:\n    case " + "f(" * 6 + "a" + ")" * 6 + ": pass",
    "brackets around a pattern": "match x:\n    case 1: pass\n    case (\n" + "(" * 6 + "a" + ")" * 7 + ": pass",
}


def is_read(text: str) -> bool:
    return readable([ast.parse(text)], text.split("\n"))


@pytest.mark.parametrize("name", READ)
def test_is_read(name: str) -> None:
    assert is_read(READ[name])


@pytest.mark.parametrize("name", UNREAD)
def test_is_not_read(name: str) -> None:
    assert not is_read(UNREAD[name])


def test_libcst_reads_it() -> None:
    """In a process of its own, as it would take this one along."""
    program = "import sys, libcst\nfor text in sys.stdin.read().split('\\0'): libcst.parse_module(text)"
    done = subprocess.run([sys.executable, "-c", program], input="\0".join(READ.values()), text=True, encoding="utf-8", check=False)
    assert done.returncode == 0
