"""Programs that are deep, long or wide in one way each, in the middle of a training loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator

DEPTHS = (60, 99, 190, 900, 3_000)
LENGTHS = (3_000, 10_000)
WITHIN = """\
import torch


def other(x, y, f):
    {0}


def train(model, loader, optimizer, x, y, f):
    total = 0.0
    for i, data in enumerate(loader):
        optimizer.zero_grad()
        loss = model(data).mean()
        {0}
        loss.backward()
        optimizer.step()
        total += loss
    return total
"""
Make = Callable[[int], str]

# Each level once more around, or once more at the end.
DEEP: dict[str, Make] = {
    "parentheses": lambda n: "a = " + "(" * n + "x" + ")" * n,
    "lists": lambda n: "a = " + "[" * n + "x" + "]" * n,
    "dicts": lambda n: "a = " + "{1:" * n + "x" + "}" * n,
    "calls of calls": lambda n: "a = " + "f(" * n + "x" + ")" * n,
    "targets": lambda n: "(" * n + "a" + ",)" * n + " = x",
    "named": lambda n: "f(" + "(a := " * n + "x" + ")" * n + ")",
    "comprehensions": lambda n: "a = " + "[x for x in " * n + "y" + "]" * n,
    "subscripts": lambda n: "a = " + "x[" * n + "0" + "]" * n,
    "methods": lambda n: "loss = loss" + ".float()" * n,
    "calls of what is called": lambda n: "a = f" + "(x)" * n,
    "attributes": lambda n: "a = x" + ".y" * n,
    "items": lambda n: "a = x" + "[0]" * n,
    "minus": lambda n: "loss = " + "-" * n + "loss",
    "not": lambda n: "a = " + "not " * n + "x",
    "lambda": lambda n: "a = " + "lambda: " * n + "x",
    "defaults": lambda n: "a = " + "lambda x=" * min(n, 90) + "1" + ": x" * min(n, 90),
    "powers": lambda n: "loss = loss" + " ** x" * n,
    "choices": lambda n: "a = x" + " if y else x" * n,
    "managers": lambda n: "with " + "-" * n + "x: pass",
    "default values": lambda n: "def g(a=" + "-" * n + "x): pass",
    "annotations": lambda n: "def g(a: " + "-" * n + "x): pass",
    "decorators that are deep": lambda n: "@" + "-" * n + "x\n{}def g(): pass",
    "bases": lambda n: "class A(x" + ".y" * n + "): pass",
    "keywords of classes": lambda n: "class A(metaclass=" + "-" * n + "x): pass",
    "f-strings": lambda n: "a = f'{" + "-" * n + "x}'",
    "sequence patterns": lambda n: "match x:\n{}    case " + "[" * n + "a" + "]" * n + ": pass",
    "class patterns": lambda n: "match x:\n{}    case " + "f(k=" * n + "a" + ")" * n + ": pass",
    "mapping patterns": lambda n: "match x:\n{}    case " + "{{1:" * n + "a" + "}}" * n + ": pass",
    "brackets around patterns": lambda n: "match x:\n{}    case " + "(" * n + "a" + ")" * n + ": pass",
    "guards": lambda n: "match x:\n{}    case 1 if " + "-" * n + "x: pass",
    "elif": lambda n: "if x: pass\n" + "{}elif x > y: loss = loss * 2\n" * n,
    "if": lambda n: _nested("if x:", n),
    "for": lambda n: _nested("for a in loader:", n),
    "while": lambda n: _nested("while x:", n),
    "with": lambda n: _nested("with x as y:", n),
    "def": lambda n: _nested("def g(loss):", n),
    "class": lambda n: _nested("class A:", n),
}

# The same, side by side.
LONG: dict[str, Make] = {
    "operands": lambda n: "loss = loss" + " + x" * n,
    "conditions": lambda n: "a = x" + " and y" * n,
    "comparisons": lambda n: "a = x" + " < y" * n,
    "arguments": lambda n: "f(" + "x, " * n + ")",
    "keywords": lambda n: "f(" + ", ".join(f"k{i}=x" for i in range(n)) + ")",
    "elements": lambda n: "a = [" + "1.5, " * n + "]",
    "characters": lambda n: "a = '" + "abcdefgh" * 12 * n + "'",
    "strings": lambda n: "a = (" + "'a' " * n + ")",
    "fields": lambda n: "a = f'" + "{x}" * n + "'",
    "targets": lambda n: "a = " * n + "loss",
    "clauses": lambda n: "a = [x" + " for x in y" * (n // 100) + "]",
    "conditions of a comprehension": lambda n: "a = [x for x in y" + " if x" * n + "]",
    "alternatives": lambda n: "match x:\n{}    case " + "1 | " * n + "1: pass",
    "cases": lambda n: "match x:\n" + "{}    case 1: loss = loss * 2\n" * n,
    "managers": lambda n: "with " + ", ".join(["f(x) as a"] * n) + ": pass",
    "semicolons": lambda n: "; ".join(["a = x"] * n),
    "handlers": lambda n: "try: loss = f(x)\n" + "{}except y: loss = loss * 2\n" * (n // 10),
    "statements": lambda n: "\n{}".join(["loss = loss + x"] * (n // 10)),
    "names": lambda n: "\n{}".join(f"a{i} = a{i - 1} + loss" for i in range(n // 10)),
    "names of one another": lambda n: "\n{}".join(
        ["a0 = loss", *(f"a{i} = a{i - 1} + x" for i in range(1, n // 10)), f"y.append(a{n // 10 - 1})"]
    ),
    "branches": lambda n: "\n{}".join(f"if x > {i}: loss = loss * 2" for i in range(n // 10)),
    "loops": lambda n: "\n{}".join(["for z in loader: loss = loss * 2"] * (n // 10)),
    "attempts": lambda n: "\n{}".join(["try: loss = f(loss)\n{}except y: optimizer.zero_grad()"] * (n // 10)),
    "lists that grow": lambda n: "\n{}".join(f"a{i}.append(loss)" for i in range(n // 10)),
    "backwards": lambda n: "\n{}".join(["loss.backward(retain_graph=True)"] * (n // 10)),
    "steps": lambda n: "\n{}".join(f"if x[{i}]: optimizer.step()" for i in range(n // 10)),
    "decorators": lambda n: "@torch.no_grad()\n{}" * (n // 10) + "def g(): pass",
}

# Of a whole file.
WIDE: dict[str, Make] = {
    "functions that call the next one": lambda n: (
        "".join(f"def f{i}(loss, optimizer):\n    f{i + 1}(loss, optimizer)\n    optimizer.step()\n" for i in range(n // 10))
        + f"def f{n // 10}(loss, optimizer):\n    loss.backward()\n"
    ),
    "classes that inherit": lambda n: (
        "class A0(torch.nn.Module): pass\n"
        + "".join(f"class A{i + 1}(A{i}):\n    def training_step(self, b, i): self.seen.append(self.loss(b))\n" for i in range(n // 10))
    ),
    "methods": lambda n: (
        "class A(torch.nn.Module):\n"
        + "".join(f"    def m{i}(self, x):\n        self.a{i}.append(self.m{i + 1}(x)); x.backward()\n" for i in range(n // 10))
    ),
    "imports": lambda n: "".join(f"import torch.a{i} as t{i}\n" for i in range(n)),
    "a literal": lambda n: "X = [" + "1.5, " * n * 20 + "]\n",
    "devices that callers give": lambda n: (
        "".join(
            f"def g{i}(model, device, workers):\n    torch.zeros(3).to(device)\n"
            + "".join(f"    g{(i * k + k) % (n // 100)}(model, device, workers)\n" for k in range(1, 7))
            for i in range(n // 100)
        )
        + "def run(model, loader, device, workers):\n    for x in loader:\n        model(torch.zeros(3).to(device)).backward()\n"
        "        DataLoader(x, num_workers=workers)\n        g0(model, device, workers)\n"
    ),
}


def programs() -> Iterator[tuple[str, str]]:
    """Names with texts."""
    for kind, table, sizes in (("deep", DEEP, DEPTHS), ("long", LONG, LENGTHS), ("wide", WIDE, LENGTHS)):
        for name, make in table.items():
            for size in sizes:
                yield f"{kind}: {size} {name}", program(kind, make(size))


def program(kind: str, part: str) -> str:
    """The file with such a part in it, at two places where it can be."""
    if kind == "wide":
        return WITHIN.format("pass") + "\n\n" + part
    shallow, deep = (part.replace("{{", "\1").replace("}}", "\2").replace("{}", indent) for indent in (" " * 4, " " * 8))
    first, _, rest = WITHIN.partition("{0}")
    return (first + shallow + rest.replace("{0}", deep)).replace("\1", "{").replace("\2", "}")


def _nested(head: str, depth: int) -> str:
    """Blocks in blocks; Python has a hundred at most."""
    depth = min(depth, 96)
    return "".join("{}" * (i > 0) + " " * i + head + "\n" for i in range(depth)) + "{}" + " " * depth + "loss = loss * 2"
