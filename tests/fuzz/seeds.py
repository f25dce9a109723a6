"""What fuzzers begin with: the project's own fixtures and cases, and any folders of Python."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from flake8_torchmem.source import SourceError, decode
from flake8_torchmem.words import candidate
from tests.cases import load
from tests.running import REPOSITORY

MAX_FILE = 200_000


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
