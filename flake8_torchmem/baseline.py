"""Findings that are known: a file of counts by file and rule, without line numbers, so that it lasts while code moves.

Each entry is a line of its own, and so is what follows the last one: git merges what two branches changed in different places.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flake8_torchmem.output import Located
from flake8_torchmem.reach import read_regular
from flake8_torchmem.rules.internal import INTERNAL_RULES

FILE = "torchmem-baseline.json"
VERSION = 1
MAX_BYTES = 20_000_000
_ENTRY = re.compile(r"(?P<path>.+): (?P<code>TM\d{3})", re.DOTALL)
_LAST = f'"version": {VERSION}'

Entry = tuple[str, str]
Counts = dict[Entry, int]


class BaselineError(Exception):
    """A baseline that cannot be read; its text names file, line and cause in one line."""


@dataclass(frozen=True)
class Judged:
    """Findings beside a baseline.

    Attributes:
        new: those that it does not know. Of more findings than it knows all are here: a count cannot tell which are new.
        known: how many it knows.
        exceeded: entries of which there are more, with what it knows and what there is.
        stale: entries of which there are fewer, with the same.
    """

    new: list[Located]
    known: int = 0
    exceeded: dict[Entry, tuple[int, int]] = field(default_factory=dict)
    stale: dict[Entry, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Baseline:
    """Counts of findings.

    Attributes:
        path: of the file.
        counts: by the path of a file, as seen from the folder of this one, with `/`, and the code of a rule.
    """

    path: str
    counts: Counts = field(default_factory=dict)

    def place(self, name: str) -> str:
        """The path of a file in the entries."""
        return os.path.relpath(name, os.path.dirname(os.path.abspath(self.path))).replace(os.sep, "/")

    def counted(self, findings: Iterable[Located]) -> Counts:
        """Findings by entry. What the checker could not do is nothing that one gets used to."""
        found = (located.finding for located in findings if located.finding.code not in INTERNAL_RULES)
        return dict(Counter((self.place(finding.path), finding.code) for finding in found))

    def judge(self, findings: Sequence[Located], judged: Callable[[Entry], bool]) -> Judged:
        """Compare.

        Args:
            findings: of a run.
            judged: whether the run would have found what an entry says.
        """
        found = self.counted(findings)
        within = {entry for entry, count in found.items() if count <= self.counts.get(entry, 0)}
        new = [one for one in findings if (self.place(one.finding.path), one.finding.code) not in within]
        pairs = {entry: (count, found.get(entry, 0)) for entry, count in self.counts.items()}
        exceeded = {entry: pair for entry, pair in pairs.items() if pair[1] > pair[0]}
        stale = {entry: pair for entry, pair in pairs.items() if pair[1] < pair[0] and judged(entry)}
        return Judged(new, len(findings) - len(new), exceeded, stale)

    def pruned(self, stale: dict[Entry, tuple[int, int]]) -> Baseline:
        """The baseline without what is stale in it."""
        return Baseline(self.path, {**self.counts, **{entry: found for entry, (_, found) in stale.items()}})

    def renewed(self, findings: Iterable[Located], judged: Callable[[Entry], bool]) -> Baseline:
        """What a run found, and of the rest what it could not have found, or not all of it."""
        left = {entry: count for entry, count in self.counts.items() if not judged(entry)}
        found = self.counted(findings)
        return Baseline(self.path, {entry: max(left.get(entry, 0), found.get(entry, 0)) for entry in (*left, *found)})

    @property
    def data(self) -> bytes:
        """The file: ASCII alone, as names of files may be no Unicode."""
        lines = [f"{_key(entry)}: {count}," for entry, count in sorted(self.counts.items()) if count]
        return "\n".join(["{", *lines, _LAST, "}", ""]).encode("ascii")


def read(path: str) -> Baseline:
    """The baseline in a file.

    Raises:
        BaselineError: there is none, or it is damaged.
    """
    try:
        data = read_regular(path, MAX_BYTES)
        text = data.decode("utf-8")
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except FileNotFoundError:
        raise BaselineError(f"{path}: no such file; `torchmem baseline` writes it") from None
    except OSError as error:
        raise BaselineError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BaselineError(f"{path}:{line}: not valid UTF-8") from None
    except (ValueError, RecursionError) as error:
        cause = "a conflict of a merge is left" if re.search("^<<<<<<<", text, re.MULTILINE) else "not valid JSON"
        raise BaselineError(f"{path}:{getattr(error, 'lineno', 1)}: {cause}") from None
    return Baseline(path, _counts(path, text, pairs))


class _Pairs(list[tuple[str, Any]]):
    """An object of JSON with all of its keys."""


def _counts(path: str, text: str, pairs: object) -> Counts:
    if not isinstance(pairs, _Pairs) or ("version", VERSION) not in pairs:
        raise BaselineError(f"{path}:1: no baseline of version {VERSION}")
    counts: Counts = {}
    for key, count in pairs:
        found = _ENTRY.fullmatch(key)
        entry = (found["path"], found["code"]) if found else ("", "")
        cause = "" if key == "version" else _damage(found is not None, entry in counts, count)
        if cause:
            lines = [number for number, line in enumerate(text.split("\n"), 1) if json.dumps(key) in line]
            raise BaselineError(f"{path}:{lines[-1] if lines else 1}: {json.dumps(key)} {cause}")
        if found:
            counts[entry] = count
    return counts


def _damage(is_entry: bool, is_twice: bool, count: object) -> str:
    if not is_entry:
        return "is no entry like 'src/train.py: TM101'"
    if is_twice:
        return "is there twice"
    return "has no count from 1 on" if type(count) is not int or count < 1 else ""


def _key(entry: Entry) -> str:
    return json.dumps(": ".join(entry))
