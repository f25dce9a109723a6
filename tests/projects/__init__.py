"""Tables of small projects: `### fire: title` or `### silent: title`, then `=== path` before each file, marks as in the other tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = re.compile(r"^### (fire|silent): (.+)$", re.M)
FILE = re.compile(r"^=== (\S+)$", re.M)


@dataclass(frozen=True)
class ProjectCase:
    """One project: whether anything in it must be reported, and its files by path."""

    table: str
    fires: bool
    title: str
    files: dict[str, str]

    @property
    def id(self) -> str:
        """The name of the test."""
        return f"{self.table}-{'fire' if self.fires else 'silent'}-{self.title}"

    def write(self, folder: Path) -> None:
        """Put the files into a folder, with the marker of a project."""
        (folder / "pyproject.toml").touch()
        for path, source in self.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(source, encoding="utf-8")


def load() -> Iterator[ProjectCase]:
    """All projects of all tables."""
    for path in sorted(Path(__file__).parent.glob("*.txt")):
        _, *parts = HEADER.split(path.read_text(encoding="utf-8"))
        for kind, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            _, *files = FILE.split(body)
            yield ProjectCase(path.stem, kind == "fire", title, dict(zip(files[::2], files[1::2], strict=True)))
