"""Tables of snippets: `### fire: title` and `### silent: title` blocks, reported lines marked `# expect: TM101`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = re.compile(r"^### (fire|silent): (.+)$")
MARK = re.compile(r"# expect: ([\w, ]+)")


@dataclass(frozen=True)
class Case:
    """One snippet: which table it is from, whether it must fire, and its source."""

    table: str
    fires: bool
    title: str
    source: str

    @property
    def id(self) -> str:
        """The name of the test."""
        return f"{self.table}-{'fire' if self.fires else 'silent'}-{self.title}"


def expected(source: str) -> set[tuple[int, str]]:
    """Line and code of every mark in a source."""
    marks = ((number, MARK.search(line)) for number, line in enumerate(source.split("\n"), 1))
    return {(number, code.strip()) for number, mark in marks if mark for code in mark[1].split(",")}


def load() -> Iterator[Case]:
    """All cases of all tables."""
    for path in sorted(Path(__file__).parent.glob("*.txt")):
        header, body = None, []
        for line in [*path.read_text(encoding="utf-8").split("\n"), "### silent: end"]:
            found = HEADER.match(line)
            if found is None:
                body.append(line)
                continue
            if header is not None:
                yield Case(path.stem, header[1] == "fire", header[2], "\n".join(body))
            header, body = found, []
