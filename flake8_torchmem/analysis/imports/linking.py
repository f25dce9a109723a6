"""Definitions that a file imports from its project, lowered and put beside its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import gate, ir, paths
from flake8_torchmem.analysis.imports.project import Allowance, Definition, Place, Project
from flake8_torchmem.analysis.lower import lower
from flake8_torchmem.analysis.objects import annotated
from flake8_torchmem.lazy import Words, regex
from flake8_torchmem.model import Span
from flake8_torchmem.ownnames import OwnNames
from flake8_torchmem.source import Places

# What a long function must speak of to change gradients, to detach tensors, or to guard; short ones are read in any case.
SPEAKS = regex(r"backward|zero_grad|\.step\(|\.grad\b|no_grad|inference_mode|set_grad_enabled|detach\(|\.item\(")
SHORT = 1_200
# Questions and announcements change nothing.
IDLE = Words(r"^_?(?:is|has|requires?|get_logger|log|print|warn|deprecat\w*|add_\w*docstring\w*)(?:_|$)")
MAX_DEFINITION = 60_000


@dataclass(eq=False)
class Linked:
    """What linking adds to the facts of a file.

    Attributes:
        bases: full base names of linked classes.
        guarded: linked classes whose calls run without gradients by themselves.
        places: where the definitions of each linked file object are.
    """

    bases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    guarded: set[str] = field(default_factory=set)
    places: dict[ir.File, Place] = field(default_factory=dict)

    def locate(self, site: ir.Site) -> Span | None:
        """Where a site is in its linked file; None when it cannot be found again."""
        return Places(self.places[site.file].outline.text).locate(site)


class Linker:
    """Follows the imports of one file.

    Args:
        program: the file; definitions are added to it.
        project: where they are found.
        root: the project's folder.
    """

    def __init__(self, program: ir.Program, project: Project, root: str) -> None:
        self.program = program
        self.project = project
        self.root = root
        self.path = os.path.abspath(program.file.name)
        self.linked = Linked()
        self.own: dict[str, tuple[str, ...]] = {}
        self.done: set[str] = set()
        self.left = project.limits.definitions
        self.characters = project.limits.characters
        self.allowance = Allowance(project.limits.read)

    def link(self, bases: dict[str, tuple[str, ...]]) -> Linked:
        """Add what the file calls and derives from, and what that calls, to the limits of the project.

        Args:
            bases: full base names of the file's own classes.
        """
        self.own = bases
        wanted = [base for names in bases.values() for base in names]
        pending = deque((name, 0) for name in [*wanted, *self._called(self.program.all_functions())])
        while pending:
            name, depth = pending.popleft()
            if name in self.done or depth >= self.project.limits.depth:
                continue
            self.done.add(name)
            pending.extend((further, depth + 1) for further in self._add(name))
        return self.linked

    def _called(self, functions: Iterator[ir.Function]) -> Iterator[str]:
        """Full names of what functions call, or name as the class of something, where it may be an import."""
        for function in functions:
            imported = function.file.imports
            found = [path for path in (*_calls(function), *_classes(function)) if paths.root(path) in imported]
            hidden = _locals(function) if found else ()
            yield from (torchapi.resolve(path, imported) for path in found if paths.root(path) not in hidden)

    def _add(self, name: str) -> Iterator[str]:
        """Link one name; yields what its definition needs in turn."""
        if self.left <= 0 or torchapi.MODULE_BASE.search(name) or IDLE.search(torchapi.last(name)):
            return
        place = self.project.find(name, self.root, self.allowance)
        if place is None:
            return
        if place.outline.path == self.path and self._leads_back(name, place.name):
            return
        size = place.outline.size(place.name)
        if size > min(self.characters, MAX_DEFINITION) or not (
            size < SHORT or SPEAKS.search(self.program.file.own.spelled(place.outline.source(place.name)))
        ):
            return
        self.left -= 1
        self.characters -= size
        definition = self.project.definition(place, self.root, self._read)
        if definition is None:
            return
        self.linked.places[definition.program.file] = place
        for spelled in dict.fromkeys((name, place.full)):
            self._register(spelled, place.name, definition)
        yield from (base for names in definition.bases.values() for base in names)
        yield from self._called(definition.program.all_functions())

    def _read(self, place: Place, scope: dict[str, str]) -> Definition | None:
        return read(place, scope, self.program.file.own)

    def _leads_back(self, spelled: str, name: str) -> bool:
        """Whether an import of an imported file means something of the checked one that is lowered already."""
        if name in self.program.functions:
            self.program.functions[spelled] = self.program.functions[name]
        elif name in self.program.classes:
            self.program.classes[spelled] = self.program.classes[name]
            self.linked.bases[spelled] = self.own.get(name, ())
        return spelled in self.program.functions or spelled in self.program.classes

    def _register(self, spelled: str, name: str, definition: Definition) -> None:
        program = definition.program
        if name in program.functions:
            self.program.functions[spelled] = program.functions[name]
        if name in definition.bases:
            self.program.classes[spelled] = program.classes.get(name) or ir.Class(name, definition.bases[name], program.file)
            self.linked.bases[spelled] = definition.bases[name]
        if name in definition.guarded:
            self.linked.guarded.add(spelled)


def read(place: Place, scope: dict[str, str], own: OwnNames) -> Definition | None:
    """Parse and lower one definition; None when it cannot be parsed.

    Args:
        place: where it is.
        scope: what names stand for in its file.
        own: names for what PyTorch does.
    """
    outline = place.outline
    tree = outline.parse(place.name)
    if tree is None:
        return None
    selection = gate.whole(outline.text, tree, scope, own)
    program = lower(selection.body, ir.File(outline.shown, scope, True, own))
    bases = {cls: tuple(torchapi.resolve(base, scope) for base in names) for cls, names in selection.bases.items()}
    return Definition(program, bases, selection.guarded)


def _calls(function: ir.Function) -> Iterator[str]:
    for event in function.events():
        call = event.call if isinstance(event, (ir.Invoke, ir.Step, ir.Backward, ir.Zero)) else None
        yield from filter(None, (call.path, _collate_function(call)) if call is not None else ())


def _classes(function: ir.Function) -> Iterator[str]:
    """Names that are written as those of classes, in annotations and as arguments: `defaultdict(AverageMeter)`."""
    calls = (event.call for event in function.calls())
    arguments = (arg.path for call in calls for arg in call.args if isinstance(arg, ir.Name))
    declared = (name for annotation in function.annotations.values() for name in annotated(annotation))
    return (path for path in (*arguments, *declared) if torchapi.last(path)[:1].isupper())


def _collate_function(call: ir.Call) -> str | None:
    """What a loader is given to call."""
    given = call.kwargs.get("collate_fn")
    return given.path if isinstance(given, ir.Name) else None


def _locals(function: ir.Function) -> set[str]:
    """Names that hide imports in a function: its own and those of the functions around it."""
    return {name for scope in function.scopes() if scope.name != "<module>" for name in scope.locals}
