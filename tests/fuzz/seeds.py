"""What fuzzers begin with: the project's own fixtures and cases, and any folders of Python."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from random import Random

from flake8_torchmem.source import SourceError, decode
from flake8_torchmem.words import candidate
from tests.benchmarks.recall import files, read
from tests.benchmarks.seeding.operators import OPERATORS, mutant, seeds
from tests.cases import load
from tests.running import REPOSITORY

MAX_FILE = 200_000
AT_ONCE = 4  # bugs that are seeded into one file before it is another one's turn


def own() -> list[str]:
    """Programs that the project comes with."""
    fixtures = [path.read_text("utf-8") for path in sorted((REPOSITORY / "fixtures").glob("*/*.py"))]
    return [*fixtures, *(case.source for case in load())]


def of_folders(folders: Iterable[str], trains: bool = True) -> Iterator[str]:
    """The texts of files below these folders.

    Args:
        folders: that are searched.
        trains: only of files that may train.
    """
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.py")):
            if path.is_file() and path.stat().st_size < MAX_FILE:
                try:
                    text = decode(path.read_bytes())
                except SourceError:
                    continue
                if candidate(text) or not trains:
                    yield text


def with_bugs(folders: Iterable[str], random: Random) -> Iterator[bytes]:
    """Files with one bug seeded into each, the files in random order, again and again with other bugs.

    Args:
        folders: that are searched.
        random: draws.
    """
    left = list(files(folders))
    while left:
        random.shuffle(left)
        fruitful = []
        for path, project in left:
            if (yield from _bugs_of(path, project, random)):
                fruitful.append((path, project))
        left = fruitful


def _bugs_of(path: Path, project: Path, random: Random) -> Generator[bytes, None, bool]:
    """Some of one file, and whether there was any."""
    source = read(path, project)
    found = sorted(seeds(source, frozenset(OPERATORS)), key=lambda each: (each[0], each[1].line)) if source else []
    for name, seed in random.sample(found, min(AT_ONCE, len(found))):
        made = mutant(source, name, seed) if source else None
        if made is not None:
            yield made.text.encode()
    return bool(found)
