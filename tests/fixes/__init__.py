"""Tables of fixes: `### safe: title`, `### unsafe: title` and `### left: title` blocks.

A block holds the code before, a line `=====`, and the code after; of what is left, the reason. `safe` and `left` cases are run
without `--unsafe-fixes`, `unsafe` ones with it, and `left unsafe` ones too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HEADER = re.compile(r"^### (safe|unsafe|left|left unsafe): (.+)$")
DIVIDER = "====="


@dataclass(frozen=True)
class FixCase:
    """One fix: the rule, what kind of case it is, and the code before and after (or the reason why there is no fix)."""

    code: str
    kind: str
    title: str
    before: str
    after: str

    @property
    def id(self) -> str:
        """The name of the test."""
        return f"{self.code}-{self.kind}-{self.title}"

    @property
    def unsafe(self) -> bool:
        """Whether unsafe fixes are to be made."""
        return self.kind.endswith("unsafe")


def load() -> Iterator[FixCase]:
    """All cases of all tables."""
    for path in sorted(Path(__file__).parent.glob("TM*.txt")):
        for block in re.split(r"^(?=### )", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            header, _, body = block.partition("\n")
            found = HEADER.match(header)
            if found is None:
                if header.startswith("### "):
                    raise ValueError(f"{path.name}: {header}")
                continue
            before, divider, after = body.partition(f"\n{DIVIDER}\n")
            if not divider:
                raise ValueError(f"{path.name}: {header}: no {DIVIDER}")
            yield FixCase(path.stem, found[1], found[2], before.strip("\n") + "\n", after.strip("\n") + "\n")
