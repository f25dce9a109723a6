"""What changes between two texts, as whole lines and in a few words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import takewhile

from flake8_torchmem.lsp.jobs import Hunk

_AFTER_LINE = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
_COMMENT = re.compile(r"(?<=.)\s+#.*$")
_IMPORT = re.compile(r"(?:from|import)\s")
_WIDEST = 60  # characters of code in a title


def lines_of(text: str) -> list[str]:
    """The lines as an editor counts them, with their ends: after the last end there is one more, which may be empty."""
    return _AFTER_LINE.split(text)


def hunks(before: str, after: str) -> tuple[Hunk, ...]:
    """What to replace in the one text to get the other."""
    new = lines_of(after)
    return tuple(Hunk(first, end, "".join(new[start:stop])) for first, end, start, stop in _changes(lines_of(before), new))


def title(before: str, after: str) -> str:
    """What an edit does, told by the code that it is about."""
    old, new = ([line.strip() for line in lines_of(text)] for text in (before, after))
    changes = list(_changes(old, new)) or list(_changes(lines_of(before), lines_of(after)))  # indentation alone: into a block, or out
    gone = [line for first, end, _, _ in changes for line in old[first:end] if line]
    come = [line for _, _, start, stop in changes for line in new[start:stop] if line]
    subject = next((line for line in come if not _IMPORT.match(line)), None) or next(iter(come or gone), "")
    verb = "move" if subject in gone and subject in come else "remove" if not come else "write" if gone else "insert"
    others = max(len(come), len(gone)) - 1
    more = f" and change {others} more line{'s' * (others > 1)}" if others > 0 and verb != "move" else ""
    code = _COMMENT.sub("", subject)
    return f"{verb} `{code if len(code) <= _WIDEST else code[: _WIDEST - 3] + '...'}`{more}"


def _changes(old: Sequence[str], new: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """Ranges of lines that differ; what is alike at both ends is left out first, as comparing costs more than the square."""
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(old, new, strict=False)))
    left = min(len(old), len(new)) - same
    alike = min(left, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(old), reversed(new), strict=False))))
    matcher = SequenceMatcher(None, old[same : len(old) - alike], new[same : len(new) - alike])
    for tag, first, end, start, stop in matcher.get_opcodes():
        if tag != "equal":
            yield same + first, same + end, same + start, same + stop
