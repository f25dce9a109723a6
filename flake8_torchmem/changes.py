"""Lines that were changed since the work on a branch began, by what git keeps: nothing that a repository configures is run.

That rules out `git diff` on the working tree, which runs filters: only objects and the index are asked for, and compared here.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from tempfile import TemporaryFile

from flake8_torchmem.files import MAX_BYTES
from flake8_torchmem.output import Located
from flake8_torchmem.source import SourceError, decode

_SAFE = ("--no-pager", "--no-optional-locks", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
_PLAIN = ("--no-ext-diff", "--no-textconv", "--ignore-submodules=all")
# No protocol is allowed: what is missing must not be fetched in a way that the repository says, as versions before 2.44 would.
_ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}
SECONDS = 60.0  # for each question to git
MEMORY = 2 << 30  # bytes of its, where the system can say so: few objects can be made to stand for any number of files
MAX_ANSWER = 200_000_000
MAX_RENAMES = 1_000  # files that are compared with one another
MAX_LINES = 20_000  # of both versions between the first change and the last: beyond that, all between them counts as changed
MAX_PAIRS = 5_000_000  # of lines that are alike
PATHS_AT_ONCE = 500
TOLD = 1_000  # bytes of what it complains
_MISSING = "what a file held is missing here: a partial clone has to fetch it first"
_BLOBS = (b"100644", b"100755")


class ChangesError(Exception):
    """It cannot be told what was changed; its text says why, in one line."""


@dataclass(frozen=True)
class Base:
    """The state that changes are counted from.

    Attributes:
        top: folder of the repository.
        commit: that is the state.
        renamed: paths at that state by those of today.
    """

    top: str
    commit: str
    renamed: dict[str, str]

    def path(self, path: str) -> str:
        """The path from there that a file had then, if it was there.

        Raises:
            ChangesError: the file is not in the repository.
        """
        inside = os.path.relpath(os.path.realpath(path), self.top)
        if inside.startswith(os.pardir) or os.path.isabs(inside):
            raise ChangesError(f"{path}: not in the repository {self.top}")
        inside = inside.replace(os.sep, "/")
        return self.renamed.get(inside, inside)

    def blobs(self, paths: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Objects with the contents of files at that state, and their sizes in bytes, by path; those are left out that were not there."""
        found, wanted = {}, sorted(set(paths))
        for first in range(0, len(wanted), PATHS_AT_ONCE):
            asked = wanted[first : first + PATHS_AT_ONCE]
            for entry in _git(self.top, "ls-tree", "-l", "-z", "--full-tree", self.commit, "--", *asked).split(b"\0")[:-1]:
                attributes, path = entry.split(b"\t", 1)
                mode, _, name, size = attributes.split()
                if mode in _BLOBS and not size.isdigit():
                    raise ChangesError(_MISSING)
                if mode in _BLOBS:
                    found[os.fsdecode(path)] = name.decode(), int(size)
        return found


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
    paths = {name: base.path(name) for name, _ in groups}
    blobs = base.blobs(paths.values())
    contents = _contents(base.top, [blobs[paths[name]] for name, _ in groups if paths[name] in blobs])
    found = []
    for name, group in groups:
        before = next(contents) if paths[name] in blobs else None
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
    gone, come = old[first : len(old) - last], new[first : len(new) - last]
    if _would_take_long(gone, come):
        return frozenset(range(first + 1, first + len(come) + 1))
    matcher = SequenceMatcher(None, gone, come, autojunk=False)
    spans = (range(begin, end) for tag, _, _, begin, end in matcher.get_opcodes() if tag != "equal")
    return frozenset(first + index + 1 for span in spans for index in span)


def _would_take_long(before: Sequence[str], after: Sequence[str]) -> bool:
    counts = Counter(after)
    return len(before) + len(after) > MAX_LINES or sum(counts[line] for line in before) > MAX_PAIRS


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
    renames = ("-M", f"-l{MAX_RENAMES}", "--diff-filter=R", "--name-status", "-z")
    fields = iter(_git(folder, "diff-index", "--cached", *renames, *_PLAIN, commit).split(b"\0")[:-1])
    renamed = {os.fsdecode(new): os.fsdecode(old) for _, old, new in zip(fields, fields, fields, strict=True)}
    return Base(os.path.realpath(top), commit, renamed)


def _commit(folder: str, revision: str) -> str:
    try:
        return _git(folder, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").split()[-1].decode()
    except (ChangesError, IndexError, ValueError):
        raise ChangesError(f"{revision!r} is no commit of this repository") from None


def _contents(folder: str, blobs: Sequence[tuple[str, int]]) -> Iterator[bytes | None]:
    """What objects hold, one after the other; None for one that is larger than what is checked."""
    batch: list[str] = []
    held = 0
    for index, (name, size) in enumerate(blobs):
        batch.append(name if size <= MAX_BYTES else "")
        held += size if size <= MAX_BYTES else 0
        if held > MAX_ANSWER // 4 or index == len(blobs) - 1:
            yield from _held(folder, batch)
            batch, held = [], 0


def _held(folder: str, names: Sequence[str]) -> Iterator[bytes | None]:
    data, at = _git(folder, "cat-file", "--batch", asked="".join(f"{name}\n" for name in names if name).encode()), 0
    for name in names:
        if not name:
            yield None
            continue
        begin = data.find(b"\n", at) + 1
        head = data[at : begin - 1]
        if head.endswith(b" missing"):
            raise ChangesError(_MISSING)
        end = begin + int(head.rpartition(b" ")[2])
        yield data[begin:end]
        at = end + 1


def _git(folder: str, *arguments: str, asked: bytes = b"") -> bytes:
    """What git answers; no shell, no program that the repository names, and bounds on time, memory and the answer."""
    command = ["git", *_SAFE, "-C", folder, *arguments]
    with TemporaryFile() as questions, TemporaryFile() as complaints:
        questions.write(asked)
        questions.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - the arguments are ours, and revisions are never taken for options
                command, stdin=questions, stdout=subprocess.PIPE, stderr=complaints, env={**os.environ, **_ENVIRONMENT}
            )
        except OSError as error:
            raise ChangesError(f"git cannot be run: {error.strerror}") from None
        with process, _bounded(process):
            answer = process.stdout.read(MAX_ANSWER + 1) if process.stdout else b""
            if len(answer) > MAX_ANSWER:
                process.kill()
        complaints.seek(0)
        said = complaints.read(TOLD).decode("utf-8", "replace").strip().split("\n")
    if len(answer) > MAX_ANSWER or process.returncode < 0:
        raise ChangesError(f"git {arguments[0]} takes more than {SECONDS:.0f} s, or more memory than it is given")
    if process.returncode:
        raise ChangesError(said[0].removeprefix("fatal: ") or f"git {arguments[0]} failed")
    return answer


@contextlib.contextmanager
def _bounded(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """A process within bounds on memory, where the system has them, and on time."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (MEMORY, MEMORY))
    timer = threading.Timer(SECONDS, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
