"""Lines that were changed since the work on a branch began, by what git keeps: nothing that a repository configures is run.

That rules out `git diff` on the working tree, which runs filters: only objects and the index are asked for, and compared here.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby

from flake8_torchmem.output import Located
from flake8_torchmem.source import SourceError, decode

_SAFE = ("--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
_PLAIN = ("--no-ext-diff", "--no-textconv", "--ignore-submodules=all")
_ENVIRONMENT = {"GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
_BLOBS = (b"100644", b"100755")


class ChangesError(Exception):
    """It cannot be told what was changed; its text says why, in one line."""


@dataclass(frozen=True)
class Base:
    """The state that changes are counted from.

    Attributes:
        top: folder of the repository.
        blobs: objects with the contents of files at that state, by path from there.
        renamed: paths at that state by those of today.
    """

    top: str
    blobs: dict[str, str]
    renamed: dict[str, str]

    def blob(self, path: str) -> str | None:
        """The object with what a file was then; None if there was none.

        Raises:
            ChangesError: the file is not in the repository.
        """
        inside = os.path.relpath(os.path.realpath(path), self.top)
        if inside.startswith(os.pardir) or os.path.isabs(inside):
            raise ChangesError(f"{path}: not in the repository {self.top}")
        inside = inside.replace(os.sep, "/")
        return self.blobs.get(self.renamed.get(inside, inside))


def changed(revision: str, folder: str, findings: Sequence[Located], text: Callable[[str], str]) -> list[Located]:
    """The findings that have a changed line in their span.

    Args:
        revision: changes count from where the commit that is checked out parted from this one.
        folder: in the repository.
        findings: those of a file next to one another.
        text: gives what a file holds now, by the name that findings have.

    Raises:
        ChangesError: there is no git, repository or revision; or objects are missing, as in a shallow clone.
    """
    base = _base(revision, folder)
    groups = [(name, list(group)) for name, group in groupby(findings, key=lambda located: located.finding.path)]
    blobs = {name: base.blob(name) for name, _ in groups}
    contents = _contents(folder, {blob for blob in blobs.values() if blob is not None})
    found = []
    for name, group in groups:
        before = contents.get(blobs[name] or "")
        lines = None if before is None else _changed_lines(before, text(name))
        found += [one for one in group if lines is None or not lines.isdisjoint(_span(one))]
    return found


def _span(located: Located) -> range:
    first, last = located.finding.lines_of_file
    return range(first, last + 1)


def _changed_lines(before: bytes, text: str) -> frozenset[int] | None:
    """Numbers of lines that are new or different; None for all of them."""
    try:
        old, new = decode(before).split("\n"), text.split("\n")
    except SourceError:
        return None
    first = _alike(old, new)
    last = _alike(old[first:][::-1], new[first:][::-1])
    matcher = SequenceMatcher(None, old[first : len(old) - last], new[first : len(new) - last], autojunk=False)
    spans = (range(begin, end) for tag, _, _, begin, end in matcher.get_opcodes() if tag != "equal")
    return frozenset(first + index + 1 for span in spans for index in span)


def _alike(some: list[str], others: list[str]) -> int:
    """How many lines are the same from the beginning on."""
    return next((index for index, (one, other) in enumerate(zip(some, others, strict=False)) if one != other), min(len(some), len(others)))


def _base(revision: str, folder: str) -> Base:
    top = os.fsdecode(_git(folder, "rev-parse", "--show-toplevel").removesuffix(b"\n"))
    wanted = _commit(folder, revision)
    head = _commit(folder, "HEAD")
    try:
        commit = _git(folder, "merge-base", wanted, head).split()[0].decode()
    except (ChangesError, IndexError):
        raise ChangesError(f"{revision!r} and HEAD have no common commit here: a shallow clone has to be deepened first") from None
    blobs = {}
    for entry in _git(folder, "ls-tree", "-r", "-z", "--full-tree", commit).split(b"\0")[:-1]:
        attributes, path = entry.split(b"\t", 1)
        mode, _, name = attributes.split(b" ")
        if mode in _BLOBS:
            blobs[os.fsdecode(path)] = name.decode()
    fields = iter(_git(folder, "diff-index", "--cached", "-M", "--diff-filter=R", "--name-status", "-z", *_PLAIN, commit).split(b"\0")[:-1])
    renamed = {os.fsdecode(new): os.fsdecode(old) for _, old, new in zip(fields, fields, fields, strict=True)}
    return Base(os.path.realpath(top), blobs, renamed)


def _commit(folder: str, revision: str) -> str:
    try:
        return _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").split()[-1].decode()
    except (ChangesError, IndexError, ValueError):
        raise ChangesError(f"{revision!r} is no commit of this repository") from None


def _contents(folder: str, blobs: Iterable[str]) -> dict[str, bytes]:
    """What objects hold, by their names."""
    names = sorted(blobs)
    found: dict[str, bytes] = {}
    data = _git(folder, "cat-file", "--batch", asked="".join(f"{name}\n" for name in names).encode()) if names else b""
    for name in names:
        head, _, rest = data.partition(b"\n")
        if head.endswith(b" missing"):
            raise ChangesError("what a file held is missing here: a partial clone has to fetch it first")
        size = int(head.rpartition(b" ")[2])
        found[name], data = rest[:size], rest[size + 1 :]
    return found


def _git(folder: str, *arguments: str, asked: bytes = b"") -> bytes:
    """What git answers; no shell, and no program that the repository names."""
    try:
        done = subprocess.run(  # noqa: S603 - the arguments are ours, and revisions are never taken for options
            ["git", *_SAFE, "-C", folder, *arguments],  # noqa: S607 - git is where the user has it
            input=asked,
            capture_output=True,
            check=False,
            env={**os.environ, **_ENVIRONMENT},
        )
    except OSError as error:
        raise ChangesError(f"git cannot be run: {error.strerror}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().split("\n")
        raise ChangesError(said[0].removeprefix("fatal: ") or f"git {arguments[0]} failed")
    return done.stdout
