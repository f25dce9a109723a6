"""What is found in whole files is found in the slices that the gates let through: generated programs, fixtures, seeded bugs, options."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from flake8_torchmem.analysis import gate
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.units import units_of
from flake8_torchmem.ownnames import NONE
from flake8_torchmem.rules import rule_codes
from flake8_torchmem.source import parse
from tests.benchmarks.seeding import gradients, loading, retention
from tests.benchmarks.seeding.edits import Source
from tests.benchmarks.seeding.operators import OPERATORS, mutant, seeds
from tests.generation.programs import Program, programs
from tests.running import REPOSITORY
from tests.ungated import everything

SEEDED = (gradients, loading, retention)  # what they register
FIXTURES = sorted((REPOSITORY / "fixtures").glob("*/*.py"))
OPTIONS = """
import argparse

from torch.utils.data import DataLoader, Dataset


class Images(Dataset):
    def __getitem__(self, index):
        return self.images[index].cuda()


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="run")
    parser.add_argument("--workers", type=int, default={workers})
    parser.add_argument("--amp", action="store_true"); parser.add_argument("--resume")
    parser.add_argument(
        "--lr",
        default=None,
    )
    return parser.parse_args()


def main():
    args = options()
    return DataLoader(Images(), num_workers=args.workers)
"""

BUILT_FAR_FROM_THE_CONSTRUCTOR = """
import torch


class Model:
    def __init__(self, options):
        self.options = options
        self.begin()

    def begin(self):
        self.net.train()
        self.set_up()

    def set_up(self):
        parameters = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        self.optimizer = self.get_optimizer(parameters, **self.options)

    def optimize(self, batch):
        loss = self.criterion(self.net(batch))
        loss.backward()
        self.optimizer.step()
"""


def found(text: str) -> set[tuple[str, int, int]]:
    """Code and place of what any rule says."""
    return {(finding.code, finding.span.line, finding.span.column) for finding in check_text(text, "file.py", rule_codes())}


def lost(text: str) -> set[tuple[str, int, int]]:
    """What is found in one of the two alone, the whole file or its slices."""
    through = found(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate, "select", everything)
        return found(text) ^ through


@settings(max_examples=60, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs())
def test_generated_programs(program: Program) -> None:
    assert not lost(program.source)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda path: f"{path.parent.name[:5]}-{path.stem}")
def test_fixtures(path: Path) -> None:
    assert not lost(path.read_text("utf-8"))


@pytest.mark.parametrize("path", [path for path in FIXTURES if path.stem == "good"], ids=lambda path: path.parent.name[:5])
def test_seeded_bugs(path: Path) -> None:
    source = Source(path, path.parent)
    made = [mutant(source, name, seed) for name, seed in seeds(source, frozenset(OPERATORS))]
    assert not [(each.operator, each.line) for each in made[:6] if each is not None and lost(each.text)]


def test_seeded_bugs_are_many() -> None:
    sources = (Source(path, path.parent) for path in FIXTURES if path.stem == "good")
    assert sum(1 for source in sources for _ in seeds(source, frozenset(OPERATORS))) > 50


@pytest.mark.parametrize(("workers", "reported"), [(4, True), (0, False)])
def test_options_that_say_how_many_are_read(workers: int, reported: bool) -> None:
    text = OPTIONS.format(workers=workers)
    assert ("TM304" in {code for code, _, _ in found(text)}) is reported
    assert not lost(text)


def test_other_options_are_not_read() -> None:
    """Those whose default is no number."""
    text = OPTIONS.format(workers=4)
    options = next(unit for unit in units_of(parse(text), text, NONE) if unit.name == "options")
    kept = [ast.unparse(statement) for statement in options.trimmed().body]  # type: ignore[attr-defined]
    assert [line.split("'")[1] for line in kept if "add_argument(" in line] == ["--workers"]
    assert len(kept) == 3


def test_what_builds_an_optimizer_is_seen_however_it_is_reached() -> None:
    """Nothing in the class clears, which is known only if the class is seen to build the optimizer."""
    text = BUILT_FAR_FROM_THE_CONSTRUCTOR
    assert {code for code, *_ in found(text)} == {"TM101"}
    assert not lost(text)
