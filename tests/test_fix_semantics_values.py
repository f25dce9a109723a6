"""Runs small training programs before and after their safe fixes: same losses, same parameters, same reports, and no error."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flake8_torchmem.fixes import Document, Outcome, fix_document
from flake8_torchmem.model import Safety
from flake8_torchmem.settings import Settings

torch = pytest.importorskip("torch", reason="what a fix does to a training program shows when it runs: that takes PyTorch")

CODES = ("TM201", "TM202", "TM203", "TM204", "TM209", "TM212", "TM215")
FOLDERS = sorted(path for path in (Path(__file__).parent.parent / "fixtures").iterdir() if path.name[:5] in CODES)
CLOSE = 1e-5

PROGRAM = """
import copy
from collections import defaultdict, deque

import torch
import torch.nn.functional as F
from torch import nn

{definitions}

def batches():
    generator = torch.Generator().manual_seed(1)
    for _ in range(6):
        x = torch.randn(8, 4, generator=generator)
        yield x, {target}


def run():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    optimizer = torch.optim.{optimizer}
    {start}
    losses = []
    for step, (x, y) in enumerate(batches()):
        optimizer.zero_grad()
        out = model(x)
        loss = {loss}
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        {keep}
    report = {report}
    return losses, [p.tolist() for p in model.parameters()], report
"""
LOSSES = {
    "mse": ("x.tanh()[:, :3]", "F.mse_loss(out, y)"),
    "cross": ("(x[:, 0] > 0).long()", "F.cross_entropy(out, y)"),
    "scaled": ("x[:, :3].abs()", "nn.SmoothL1Loss()(out, y) * 2"),
}
OPTIMIZERS = ("SGD(model.parameters(), lr=0.1, momentum=0.9)", "Adam(model.parameters(), lr=0.01)")
METER = """class Meter:
    def __init__(self):
        self.sum, self.count = {zero}, 0

    def update(self, value, n=1):
        self.sum += value * n
        self.count += n

    def mean(self):
        return self.sum / self.count
"""
RECORD = """class Record:
    def __init__(self):
        self.values = {}

    def add(self, name, value):
        self.values.setdefault(name, []).append(value)

    def numbers(self, name):
        return [value.item() for value in self.values[name]]
"""
HELPERS = """class Box:
    def __init__(self, value):
        self.value = value

    def get(self):
        return self.value.item()


def helper(*, value):
    def inner():
        return value.cpu()

    return inner().item()


def every(values):
    return [value.item() for value in values]
"""
# Uses that take a tensor in ways that are easy to overlook.
AWKWARD = (
    '{"a": total / 6}["a"].item()',
    "(lambda: total.item())()",
    "[value.item() for value in (total,)]",
    "sum([total, total]).item()",
    "list(map(lambda value: value.item(), [total]))",
    'getattr(total, "item")()',
    "(mean := total / 6).item()",
    "isinstance(total, float)",
    "Box(total).get()",
    "helper(value=total / 6)",
    'helper(**{"value": total})',
    "every(*[[total]])",
    "sorted([total, total / 2])[0].item()",
    "(total > 0).item()",
    "(total, 1)[0].item()",
    "next(iter([total])).item()",
    "total.__class__.__name__",
    "dict(enumerate([total]))[0].item()",
)
ON_THE_WAY = {
    "hist.append(total / (step + 1))": "torch.stack(hist).sum().item()",
    "best = min(best, total)": "float(best)",
    "last = total; other = last": "other.item()",
    "(first, *rest) = (1, total)": "rest[0].item()",
    "assert total.ndim == 0": "float(total)",
    "total = total if total.ndim == 0 else total.mean()": "float(total)",
    "hist = [value for value in [total] if value.ndim == 0]": "len(hist)",
}
TRAINED = "model.load_state_dict(best)"


@dataclass(frozen=True)
class Form:
    """A way to keep something: the rule that is about it, and the parts of the program."""

    code: str
    start: str
    keep: str
    report: str
    definitions: str = ""


def forms() -> Iterator[Form]:
    """All the ways."""
    starts = ("0.0", "torch.zeros(())", "torch.tensor(0.0)")
    sums = (
        "total += loss",
        "total = total + loss",
        "total += loss * x.size(0)",
        "total = 0.5 * total + 0.5 * loss",
        "total += (out - out.mean()).abs().sum()",
    )
    reports = ("float(total)", "f'{total / 6:.3f}'", "total / 6 if total > 0 else 0.0", "round(float(total), 3)", "(total + 1) * 2")
    tensors = (
        "total.item()",
        "(total / 6).cpu()",
        "torch.stack([total, total]).mean()",
        "total.detach().numpy().tolist()",
        "[total][0].mean()",
    )
    for start, keep in itertools.product(starts, sums):
        yield from (Form("TM201", f"total = {start}", keep, report) for report in (*reports[:2], tensors[0]))
    yield from (Form("TM201", "total = 0.0", "total += loss", report) for report in (*reports, *tensors))
    yield Form("TM201", "total = torch.zeros(())", "total.add_(loss)", "total.item()")
    yield from (Form("TM201", "total = 0.0", "total += loss", report, HELPERS) for report in AWKWARD)
    start = "total, hist, best = 0.0, [], 1e9"
    yield from (Form("TM201", start, f"total = total + loss\n        {more}", report) for more, report in ON_THE_WAY.items())
    yield Form("TM201", "sums = defaultdict(float)", "sums['loss'] += loss", "{k: v / 6 for k, v in sums.items()}")
    yield Form("TM201", "sums = {'loss': 0.0}", "sums['loss'] += loss", "f\"{sums['loss']:.3f}\"")
    yield Form("TM201", "vector = 0.0", "vector += (out - x[:, :3]).abs().mean(dim=0)", "vector / 6")
    for zero, report in itertools.product(("0.0", "torch.zeros(())"), ("f'{meter.mean():.3f}'", "meter.mean().item()", "float(meter.sum)")):
        yield Form("TM201", "meter = Meter()", "meter.update(loss, x.size(0))", report, METER.format(zero=zero))
    lists = ("torch.stack(kept).tolist()", "[value.item() for value in kept]", "(sum(kept) / len(kept)).item()", "float(kept[-1])")
    yield from (
        Form("TM202", "kept = []", keep, report)
        for keep in ("kept.append(loss)", "kept += [loss]", "kept.insert(0, loss / 2)")
        for report in lists
    )
    yield Form("TM202", "kept = []", "kept.append((step, loss, out.softmax(1)))", "[(a, b.item(), c.sum().item()) for a, b, c in kept]")
    yield Form(
        "TM202", "kept = []", 'kept.append({"step": step, "loss": loss, "out": [out.mean(), 1]})', "[row['loss'].item() for row in kept]"
    )
    yield Form("TM202", "kept = {}", "kept[step] = loss", "[value.item() for value in kept.values()]")
    yield Form("TM202", "kept = {}", "kept.setdefault('loss', []).append(loss)", "torch.stack(kept['loss']).tolist()")
    yield Form("TM202", "kept = []", "kept.append(model(x).cpu())", "torch.cat(kept).sum().item()")
    yield Form("TM204", "bank = torch.zeros(6, 8, 3)", "bank[step] = out", "bank.sum().item()")
    yield Form("TM204", "bank = torch.zeros(8, 3)", "bank[: len(x)].copy_(model(x))", "bank.sum().item()")
    yield Form("TM204", "curve = torch.zeros(6)", "curve[step] = loss", "curve.tolist()")
    yield Form("TM204", "recent = deque(maxlen=3)", "recent.append(model(x))", "torch.stack(list(recent)).sum().item()")
    yield Form("TM204", "record = Record()", "record.add('loss', loss)", "record.numbers('loss')", RECORD)
    hook = "kept = []; model[0].register_forward_hook(lambda module, args, output: kept.append({value}))"
    for value in ("output.mean()", "output[:, 0]", "output.flatten(1).cpu()"):
        yield Form("TM209", hook.format(value=value), "pass", "[each.sum().item() for each in kept]")
    best = "best, lowest = None, 1e9"
    for value in ("model.state_dict()", "dict(model.state_dict())", "{k: v.detach() for k, v in model.state_dict().items()}"):
        yield Form("TM212", best, f"if losses[-1] < lowest: best, lowest = {value}, losses[-1]", f"str({TRAINED})")


def programs() -> Iterator[Any]:
    for index, form in enumerate(forms()):
        name, (target, loss) = list(LOSSES.items())[index % len(LOSSES)]
        optimizer = OPTIMIZERS[index // 2 % len(OPTIMIZERS)]
        parts = {"start": form.start, "keep": form.keep, "report": form.report, "definitions": form.definitions}
        source = PROGRAM.format(target=target, loss=loss, optimizer=optimizer, **parts)
        yield pytest.param(form, source, id=f"{form.code}-{index}-{name}")


def fixed(source: str, *codes: str, unsafe: bool = False) -> Outcome:
    return fix_document(Document(source, "utf-8"), "case.py", Settings(select=codes), unsafe=unsafe)


def executed(source: str, name: str = "program") -> ModuleType:
    module = ModuleType(name)
    exec(compile(source, f"{name}.py", "exec"), module.__dict__)
    return module


def close(one: object, other: object) -> bool:
    """Whether two reports say the same, up to the rounding of floats."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, str) or isinstance(other, str):
        return one == other or close(float(str(one)), float(str(other)))
    values = [torch.as_tensor(value).detach().double().flatten().tolist() for value in (one, other)]
    return all(math.isclose(a, b, rel_tol=CLOSE, abs_tol=CLOSE) for a, b in zip(*values, strict=True))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("form", "source"), list(programs()))
def test_a_safe_fix_keeps_what_the_program_computes(form: Form, source: str) -> None:
    outcome = fixed(source, form.code)
    assert outcome.fixed, [left.reason for left in outcome.left]
    assert not outcome.left
    assert {safety for _, safety in outcome.fixed} == {Safety.SAFE}
    before, after = executed(source).run(), executed(outcome.document.text).run()
    assert before[0] == after[0]
    if TRAINED not in form.report:  # what is loaded back at the end is what was kept
        assert before[1] == after[1]
        assert close(before[2], after[2])
    assert fixed(outcome.document.text, form.code).document == outcome.document


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_fixed_fixtures_run(folder: Path) -> None:
    """The fixed program gives what the bad one gives; where the defect is in the results, what the mended one gives."""
    sources = {name: (folder / f"{name}.py").read_text(encoding="utf-8") for name in ("bad", "fixed")}
    mended = fixed(sources["bad"], folder.name[:5], unsafe=True).document.text
    results = {name: executed(source, f"{folder.name[:5]}_{name}").main(8, "cpu") for name, source in {**sources, "mended": mended}.items()}
    assert results["mended"] == results["fixed"]
    if folder.name[:5] != "TM212":
        assert results["mended"] == results["bad"]


def test_reports_of_the_programs_differ() -> None:
    """The programs are no empty shells: what they report depends on what they keep."""
    sources = [param.values[1] for param in itertools.islice(programs(), 40)]
    assert len({re.sub(r"\s", "", str(executed(source).run())) for source in sources}) > len(sources) // 2
