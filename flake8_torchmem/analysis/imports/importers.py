"""Who in the project calls a function of the checked file: asked only when something is about to be reported."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from flake8_torchmem.analysis import gate, ir
from flake8_torchmem.analysis.imports.project import Allowance, Project
from flake8_torchmem.analysis.lower import lower
from flake8_torchmem.source import SourceError, parse

MAX_DEPTH = 3
MAX_CALLERS = 40
MAX_ASKED = 200  # functions whose callers are looked for: each is a search through the project


class Importers:
    """The other files of a project, as users of one of them.

    Args:
        program: the checked file; callers are added to it.
        project: reads the files.
        root: the project's folder.
    """

    def __init__(self, program: ir.Program, project: Project, root: str) -> None:
        self.program = program
        self.project = project
        self.root = root
        self.left = MAX_CALLERS
        self.allowance = Allowance(project.limits.read)

    def link(self, functions: Iterable[ir.Function]) -> bool:
        """Add the callers of functions in other files, and theirs; whether there are any.

        A call is one of the function if it goes by its name, in a file that also speaks of its class or module: whose
        method is called cannot always be seen.
        """
        pending = deque((function, self._path(function.file), 0) for function in dict.fromkeys(functions))
        asked: set[tuple[str, str]] = set()
        while pending and len(asked) < MAX_ASKED:
            function, path, depth = pending.popleft()
            if depth >= MAX_DEPTH or function.name == "<module>" or (path, function.name) in asked:
                continue
            asked.add((path, function.name))
            for caller, call, _ in self._made(function, path) if depth == 0 else ():
                init = function.owner.methods.get("__init__") if function.owner else None
                if init is not None:
                    self.program.outside.setdefault(init, []).append((caller, call))
            for caller, call, where in self._calls(function, path, inside=depth > 0):
                self.program.outside.setdefault(function, []).append((caller, call))
                pending.append((caller, where, depth + 1))
        return bool(self.program.outside)

    def _path(self, file: ir.File) -> str:
        """Where a file is: others than the checked one are named from the project's folder."""
        return os.path.join(self.root, file.name) if file.linked else os.path.abspath(file.name)

    def _calls(self, function: ir.Function, home: str, inside: bool) -> Iterator[tuple[ir.Function, ir.Call, str]]:
        beside = function.owner.name if function.owner else _module(home)
        yield from self._called(function.name, beside, home, inside)

    def _made(self, function: ir.Function, home: str) -> Iterator[tuple[ir.Function, ir.Call, str]]:
        """Where objects of a method's class are made: what happens to their attributes is seen there."""
        if function.owner is not None and function.name != "__init__":
            yield from self._called(function.owner.name, _module(home), home)

    def _called(self, name: str, beside: str, home: str, inside: bool = False) -> Iterator[tuple[ir.Function, ir.Call, str]]:
        """Calls by a name in other files that speak of what it belongs to; `inside`: in its own file as well."""
        called, spoken = re.compile(rf"\b{re.escape(name)}\s*\("), re.compile(rf"\b{re.escape(beside)}\b")
        own = [(home, self.project.disk.text(home, self.root))] if inside else []
        others = ((path, text) for path, text in self.project.disk.texts(self.root, name, beside) if path != home and spoken.search(text))
        for path, text in chain(own, others):
            if self.left <= 0 or self.allowance.left <= 0:
                return
            if not called.search(text):
                continue
            self.allowance.pay(len(text))
            program = self._lowered(path, text, called)
            if program is None:
                continue
            self.program.added.append(program)
            for caller in program.all_functions():
                calls = [event.call for event in caller.calls() if event.call.method == name]
                if calls and caller.name != name:
                    self.left -= 1
                    self.program.add(program)
                    yield from ((caller, call, path) for call in calls)

    def _lowered(self, path: str, text: str, called: re.Pattern[str]) -> ir.Program | None:
        """The definitions and statements of a file in which a pattern is found."""
        try:
            selection = gate.matching(text, parse(text), called, self.program.file.own)
        except SourceError:
            return None
        # What a file defines itself may be what it hands over.
        outline = self.project.outline(path, self.root)
        own = self.project.scope(outline, self.root) if outline is not None else {}
        names = own | self.project.names(path, self.root, selection.imports, selection.relative)
        return lower(selection.body, ir.File(os.path.relpath(path, self.root), names, True, self.program.file.own))


def _module(path: str) -> str:
    """The name that a file is imported by: its own, or that of the package."""
    stem = os.path.splitext(os.path.basename(path))[0]
    return os.path.basename(os.path.dirname(path)) if stem == "__init__" else stem
