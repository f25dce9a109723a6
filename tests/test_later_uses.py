"""What a value becomes depends on every use in sight: those in callers in other files, and those that no rule looks at."""

from __future__ import annotations

from pathlib import Path

import pytest

from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.fixes import Document, fix_document
from flake8_torchmem.settings import Settings

ENGINE = """import torch


def train_epoch(model, loader, optimizer, criterion):
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        total += loss
    return total / len(loader)
"""
LOCAL = """

def main(model, loader, optimizer, criterion):
    print(f"{train_epoch(model, loader, optimizer, criterion):.3f}")
"""
CALLER = """import torch
from engine import train_epoch


def run(model, loader, optimizer, criterion):
    for epoch in range(10):
        value = train_epoch(model, loader, optimizer, criterion)
        {use}
"""
FORMATTED = 'print(f"{epoch} {value:.4f}")'
TRAINER = """import torch
import torch.nn.functional as F


class Trainer:
    def __init__(self, model, optimizer):
        self.model, self.optimizer = model, optimizer
        self.running = 0.0

    def training_step(self, x, y):
        self.optimizer.zero_grad()
        loss = F.mse_loss(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        self.running += loss

    def summary(self):
        return f"{self.running:.3f}"

"""


def fixed(source: str, path: Path, project: Project | None = None) -> str:
    outcome = fix_document(Document(source, "utf-8"), str(path), Settings(select=("TM201",)), project)
    assert outcome.fixed
    return outcome.document.text


@pytest.mark.parametrize(
    ("use", "written"),
    [
        (FORMATTED, "total += loss.item()"),
        ("print(round(float(value), 3))", "total += loss.item()"),
        ("print(value.item())", "total += loss.detach()"),
        ("torch.distributed.all_reduce(value)", "total += loss.detach()"),
        ("keep(value)", "total += loss.detach()"),
    ],
)
@pytest.mark.parametrize("local", ["", LOCAL], ids=["no caller of its own", "caller of its own"])
def test_callers_in_other_files_decide(tmp_path: Path, local: str, use: str, written: str) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "engine.py").write_text(ENGINE + local, encoding="utf-8")
    (tmp_path / "main.py").write_text(CALLER.format(use=use), encoding="utf-8")
    assert written in fixed(ENGINE + local, tmp_path / "engine.py", Project())


@pytest.mark.parametrize(
    ("use", "written"),
    [
        ("    def mean(self, n):\n        return float(self.running) / n\n", "self.running += loss.item()"),
        ("    def reset(self):\n        self.running = torch.zeros(())\n", "self.running += loss.detach()"),
        ("def show(trainer):\n    return trainer.running.cpu()\n", "self.running += loss.detach()"),
        ("def show(trainer):\n    return [trainer.running][0].dtype\n", "self.running += loss.detach()"),
        ("def show(trainers):\n    for each in trainers:\n        print(each.running > 3)\n", "self.running += loss.item()"),
    ],
)
def test_uses_that_no_rule_looks_at_decide(use: str, written: str) -> None:
    assert written in fixed(TRAINER + use, Path("trainer.py"))
