"""What is read of the disk: folders once, files inside the project alone, and a record of what was asked.

Everything that the analysis of a file learns of other files comes from here, as the answer to one of three questions: which
names are in a folder, what is in a file, and which files of the project hold some words. Whoever knows the questions that
were asked can ask them again later; the same answers mean the same findings.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from flake8_torchmem.reach import is_within, read_regular, top_of
from flake8_torchmem.source import SourceError, decode

MARKERS = frozenset({".git", ".hg", "pyproject.toml", "setup.py", "setup.cfg"})
MAX_FILE = 1_000_000
NOT_OF_THE_PROJECT = frozenset({"node_modules", "site-packages", "__pycache__", "build", "dist", "venv"})
LISTING, TEXT, SEARCH = "listing", "text", "search"

Question = tuple[str, str]


@dataclass(eq=False)
class Trace:
    """What was asked while something was computed.

    Attributes:
        asked: the questions, each a kind and a path, or the words that were searched for.
    """

    asked: set[Question] = field(default_factory=set)

    def add(self, other: Trace) -> None:
        """Take over what was asked on the way to something that is used again."""
        self.asked |= other.asked


class Folder(NamedTuple):
    """A folder's Python files, folders and marks of a project; and its folders that are no links, sorted."""

    names: frozenset[str] = frozenset()
    inner: tuple[str, ...] = ()


@dataclass(eq=False)
class Disk:
    """The disk as one run sees it.

    Attributes:
        searched: bytes of a project that are searched at most.
        trace: of what is being computed.
        steady: whether every file was the same whenever it was read, as far as that was looked at.
        digesting: look at that, and be able to give answers; set before anything is read.
        unsaved: texts of files by path, as an editor holds them, in place of what the disk has.
    """

    searched: int
    trace: Trace = field(default_factory=Trace)
    steady: bool = True
    digesting: bool = False
    unsaved: Mapping[str, str] = field(default_factory=dict)
    _folders: dict[str, Folder] = field(default_factory=dict)
    _digests: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    _real: dict[str, str] = field(default_factory=dict)
    _contents: tuple[str, list[tuple[str, bytes]]] = ("", [])

    @contextmanager
    def tracing(self) -> Iterator[Trace]:
        """What is asked inside, and there alone."""
        outer, self.trace = self.trace, Trace()
        try:
            yield self.trace
        finally:
            self.trace = outer

    def names(self, folder: str) -> frozenset[str]:
        """Names in a folder that mean something to an import, none if it cannot be read."""
        self.trace.asked.add((LISTING, folder))
        return self.scan(folder).names

    def text(self, path: str, root: str) -> str:
        """The source of a file; empty if it cannot be read or is no part of the project."""
        self.trace.asked.add((TEXT, path))
        return _decoded(self._read(path, root))

    def texts(self, root: str, *words: str) -> Iterator[tuple[str, str]]:
        """The Python files of a project that hold all of these words, with their text, as far as the limit goes.

        Vendored and hidden folders are left out.
        """
        self.trace.asked.add((SEARCH, "\0".join(words)))
        return ((path, _decoded(data)) for path, data in self._search(root, words))

    def answers(self, asked: Iterable[Question], root: str) -> bytes:
        """A digest of the answers to these questions.

        Args:
            asked: in the order that counts.
            root: the project's folder.
        """
        return _sha256(b"".join(self._answer(question, root) for question in asked))

    def _answer(self, question: Question, root: str) -> bytes:
        key = (*question, root)
        if key not in self._digests:
            kind, path = question
            if kind == TEXT:
                self._read(path, root)
            elif kind == LISTING:
                folder = self.scan(path)
                self._digests[key] = _digest("/".join([*sorted(folder.names), "", *folder.inner]))
            else:
                # Digests of what was read first: that is what an analysis has seen, should a file change meanwhile.
                found = ((inner, self._digests[TEXT, inner, root]) for inner, _ in self._search(root, path.split("\0")))
                self._digests[key] = _sha256(b"".join(_digest(inner.removeprefix(root)) + digest for inner, digest in found))
        return self._digests[key]

    def _search(self, root: str, words: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        if self._contents[0] != root:
            self._contents = root, list(self._files(root))
        # Words of ASCII are spelled alike in every encoding of source; others are left to whoever asks.
        spelled = [word.encode() for word in words if word.isascii()]
        return ((path, data) for path, data in self._contents[1] if all(word in data for word in spelled))

    def scan(self, folder: str) -> Folder:
        """A folder, for questions whose answers do not count."""
        if folder not in self._folders:
            self._folders[folder] = _scanned(folder)
        return self._folders[folder]

    def _files(self, root: str) -> Iterator[tuple[str, bytes]]:
        left, pending = self.searched, [root]
        while pending and left > 0:
            folder = pending.pop()
            found = self.scan(folder)
            for name in sorted(found.names):
                if left <= 0:
                    return
                path = os.path.join(folder, name)
                if name.endswith(".py"):
                    data = self._read(path, root)
                    left -= len(data)
                    yield path, data
                elif "." not in name and name not in NOT_OF_THE_PROJECT and name in found.inner:
                    pending.append(path)

    def _read(self, path: str, root: str) -> bytes:
        try:
            data = b""
            if path in self.unsaved:
                data = self.unsaved[path].encode("utf-8")
            elif self._is_inside(path, root):
                data = read_regular(path, MAX_FILE)
        except (OSError, ValueError):
            data = b""
        if self.digesting:
            digest = _sha256(data)
            if self._digests.setdefault((TEXT, path, root), digest) != digest:
                self.steady = False
        return data

    def _is_inside(self, path: str, root: str) -> bool:
        """Whether a path, links followed, is in the folder: a link that leads out of the project is not read."""
        real = os.path.realpath(path) if os.path.islink(path) else self._real_folder(os.path.dirname(path))
        return real.startswith(self._real_folder(root))

    def _real_folder(self, folder: str) -> str:
        """A folder, links followed, with a separator at its end. Many files are read of few folders."""
        if folder not in self._real:
            self._real[folder] = os.path.join(os.path.realpath(folder), "")
        return self._real[folder]


def _scanned(folder: str) -> Folder:
    names, inner = set(), []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".py") or entry.name in MARKERS:
                    names.add(entry.name)
                elif entry.name != "__pycache__" and _is_folder(entry, folder):
                    names.add(entry.name)
                    if not entry.is_symlink():
                        inner.append(entry.name)
    except OSError:
        return Folder()
    return Folder(frozenset(names), tuple(sorted(inner)))


def _is_folder(entry: os.DirEntry[str], around: str) -> bool:
    """Whether an entry is a folder, or a link to one that does not lead out of the project."""
    try:
        return entry.is_dir() and (not entry.is_symlink() or is_within(entry.path, top_of(around, MARKERS)))
    except OSError:
        return False


def _decoded(data: bytes) -> str:
    try:
        return decode(data)
    except (SourceError, ValueError):
        return ""


def _digest(text: str) -> bytes:
    return _sha256(text.encode("utf-8", "surrogatepass"))


def _sha256(data: bytes) -> bytes:
    from hashlib import sha256  # it brings OpenSSL along, which no run without a cache should pay for

    return sha256(data).digest()
