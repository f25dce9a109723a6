"""Syntax of all ages: what this Python knows is read, what it does not is told, and fixes leave what only libcst does not know."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest

from flake8_torchmem import fix_source
from tests.running import Result, flake8, run, torchmem
from tests.samples import LEAK_COLUMN, LEAK_LINE, LEAKY

# What each version has brought, as lines that stand in the loop of LEAKY before the leak; `lazy import` cannot stand there.
SYNTAX = {
    "walrus": ((3, 8), "if (n := len(inputs)) > 1: pass"),
    "positional_only": ((3, 8), "def f(a, /, b, *, c): pass"),
    "debug_f_string": ((3, 8), "f'{inputs=}'"),
    "async_comprehension": ((3, 8), "async def f(xs): return [await x async for x in xs if await x]"),
    "decorators": ((3, 9), "@hooks[0].register\ndef f(): pass"),
    "match": ((3, 10), "match inputs:\n    case [1, *_] | {'a': 1, **_rest} if n: pass\n    case Point(x=0): pass"),
    "managers": ((3, 10), "with (open('a') as a, open('b') as b,): pass"),
    "except_star": ((3, 11), "try: pass\nexcept* OSError: pass"),
    "starred_index": ((3, 11), "inputs[*targets]"),
    "type_parameters": ((3, 12), "def f[T: int, *Ts, **P](x: T) -> T: return x\nclass A[T]: pass\ntype Pair[T] = tuple[T, T]"),
    "f_string": ((3, 12), "f'{inputs['a']:{targets['b']}} {'\\n'.join(names)} {f'{f'{1}'}'}'"),
    "defaults": ((3, 13), "def f[T = int, *Ts = *tuple[int, ...], **P = [int]](x: T): pass\nclass A[T = int]: pass"),
    "except_bare": ((3, 14), "try: pass\nexcept OSError, ValueError: pass\ntry: pass\nexcept* OSError, KeyError: pass"),
    "template": ((3, 14), "t'{inputs!r:>{targets}} {'a'}'\nrt'\\d{inputs}'"),
    "unpacking": ((3, 15), "[*x for x in inputs]\n{**x for x in inputs}\nf(*x for x in inputs)"),
}
IN_LOOP = "        total += loss\n"
LAZY = LEAKY.replace("import torch\n", "lazy import torch\nlazy from torch import nn\n")


def leaky(lines: str) -> str:
    """A loop with some lines before its leak."""
    assert IN_LOOP in LEAKY
    return LEAKY.replace(IN_LOOP, "".join(f"        {line}\n" for line in lines.split("\n")) + IN_LOOP)


FILES = {name: (since, leaky(lines), LEAK_LINE, LEAK_LINE + lines.count("\n") + 1) for name, (since, lines) in SYNTAX.items()}
FILES["lazy"] = ((3, 15), LAZY, 1, LEAK_LINE + 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("syntax")
    for name, (_, text, _, _) in FILES.items():
        (root / f"{name}.py").write_text(text)
    return root


@pytest.fixture(scope="module")
def by_torchmem(folder: Path) -> list[str]:
    result = torchmem("check", "--no-imports", "--output-format=json", ".", cwd=folder)
    assert (result.status, result.err) == (1, "")
    report = json.loads(result.out)
    found = [f"{each['path']}:{each['line']}:{each['column']}: {each['code']}" for each in report["findings"]]
    return found + [each["message"] for each in report["errors"]]


@pytest.fixture(scope="module")
def by_flake8(folder: Path) -> Result:
    return flake8("--select=TM,E9", "--torchmem-no-imports", ".", cwd=folder)


@pytest.mark.parametrize("name", FILES)
def test_what_this_python_knows_is_checked_and_what_it_does_not_is_told(by_torchmem: list[str], by_flake8: Result, name: str) -> None:
    since, text, first, leak = FILES[name]
    said = [line.removeprefix("./") for line in by_torchmem if line.removeprefix("./").startswith(f"{name}.py:")]
    flake8_said = [line.removeprefix("./") for line in by_flake8.out.splitlines() if line.startswith(f"./{name}.py:")]
    assert len(said) == 1
    if sys.version_info >= since:
        assert said == [f"{name}.py:{leak}:{LEAK_COLUMN}: TM201"]
        assert [line.split(" [")[0] for line in flake8_said] == said
        fixed = fix_source(text)
        assert not fixed.left
        assert fixed.document.text == text.replace("total += loss", "total += loss.detach()")
        ast.parse(fixed.document.text)
        return
    place, code, *cause = said[0].split(": ", 2)
    assert (code.split()[0], place.split(":")[0]) == ("TM901", f"{name}.py")
    assert first <= int(place.split(":")[1]) < leak
    assert cause[0]
    assert [line.split()[1] for line in flake8_said] == ["E999"]


@pytest.mark.skipif(sys.version_info < (3, 15), reason="lazy imports came with Python 3.15")
def test_an_imported_file_may_be_lazy(tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("lazy from pkg.steps import train_step\n")
    (tmp_path / "pkg" / "steps.py").write_text(
        "def train_step(model, x, y, criterion, optimizer):\n    criterion(model(x), y).backward()\n    optimizer.step()\n"
    )
    (tmp_path / "train.py").write_text(
        "lazy import torch\nlazy from pkg import train_step\n\n\ndef train(model, loader, criterion):\n"
        "    optimizer = torch.optim.SGD(model.parameters(), 0.1)\n    for x, y in loader:\n"
        "        train_step(model, x, y, criterion, optimizer)\n"
    )
    assert "train.py:8:9: TM101" in torchmem("check", "train.py", cwd=tmp_path).out


# A libcst that has never heard of `async` comprehensions: the rest is its own parser, with its own words and places.
OLD = "import libcst\nknown = libcst.parse_module\nlibcst.parse_module = lambda text: known(text.replace('async for', 'async async'))\n"
NEW = leaky(SYNTAX["async_comprehension"][1])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    (tmp_path / "a_leaky.py").write_text(LEAKY)
    (tmp_path / "new.py").write_text(NEW)
    (tmp_path / "z_leaky.py").write_text(LEAKY)
    return tmp_path


def test_fix_leaves_what_libcst_does_not_know_and_the_run_goes_on(mixed: Path) -> None:
    main = f"{OLD}import sys\nfrom flake8_torchmem.cli import main; main()"
    result = run([sys.executable, "-c", main, "fix", "."], mixed)
    assert (result.status, result.err) == (0, "")
    assert re.search(rf"libcst \S+ cannot parse line {LEAK_LINE}, which Python can: a newer one may", result.out)
    assert (mixed / "new.py").read_text() == NEW
    assert all("loss.detach()" in (mixed / name).read_text() for name in ("a_leaky.py", "z_leaky.py"))
    assert torchmem("check", ".", cwd=mixed).out.count("TM201") == 1  # that one alone is left, and found
