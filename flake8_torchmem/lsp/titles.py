"""What an edit does, in a few words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

_COMMENT = re.compile(r"(?<=\S)\s+#.*$")
_IMPORT = re.compile(r"(?:from|import)\s")
_WIDEST = 60  # characters of code in a title


def title(before: str, after: str) -> str:
    """What makes one text of another, told by the code that it is about.

    Args:
        before: with LF line ends.
        after: another text.
    """
    old, new = before.split("\n"), after.split("\n")
    gone, come = _changes([line.strip() for line in old], [line.strip() for line in new])
    if not gone and not come:  # indentation alone: into a block, or out of it
        gone, come = _changes(old, new)
    subject = next((line for line in come if not _IMPORT.match(line)), None) or next(iter(come or gone), "")
    verb = "move" if subject in gone and subject in come else "remove" if not come else "write" if gone else "insert"
    others = max(len(come), len(gone)) - 1
    more = f" and change {others} more line{'s' * (others > 1)}" if others > 0 and verb != "move" else ""
    code = _COMMENT.sub("", subject)
    return f"{verb} `{code if len(code) <= _WIDEST else code[: _WIDEST - 3] + '...'}`{more}"


def _changes(old: Sequence[str], new: Sequence[str]) -> tuple[list[str], list[str]]:
    """The lines that are gone, and those that have come, blank ones left out."""
    changes = [change for change in SequenceMatcher(None, old, new).get_opcodes() if change[0] != "equal"]
    gone = [line.strip() for _, first, end, _, _ in changes for line in old[first:end] if line.strip()]
    return gone, [line.strip() for _, _, _, start, stop in changes for line in new[start:stop] if line.strip()]
