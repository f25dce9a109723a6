"""Who in the project calls a function of the checked file: asked only when something is about to be reported."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from flake8_torchmem.analysis import gate, ir
from flake8_torchmem.analysis.lower import lower
from flake8_torchmem.analysis.project import Project
from flake8_torchmem.source import Slices, SourceError, parse

MAX_DEPTH = 3


class Importers:
    """The other files of a project, as users of one of them.

    Args:
        project: reads the files.
        root: the project's folder.
        path: the checked file.
    """

    def __init__(self, project: Project, root: str, path: str) -> None:
        self.project = project
        self.root = root
        self.path = os.path.abspath(path)
        self.module = os.path.splitext(os.path.basename(path))[0]
        if self.module == "__init__":
            self.module = os.path.basename(os.path.dirname(self.path))

    def guard(self, function: ir.Function) -> bool:
        """Whether the function is called from other files, and never with gradients on."""
        return self._guard(function.name, function.owner.name if function.owner else self.module, {self.path}, 0)

    def _guard(self, name: str, beside: str, seen: set[str], depth: int) -> bool:
        calls = list(self._calls(name, beside, seen)) if depth < MAX_DEPTH else []
        return bool(calls) and all(
            call.ctx.grad is not ir.Grad.ON or (caller.name != "<module>" and self._guard(caller.name, stem, seen | {path}, depth + 1))
            for call, caller, path, stem in calls
        )

    def _calls(self, name: str, beside: str, seen: set[str]) -> Iterator[tuple[ir.Call, ir.Function, str, str]]:
        """Calls by this name in files that also speak of the class, or of the module, that it belongs to."""
        called, spoken = re.compile(rf"\b{re.escape(name)}\s*\("), re.compile(rf"\b{re.escape(beside)}\b")
        for path, text in self.project.disk.texts(self.root):
            if path in seen or name not in text or not (called.search(text) and spoken.search(text)):
                continue
            stem = os.path.splitext(os.path.basename(path))[0]
            for function in self._lowered(path, text, called):
                for event in function.events():
                    if isinstance(event, ir.Invoke) and event.call.method == name and function.name != name:
                        yield event.call, function, path, stem

    def _lowered(self, path: str, text: str, called: re.Pattern[str]) -> Iterator[ir.Function]:
        """The functions of a file that a pattern is found in."""
        try:
            selection = gate.matching(text, parse(text), called)
        except SourceError:
            return iter(())
        program = lower(Slices(text, selection).modules(), ir.File(path, selection.imports, linked=True))
        return program.all_functions()

    def speak(self, function: ir.Function, pattern: re.Pattern[str]) -> bool:
        """Whether a file that names the function, or its class, has this in its text: who is meant is not asked."""
        name = function.owner.name if function.owner else function.name
        used = re.compile(rf"\b{re.escape(name)}\b")
        texts = (text for path, text in self.project.disk.texts(self.root) if path != self.path and name in text)
        return any(pattern.search(text) is not None and used.search(text) is not None for text in texts)
