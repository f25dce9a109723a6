"""What fixes leave as it is, shown by running programs before and after: losses, metrics and parameters, to the last bit.

SAFE fixes leave the results of the program; UNSAFE ones give those of a reference that was written by hand.
"""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from flake8_torchmem.fixes import Document, fix_document
from flake8_torchmem.model import Safety
from flake8_torchmem.settings import Settings

torch = pytest.importorskip("torch", reason="the programs train: running them takes PyTorch")

FIXTURES = Path(__file__).parent.parent / "fixtures"
CODES = ("TM205", "TM206", "TM208", "TM211", "TM109", "TM301", "TM303", "TM306", "TM401")
STEPS = 6
Results = tuple[list[object], list[object]]

HEADER = """
import io

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

HISTORY = []


def batches(count, size=8):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(size, 6, generator=generator)
        yield x, (x.sum(dim=1) > 0).long()


def build():
    torch.manual_seed(0)
    return MODEL


def values(model):
    return [value.tolist() for value in model.state_dict().values()]
"""
MODELS = {
    "deep": "nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 2))",
    "noisy": "nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))",
}
OPTIMIZERS = {
    "SGD": "torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)",
    "Adam": "torch.optim.Adam(model.parameters(), lr=0.01)",
}


class Program(NamedTuple):
    """A program with a defect; `reference` is how it should be, None where it should do what it does."""

    code: str
    name: str
    source: str
    reference: str | None = None


TRAINING = """
def train(model, optimizer, loader):
    model.train()
    for step, (x, y) in enumerate(loader):
        CLEAR
        loss = F.cross_entropy(model(x), y)
        BACKWARD
        optimizer.step()
        AFTER
        HISTORY.append(loss.item())


def main():
    model = build()
    optimizer = OPTIMIZER
    EXTRA
    for epoch in range(2):
        train(model, optimizer, LOADER)
        EVALUATION
    return HISTORY, values(model)
"""
PLAIN = {
    "CLEAR": "optimizer.zero_grad()", "BACKWARD": "loss.backward()", "AFTER": "pass", "EXTRA": "pass", "EVALUATION": "pass",
    "LOADER": "list(batches(5))",
}  # fmt: skip
# What each rule finds in a program that is else in order.
DEFECTS: dict[str, dict[str, dict[str, str]]] = {
    "TM206": {
        "keyword": {"BACKWARD": "loss.backward(retain_graph=True)"},
        "position": {"BACKWARD": "loss.backward(None, True)"},
        "lines": {"BACKWARD": "loss.backward(\n    gradient=None,\n    retain_graph=True,  # why?\n)"},
    },
    "TM109": {
        "keyword": {"CLEAR": "optimizer.zero_grad(set_to_none=False)"},
        "position": {"CLEAR": "model.zero_grad(False)"},
        "end": {"CLEAR": "pass", "AFTER": "optimizer.zero_grad(set_to_none=False)"},
    },
    "TM401": {
        "plain": {"AFTER": "torch.cuda.empty_cache()"},
        "asked": {"AFTER": "if torch.cuda.is_available():\n    torch.cuda.empty_cache()"},
        "line": {"AFTER": "del x; torch.cuda.empty_cache()"},
    },
    "TM306": {
        "weights": {"BACKWARD": "weights = torch.ones(len(x)).view(-1).to(model[0].weight.device)\n(loss * weights.mean()).backward()"},
        "places": {"CLEAR": "optimizer.zero_grad()\nplaces = torch.arange(6).unsqueeze(0).float().to(x.device)\nx = x + places / 10"},
    },
}
EVALUATIONS = {
    "metric": """
        model.eval()
        right = 0
        for x, y in val_loader:
            right += (model(x).argmax(dim=1) == y).sum().item()
        HISTORY.append(right)
    """,
    "losses": """
        model.eval()
        losses = []
        for x, y in val_loader:  # all of them
            if len(losses) > 2:
                break
            out = model(x)
            losses.append(F.cross_entropy(out, y).item())
            # the end of the turn
        HISTORY.extend(losses)
        HISTORY.append(out.sum().item())
    """,
    "comprehension": """
        model.eval()
        labels = [model(x).argmax(dim=1) for x, _ in val_loader]
        HISTORY.append(torch.cat(labels).tolist())
    """,
    "autocast": """
        model.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for x, y in val_loader:
                HISTORY.append(f'''{F.cross_entropy(model(x), y).item()}
            of {len(y)}''')
        model.train()
    """,
    "function": "evaluate(model, val_loader)",
    "method": "Evaluator(model).validate(val_loader)",
    "generator": "HISTORY.extend(predict(model, val_loader))",
}
EVALUATORS = """
def evaluate(model, loader):
    model.eval()
    total = 0.0
    for x, y in loader:
        total += F.cross_entropy(model(x), y).item()
    HISTORY.append(total / len(loader))


class Evaluator:
    def __init__(self, model):
        self.model = model

    def validate(self, loader):
        self.model.eval()
        for x, y in loader:
            HISTORY.append((self.model(x).argmax(dim=1) == y).float().mean().item())
        self.model.train()


def predict(model, loader):
    model.eval()
    for x, _ in loader:
        yield model(x).argmax(dim=1).tolist()
"""
RESUMED = """
def resume(model, optimizer, file, loader):
    checkpoint = torch.load(file)
    LOADS
    for x, y in loader:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        HISTORY.append(loss.item())


def main():
    model = build()
    optimizer = OPTIMIZER
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, file)
    file.seek(0)
    resume(model, optimizer, file, list(batches(5)))
    return HISTORY, values(model)
"""
LOADS = {
    "plain": """
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        HISTORY.append(checkpoint["epoch"])
    """,
    "renamed": 'state = {key.replace("module.", ""): value for key, value in checkpoint["model"].items()}\nmodel.load_state_dict(state)',
}
LOADED = """
def main():
    model = build()
    optimizer = OPTIMIZER
    data = TensorDataset(*map(torch.cat, zip(*batches(5))))
    loader = DataLoader(data, batch_size=8, ARGUMENTS)
    for x, y in loader:
        x, y = x.to(model[0].weight.device), y.to(model[0].weight.device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        HISTORY.append(loss.item())
    return HISTORY, values(model)
"""
RECURRENT = """
def main():
    torch.manual_seed(0)
    model = nn.CELL(6, 5)
    optimizer = OPTIMIZER
    state = FIRST
    for step, (x, _) in enumerate(batches(5)):
        FIRST_TURN
        CUT
        optimizer.zero_grad()
        out, STATE = model(x.unsqueeze(1), STATE)
        loss = out.square().mean()
        HISTORY.append(loss.item())
        loss.backward(KEEP)
        optimizer.step()
    return HISTORY, values(model)
"""
ZEROS = "torch.zeros(1, 1, 5)"
CUTS = {
    "LSTM": "state = tuple(part.detach() for part in state) if state is not None else None",
    "GRU": "state = state.detach() if state is not None else None",
    "RNN": "state = state.detach() if state is not None else None",
}
OUT_OF_MEMORY = """
class Small(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        if len(x) > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)


def main():
    model = Small(build())
    optimizer = OPTIMIZER
    for x, y in batches(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(run(model, x), y)
        loss.backward()
        optimizer.step()
        HISTORY.append(loss.item())
    return HISTORY, values(model)
"""
HANDLERS = {
    "return": """
def run(model, x):
    try:
        return model(x)
    except torch.cuda.OutOfMemoryError:
        half = len(x) // 2
        return torch.cat([model(x[:half]), model(x[half:])])
""",
    "flag": """
def run(model, x):
    try:
        out = model(x)
    except RuntimeError as error:
        if "out of memory" not in str(error):
            raise
        first, second = x.chunk(2)
        out = torch.cat([model(first), model(second)])
    return out
""",
    "branch": """
def run(model, x):
    try:
        return model(x)
    except RuntimeError as error:
        if "out of memory" in str(error):
            torch.cuda.empty_cache()
            return torch.cat([run(model, part) for part in x.chunk(2)])
        raise
""",
    "loop": """
def run(model, x):
    parts = []
    for part in x.split(8):
        try:
            parts.append(model(part))
        except torch.cuda.OutOfMemoryError:
            for smaller in part.split(2):
                parts.append(model(smaller))
            continue
    return torch.cat(parts)
""",
}
BY_PARTS = """
def run(model, x):
    return torch.cat([model(part) for part in x.split(SIZE)])
"""


def filled(template: str, **parts: str) -> str:
    """The template with its words in capitals replaced, each with the indentation of its line."""
    for word, text in parts.items():
        body = textwrap.dedent(text).strip("\n")
        template = re.sub(rf"^( *){word}$", lambda match, body=body: _indented(body, match[1]), template, flags=re.MULTILINE)  # type: ignore[misc]
        template = re.sub(rf"\b{word}\b", lambda _, body=body: body, template)  # type: ignore[misc]
    return template


def _indented(body: str, indent: str) -> str:
    return "\n".join(indent + line if line.strip() else line for line in body.split("\n"))


def programs() -> Iterator[Program]:
    """All programs: every defect with both models and both optimizers."""
    for (model, built), (optimizer, made) in zip(MODELS.items(), OPTIMIZERS.items(), strict=True):
        common = {"MODEL": built, "OPTIMIZER": made}
        for code, defects in DEFECTS.items():
            for name, defect in defects.items():
                yield Program(code, f"{name}-{model}-{optimizer}", filled(HEADER + TRAINING, **(PLAIN | defect | common)))
        for name, evaluation in EVALUATIONS.items():
            parts = PLAIN | common | {"EVALUATION": evaluation, "EXTRA": "val_loader = list(batches(4, 16))"}
            yield Program("TM205", f"{name}-{model}-{optimizer}", filled(HEADER + EVALUATORS_OF.get(name, "") + TRAINING, **parts))
        for name, loads in LOADS.items():
            yield Program("TM301", f"{name}-{model}-{optimizer}", filled(HEADER + RESUMED, LOADS=loads, **common))
        for name, arguments in (("shuffled", "shuffle=True"), ("in order", "num_workers=0, drop_last=True")):
            yield Program("TM303", f"{name}-{model}-{optimizer}", filled(HEADER + LOADED, ARGUMENTS=arguments, **common))
        for name, handler in HANDLERS.items():
            source = filled(HEADER + handler + OUT_OF_MEMORY, **common)
            size = "2" if name == "loop" else "4"
            yield Program("TM211", f"{name}-{model}-{optimizer}", source, filled(HEADER + BY_PARTS + OUT_OF_MEMORY, SIZE=size, **common))
    yield from recurrent()


EVALUATORS_OF = dict.fromkeys(("function", "method", "generator"), EVALUATORS)


def recurrent() -> Iterator[Program]:
    """States of all forms, that start in all ways."""
    for (cell, cut), (optimizer, made), keep in itertools.product(CUTS.items(), OPTIMIZERS.items(), ("", "retain_graph=True")):
        zeros = f"({ZEROS}, {ZEROS})" if cell == "LSTM" else ZEROS
        starts = {"none": ("None", "pass"), "zeros": (zeros, "pass"), "in the first turn": ("None", f"if step == 0:\n    state = {zeros}")}
        for name, (first, turn) in starts.items():
            parts = {"CELL": cell, "OPTIMIZER": made, "FIRST": first, "FIRST_TURN": turn, "KEEP": keep, "STATE": "state"}
            bad, good = (filled(HEADER + RECURRENT, CUT=text, **parts) for text in ("pass", cut))
            yield Program("TM208", f"{cell}-{optimizer}-{name}-{keep}", bad, good)


PROGRAMS = list(programs())
UNSAFE = frozenset({"TM208", "TM211", "TM401"})  # their fixes change what the program computes


def fixed(source: str, code: str, *classes: Safety) -> str:
    """The source with all that the rule finds mended, by fixes of exactly these classes."""
    outcome = fix_document(Document(source, "utf-8"), "case.py", Settings(select=(code,)), unsafe=Safety.UNSAFE in classes)
    assert outcome.fixed
    assert not outcome.left
    assert {safety for _, safety in outcome.fixed} == set(classes)
    return outcome.document.text


def run(source: str) -> dict[str, Callable[..., Results]]:
    """What the program gives."""
    names: dict[str, object] = {"__name__": "program"}
    exec(compile(source, "program.py", "exec"), names)
    return names  # type: ignore[return-value]


@cache
def result(source: str) -> Results:
    return run(source)["main"]()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize("program", PROGRAMS, ids=[f"{program.code}-{program.name}" for program in PROGRAMS])
def test_program(program: Program) -> None:
    """After the fix a program does what it did, or what the reference does."""
    after = result(fixed(program.source, program.code, Safety.UNSAFE if program.code in UNSAFE else Safety.SAFE))
    assert after == result(program.reference or program.source)
    assert len(after[0]) >= STEPS - 1


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize("code", CODES)
def test_fixture(code: str) -> None:
    """The fixed program of a fixture runs, and gives what the bad one gives, or what the program that was mended by hand does."""
    folder = next(FIXTURES.glob(f"{code}-*"))
    bad, by_hand = ((folder / f"{name}.py").read_text(encoding="utf-8") for name in ("bad", "fixed"))
    # What TM205's fixture keeps in a list would be left without its graph: that fix is unsafe, though nobody back-propagates there.
    classes = {"TM205": (Safety.SAFE, Safety.UNSAFE)}.get(code, (Safety.UNSAFE if code in UNSAFE else Safety.SAFE,))
    after = run(fixed(bad, code, *classes))["main"](STEPS, "cpu")
    assert after == run(by_hand if code in UNSAFE else bad)["main"](STEPS, "cpu")
