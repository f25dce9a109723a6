"""The register of operators, and what they make: mutants."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from flake8_torchmem.source import SourceError, parse
from tests.benchmarks.seeding.edits import Edits, Source
from tests.benchmarks.seeding.scopes import Scope, scopes


@dataclass(frozen=True)
class Seed:
    """A bug that could be seeded: where, and how."""

    line: int
    edits: Edits


@dataclass(frozen=True)
class Mutant:
    """A file with one bug seeded.

    Attributes:
        operator: that seeded it.
        code: of the rule that is to find it.
        source: the file as it is.
        line: where, in the original.
        text: the changed file.
        origin: the original line of each line of the changed text.
    """

    operator: str
    code: str
    source: Source
    line: int
    text: str
    origin: tuple[int, ...]


Operator = Callable[[Scope], Iterator[Seed]]
OPERATORS: dict[str, tuple[str, Operator]] = {}


def operator(code: str) -> Callable[[Operator], Operator]:
    """Register an operator under its name: it seeds what the rule of this code is to find."""

    def register(seeds: Operator) -> Operator:
        OPERATORS[seeds.__name__.replace("_", "-")] = (code, seeds)
        return seeds

    return register


def seeds(source: Source, only: frozenset[str]) -> Iterator[tuple[str, Seed]]:
    """Every bug that these operators can seed into a file, one per operator and line."""
    seen = set()
    for scope in scopes(source):
        for name in only:
            for seed in OPERATORS[name][1](scope):
                if (name, seed.line) not in seen:
                    seen.add((name, seed.line))
                    yield name, seed


def mutant(source: Source, name: str, seed: Seed) -> Mutant | None:
    """The file with a bug seeded; None if it is no valid Python any more."""
    text, origin = seed.edits.render()
    try:
        parse(text)
    except SourceError:
        return None
    return Mutant(name, OPERATORS[name][0], source, seed.line, text, origin) if text != source.text else None
