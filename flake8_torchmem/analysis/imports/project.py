"""Which file of a project an import means, and where in it a name is defined. Files are read, never run.

A definition has one name in the project, however an importer spells it: `src.pkg.engine.train` is `train` of
`src/pkg/engine.py` below the project's folder.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem.analysis.imports.disk import MARKERS, Disk, Trace
from flake8_torchmem.analysis.imports.outline import Outline, outline

if TYPE_CHECKING:
    from flake8_torchmem.analysis import ir

MAX_HOPS = 8
MAX_CLIMB = 40  # folders upwards in which an absolute import is looked for
LOOK_UP = 1_000  # characters that can be read in the time of a look-up in folders and outlines, at most


@dataclass(frozen=True)
class Limits:
    """How far imports are followed from one checked file.

    All of them count work, and what another file has had read before costs as much as what is read now: the same file leads to the
    same findings on every machine, in any order of files and any number of processes.

    Attributes:
        depth: imports of imports; 0 follows none.
        definitions: functions and classes that are read.
        characters: of source that are parsed.
        read: characters of files in which definitions are looked for, and again of those in which callers are.
        searched: bytes of other files that are searched for callers when something is about to be reported.
        kept: bytes of imported files that are kept in memory; more are read again when they are asked for again.
        lowered: definitions that are kept, lowered, for other files; flake8's own collector goes over all that is kept.
    """

    depth: int = 4
    definitions: int = 60
    characters: int = 200_000
    read: int = 10_000_000
    searched: int = 40_000_000
    kept: int = 40_000_000
    lowered: int = 1_000


FLAKE8_LIMITS = Limits(depth=2, definitions=24, characters=60_000, read=3_000_000, searched=8_000_000, kept=3_000_000, lowered=48)


class Allowance:
    """What one checked file may still have read of others.

    Args:
        characters: at most; the last file may be beyond it.
    """

    def __init__(self, characters: int) -> None:
        self.left = characters
        self._read: set[str] = set()

    def look_up(self) -> bool:
        """Pay for a look-up of a name; whether that is allowed."""
        self.pay(LOOK_UP)
        return self.left > 0

    def read(self, found: Outline | None) -> None:
        """Pay for a file, once."""
        if found is not None and found.path not in self._read:
            self._read.add(found.path)
            self.pay(len(found.text))

    def pay(self, characters: int) -> None:
        """Pay for what is looked through."""
        self.left -= characters


class Place(NamedTuple):
    """A definition: the outline of its file, its name there, and its name in the project."""

    outline: Outline
    name: str
    full: str


@dataclass(eq=False)
class Definition:
    """A lowered definition of an imported file, with what its header says of a class."""

    program: ir.Program
    bases: dict[str, tuple[str, ...]]
    guarded: frozenset[str]


@dataclass(eq=False)
class Project:
    """Everything that imports can reach, read lazily, each file once.

    Attributes:
        limits: for each checked file.
        top: the project's folder; empty to look for one around each file.
        disk: what was read, and what was asked for it.
    """

    limits: Limits = field(default_factory=Limits)
    top: str = ""
    disk: Disk = field(init=False)
    _outlines: dict[tuple[str, str], tuple[Outline | None, Trace]] = field(default_factory=dict)
    _kept: int = 0
    _roots: dict[str, str] = field(default_factory=dict)
    _scopes: dict[tuple[str, str], tuple[dict[str, str], Trace]] = field(default_factory=dict)
    _definitions: dict[tuple[str, str], Definition | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.disk = Disk(self.limits.searched)

    def definition(self, place: Place, root: str, read: Callable[[Place, dict[str, str]], Definition | None]) -> Definition | None:
        """A definition, read when it is first asked for.

        Args:
            place: where it is.
            root: the project's folder.
            read: gets the place, and what names stand for in its file.
        """
        key = (place.outline.path, place.full)
        scope = self.scope(place.outline, root)
        kept = self._definitions
        found = kept.pop(key) if key in kept else read(place, scope)
        kept[key] = found  # what was asked for last goes last
        if len(kept) > self.limits.lowered:
            del kept[next(iter(kept))]
        return found

    def root(self, folder: str) -> str:
        """The project's folder: the given one, else the nearest around with a marker of a project, else that of the outermost package."""
        if self.top and os.path.join(folder, "").startswith(os.path.join(self.top, "")):
            return self.top
        if folder not in self._roots:
            current = folder
            while MARKERS.isdisjoint(self.disk.scan(current).names):
                parent = os.path.dirname(current)
                if parent == current:
                    break
                current = parent
            self._roots[folder] = current if not MARKERS.isdisjoint(self.disk.scan(current).names) else self._outside_package(folder)
        return self._roots[folder]

    def _outside_package(self, folder: str) -> str:
        while "__init__.py" in self.disk.scan(folder).names and os.path.dirname(folder) != folder:
            folder = os.path.dirname(folder)
        return folder

    def names(self, path: str, root: str, imports: dict[str, str], relative: dict[str, tuple[int, str]]) -> dict[str, str]:
        """The imports of a file, those that lead into the project by the names that things have there.

        Args:
            path: the importing file.
            root: the project's folder.
            imports: local name to what it stands for.
            relative: those of them that are relative: the number of dots, and what follows them.
        """
        folder = os.path.dirname(os.path.abspath(path))
        found = dict(imports)
        for local, full in imports.items():
            if local not in relative:
                found[local] = self._absolute(folder, root, full) or full
        for local, (level, name) in relative.items():
            base = folder
            for _ in range(level - 1):
                base = os.path.dirname(base)
            found[local] = _named(base, root, name) or name
        return found

    def _absolute(self, folder: str, root: str, full: str) -> str | None:
        """The project's name for an absolute import, which is looked for beside the file and in every folder up to the project's."""
        head = full.partition(".")[0]
        packaged = "__init__.py" in self.disk.names(folder)
        current = os.path.dirname(folder) if packaged and folder != root else folder
        for _ in range(MAX_CLIMB):
            if not current.startswith(root):
                break
            if self._holds(current, head):
                return _named(current, root, full)
            if current == root:
                break
            current = os.path.dirname(current)
        source = os.path.join(root, "src")
        return _named(source, root, full) if "src" in self.disk.names(root) and self._holds(source, head) else None

    def _holds(self, folder: str, name: str) -> bool:
        """Whether a folder has a module or package of this name: a file, or a folder with Python files."""
        names = self.disk.names(folder)
        if f"{name}.py" in names:
            return True
        return name in names and any(entry.endswith(".py") for entry in self.disk.names(os.path.join(folder, name)))

    def find(self, full: str, root: str, allowance: Allowance) -> Place | None:
        """The definition that a name of the project means, through any re-exports; None when there is none.

        Args:
            full: dotted, from the project's folder.
            root: the project's folder.
            allowance: of the file that asks.
        """
        for _ in range(MAX_HOPS):
            found = self._file(full, root, allowance)
            if found is None:
                return None
            outline, rest = found
            head, _, tail = rest.partition(".")
            if head in outline.definitions:
                return None if tail else Place(outline, head, f"{outline.module}.{head}")
            target = self._imported(outline, head, root).get(head) or self._starred(outline, head, root, allowance)
            if target is None or target == full:
                return None
            full = f"{target}.{tail}" if tail else target
        return None

    def _starred(self, outline: Outline, name: str, root: str, allowance: Allowance) -> str | None:
        """The full name of something that `from module import *` brings in."""
        for local, module in self._imported(outline, "*", root).items():
            found = self._file(f"{module}.{name}", root, allowance) if local.startswith("*") else None
            if found is not None and (name in found[0].definitions or name in found[0].imported(name).full):
                return f"{module}.{name}"
        return None

    def _file(self, full: str, root: str, allowance: Allowance) -> tuple[Outline, str] | None:
        """The file that a name leads into, and what is left of the name there."""
        if not allowance.look_up():
            return None
        path, rest = self._path(full, root)
        found = self.outline(path, root) if path else None
        allowance.read(found)
        return (found, rest) if found else None

    def _path(self, full: str, root: str) -> tuple[str, str]:
        """Where the file is that a name leads into, empty if there is none, and what is left of the name there."""
        folder, parts = root, full.split(".")
        for index, part in enumerate(parts[:-1]):
            rest, names = ".".join(parts[index + 1 :]), self.disk.names(folder)
            if f"{part}.py" in names:
                return os.path.join(folder, f"{part}.py"), rest
            if part not in names:
                break
            folder = os.path.join(folder, part)
            if "__init__.py" in self.disk.names(folder) and not self._holds(folder, parts[index + 1]):
                return os.path.join(folder, "__init__.py"), rest
        return "", ""

    def outline(self, path: str, root: str) -> Outline | None:
        """The outline of a file; None when it cannot be read, or is no part of the project after all."""
        key = (path, root)
        if key not in self._outlines:
            self._make_room()
            with self.disk.tracing() as trace:
                self._outlines[key] = self._read(path, root), trace
            read = self._outlines[key][0]
            self._kept += sys.getsizeof(read.text) if read is not None else 0
        found, trace = self._outlines[key] = self._outlines.pop(key)  # what was asked for last goes last
        self.disk.trace.add(trace)
        return found

    def _make_room(self) -> None:
        """Let go of outlines that nobody has asked for lately, beyond the limit."""
        while self._kept > self.limits.kept:
            key, (gone, _) = next(iter(self._outlines.items()))
            del self._outlines[key]
            self._scopes.pop(key, None)
            self._kept -= sys.getsizeof(gone.text) if gone is not None else 0

    def _read(self, path: str, root: str) -> Outline | None:
        text = self.disk.text(path, root)
        if not text:
            return None
        return outline(path, root, text)

    def _imported(self, outline: Outline, word: str, root: str) -> dict[str, str]:
        """What a file imports under a name, or from where all things (`*`), by the names that things have in the project."""
        found = outline.imported(word)
        full = {local: name for local, name in found.full.items() if local == word or (word == "*" and local.startswith("*"))}
        return self.names(outline.path, root, full, {local: found.relative[local] for local in full if local in found.relative})

    def scope(self, outline: Outline, root: str) -> dict[str, str]:
        """What names of a file stand for: its imports and its own definitions, by the names that things have in the project."""
        key = (outline.path, root)
        if key not in self._scopes:
            with self.disk.tracing() as trace:
                imports = self.names(outline.path, root, outline.imports.full, outline.imports.relative)
            self._scopes[key] = {**imports, **{name: f"{outline.module}.{name}" for name in outline.definitions}}, trace
        found, trace = self._scopes[key]
        self.disk.trace.add(trace)
        return found


def _named(folder: str, root: str, name: str) -> str | None:
    """The name of something in a folder as seen from the project's; None outside of it."""
    inside = _dotted(folder, root)
    if inside is None or not name:
        return None
    return f"{inside}.{name}" if inside else name


@lru_cache(maxsize=1024)
def _dotted(folder: str, root: str) -> str | None:
    """A folder as a dotted name, empty for the project's own; None outside of it. Many names are asked for in few folders."""
    inside = os.path.relpath(folder, root)
    if inside.startswith(os.pardir):
        return None
    return "" if inside == os.curdir else inside.replace(os.sep, ".")
