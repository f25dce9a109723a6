"""What IPython takes and Python does not: magics, shell escapes and questions become statements that do nothing known.

Lines stay lines, and what stays Python keeps its columns. A comment marks each stand-in, by which the original is put back, be it
indented anew. Only cells that are no Python as they are are looked at: a `%` or `!` within strings is nobody's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from flake8_torchmem.source import SourceError, parse

UNKNOWN = "get_ipython()"
# Magics of a cell whose other lines are run as Python here; those of all others are another language's, or another process's.
OF_PYTHON = frozenset({"time", "timeit", "capture", "prun", "memit", "mprun", "lprun", "debug"})

MAX_LOOKS = 20_000_000  # characters of the cells that are parsed anew, all looks at them together

_LIKE = re.compile(r"# IPython(_*):")
_CELL = re.compile(r"%%(\w*)")
# IPython takes these for magics without their `%` where no variable has the name ("automagic").
_AUTOMATIC = (
    r"\s*(?:pip|uv|conda|mamba|cd|ls|ll|pwd|cat|cp|mv|rm|mkdir|rmdir|man|more|less|env|set_env|run|load|load_ext|reload_ext|autoreload"
    r"|matplotlib|pylab|config|time|timeit|prun|history|store|who|whos)(?: +[^\s=(\[,:;].*)?$"
)
_LOOKS_SO = re.compile(rf"\s*(?:[%!?]|[/,;]\w)|.*\?\s*$|{_AUTOMATIC}")
_ASSIGNED = re.compile(r"(\s*(?=\S)[\w.\[\]'\", ]+?=\s*)[%!]")
_TIMED = re.compile(r"(\s*)(%time(?:it)?\s+)(?!-)(\S.*)")


@dataclass(frozen=True)
class StandIn:
    """What stands for a line, without its indentation and its mark; and what it stands for: as a whole, or the beginning of it."""

    code: str
    original: str
    beginning: bool = False


class Magics:
    """What is no Python in the cells of one notebook.

    Args:
        sources: of all cells; the marks are unlike anything in them.
    """

    def __init__(self, sources: Iterable[str]) -> None:
        likes = max((len(like) for source in sources for like in _LIKE.findall(source)), default=-1)
        self.word = "IPython" + "_" * (likes + 1)
        self.marked = re.compile(rf"(\s*)((?=\S).*?) ?# {self.word}:(\d+)$")
        self.stand_ins: list[StandIn] = []
        self.left = MAX_LOOKS

    def python(self, source: str) -> str:
        """The Python of a cell: as many lines.

        Raises:
            SourceError: it has none.
        """
        lines = source.split("\n")
        first = next((index for index, line in enumerate(lines) if line.strip()), 0)
        magic = _CELL.match(lines[first])
        if magic is not None:
            if magic[1] not in OF_PYTHON:
                return "\n".join(self._stand_in("" if index != first else UNKNOWN, line) for index, line in enumerate(lines))
            self._hide(lines, first)
        while True:
            text = "\n".join(lines)
            try:
                parse(text)
            except SourceError as error:
                index = self._culprit(lines, error.line)
                if index is None:
                    raise
                self.left -= len(text)
                if self.left < 0:
                    raise SourceError("too many lines that are no Python", error.line) from None
                self._hide(lines, index)
            else:
                return text

    def restored(self, before: str, after: str) -> str:
        """What the cell holds whose Python was changed.

        Args:
            before: its Python as `python` gave it.
            after: its Python now.

        Raises:
            ValueError: a stand-in was changed, or is gone.
        """
        if self._marks(before) != self._marks(after):
            raise ValueError("a line that is no Python would go")
        return "\n".join(map(self._original, after.split("\n")))

    def _marks(self, text: str) -> list[str]:
        return [match[3] for match in map(self.marked.match, text.split("\n")) if match]

    def _original(self, line: str) -> str:
        match = self.marked.match(line)
        if match is None:
            return line
        indent, code, number = match.groups()
        kept = self.stand_ins[int(number)]
        if kept.beginning and code.startswith(kept.code):
            return indent + kept.original + code.removeprefix(kept.code)
        if code != kept.code:
            raise ValueError("a line that is no Python would be changed")
        return indent + kept.original if kept.code else kept.original

    def _culprit(self, lines: list[str], line: int | None) -> int | None:
        """The last line up to an error that looks as if it were for IPython, and is no stand-in."""
        for index in range(min(line or 0, len(lines)) - 1, -1, -1):
            looks_so = _LOOKS_SO.match(lines[index]) or _ASSIGNED.match(lines[index])
            if looks_so and not self.marked.match(lines[index]):
                return index
        return None

    def _hide(self, lines: list[str], index: int) -> None:
        """Put stand-ins for a line, and for those which it goes on in."""
        timed, assigned = _TIMED.fullmatch(lines[index]), _ASSIGNED.match(lines[index])
        indent = lines[index][: len(lines[index]) - len(lines[index].lstrip())]
        goes_on = lines[index].endswith("\\")
        if timed is not None and _is_simple(timed[3]):
            code = "...".ljust(len(timed[2]) - 1) + ";"
            lines[index] = f"{indent}{code}{timed[3]} {self._mark(StandIn(code, timed[2], beginning=True))}"
            return
        code = f"{assigned[1].strip()} {UNKNOWN}" if assigned else UNKNOWN
        lines[index] = indent + self._stand_in(code, lines[index].removeprefix(indent))
        while goes_on and index + 1 < len(lines):
            index += 1
            goes_on = lines[index].endswith("\\")
            lines[index] = self._stand_in("", lines[index])

    def _stand_in(self, code: str, original: str) -> str:
        mark = self._mark(StandIn(code, original))
        return f"{code} {mark}" if code else mark

    def _mark(self, stand_in: StandIn) -> str:
        self.stand_ins.append(stand_in)
        return f"# {self.word}:{len(self.stand_ins) - 1}"


def _is_simple(code: str) -> bool:
    """Whether this is one line of statements that have no blocks."""
    try:
        return not any(hasattr(statement, "body") for statement in parse(code).body)
    except SourceError:
        return False
