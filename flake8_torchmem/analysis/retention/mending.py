"""How what is kept lets go of its graph: which part of a stored value, and whether as a number or as a detached tensor."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.loading.placement import Place
from flake8_torchmem.analysis.retention.collected import stays_on_device
from flake8_torchmem.analysis.retention.later_uses import Use
from flake8_torchmem.analysis.retention.shown import NUMBERS, Shown, gives_default
from flake8_torchmem.analysis.values import PLAIN, Kind, Values
from flake8_torchmem.model import Safety
from flake8_torchmem.remedies import Action, NoRemedy, Remedy, Rewrite, Role, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.retention.lifetime import Growth

Wanted = Callable[[ir.Expr, ir.Event], bool]
DETACH, ITEM, TO_HOST = "{}.detach()", "{}.item()", "{}.detach().cpu()"
SEVERAL = "whether what is stored is one tensor, or a tuple or dict of several, is not in sight"
SPREAD = "what is stored is spread from another container"


class Stored(NamedTuple):
    """A value where a statement or call stores it.

    Attributes:
        event: the store.
        value: what is stored.
        role: how the value is found at the event's site.
        container: what it goes into, where later uses may show what it is.
        home: the function that the container is seen from, if it is another one.
    """

    event: ir.Event
    value: ir.Expr
    role: Role
    container: str = ""
    home: ir.Function | None = None


def stored(event: ir.Event) -> Stored | None:
    """What an assignment, an addition or a growing call stores."""
    called = event.site.extent is not None
    if isinstance(event, ir.Store):
        return Stored(event, event.value, Role.ARGUMENT if called else Role.VALUE, event.place)
    if isinstance(event, ir.Bind):
        return Stored(event, event.delta or event.value, Role.ARGUMENT if called else Role.VALUE, event.place)
    if isinstance(event, ir.Invoke) and event.call.args:
        return Stored(event, event.call.args[-1], Role.ARGUMENT)  # `copy_`
    return None


class Mending:
    """Finds remedies in one function.

    Args:
        facts: of the file.
        function: where the stores are.
        values: of the function, where more is known of its parameters.
        tensors: names of variables that are known to be tensors.
    """

    def __init__(
        self, facts: FileFacts, function: ir.Function, values: Values | None = None, tensors: frozenset[str] = frozenset()
    ) -> None:
        self.facts = facts
        self.function = function
        self.values = values or facts.values(function)
        self.shown = Shown(facts, function, values=values, tensors=tensors)

    def detached(self, found: Stored | None, template: str = DETACH, wanted: Wanted | None = None, sure: bool = False) -> Remedy | NoRemedy:
        """The remedy for a container that takes up tensors: each part with a graph goes in without.

        Args:
            found: the store.
            template: what is made of each part.
            wanted: which parts, if not those with graphs.
            sure: what is stored is a tensor, as the place takes nothing else.
        """
        if found is None:
            return NoRemedy(SEVERAL)
        parts = list(self._parts(found.value, "", found.event, wanted or self._has_graph))
        if not parts or any(expr is None for _, expr in parts):
            return NoRemedy(SPREAD if parts else SEVERAL)
        actions = []
        for path, expr in parts:
            if expr is None or not (sure or self.shown.tensor(expr, found.event) or (not path and self._uses_show_tensors(found))):
                return NoRemedy(SEVERAL)
            actions.append(Rewrite(found.event.site, found.role, template, path))
        return remedy(*actions)

    def grown(self, growth: Growth) -> Remedy | NoRemedy:
        """The remedy for a container that grows: outputs that would pile up on the device go to the host as well."""
        on_device = stays_on_device(self.facts, self.function, growth)
        found = self.detached(stored(growth.event), TO_HOST if on_device else DETACH)
        return replace(found, safety=Safety.UNSAFE) if on_device and isinstance(found, Remedy) else found

    def comprehended(self, comp: ir.Comp, event: ir.Event, template: str = DETACH) -> Remedy | NoRemedy:
        """The remedy for a list that a comprehension builds."""
        element = comp.element
        placement, outputs = self.facts.placement(self.function), self.facts.outputs(self.function)
        device = placement.at(element, event) is Place.DEVICE and outputs.at(element, event)
        place = event.place if isinstance(event, ir.Bind) and event.value is comp else ""
        tensors = self.shown.tensor(element, event) or self._uses_show_tensors(Stored(event, element, Role.WHOLE, place))
        if not isinstance(element, ir.Call) or not tensors:
            return NoRemedy(SEVERAL)
        if device and template == DETACH:
            return remedy(Rewrite(element.site, Role.WHOLE, TO_HOST), safety=Safety.UNSAFE)
        return remedy(Rewrite(element.site, Role.WHOLE, template))

    def reported(self, event: ir.Return) -> Remedy | NoRemedy:
        """The remedy for what a step returns to a framework: all but the loss, which the framework back-propagates."""
        value = event.value
        if not isinstance(value, ir.Seq):
            return NoRemedy(SEVERAL)
        others = [index for index, key in enumerate(value.keys) if isinstance(key, ir.Const) and key.value not in ("loss", "hiddens")]
        found = [part for index in others for part in self._parts(value.items[index], f"[{_key(value, index)!r}]", event, self._has_graph)]
        if not found or not all(expr is not None and self.shown.tensor(expr, event) for _, expr in found):
            return NoRemedy(SEVERAL)
        return remedy(*(Rewrite(event.site, Role.VALUE, DETACH, path) for path, _ in found))

    def _has_graph(self, expr: ir.Expr, event: ir.Event) -> bool:
        return self.values.at(expr, event) is Kind.GRAPH

    def _parts(self, value: ir.Expr, path: str, event: ir.Event, wanted: Wanted) -> Iterator[tuple[str, ir.Expr | None]]:
        """The wanted parts of a display, with the way to them; None for what cannot be named."""
        if not isinstance(value, ir.Seq):
            if wanted(value, event):
                yield path, value
            return
        for index, item in enumerate(value.items):
            key: object = index
            if value.kind == "dict":
                key = _key(value, index)
            found = list(self._parts(item, f"{path}[{key!r}]", event, wanted))
            yield from (((part, None) for part, _ in found) if key is None or value.kind == "set" else found)

    def _uses_show_tensors(self, found: Stored) -> bool:
        """Whether what the container is used for later takes one tensor per element."""
        if not found.container or (isinstance(found.event, ir.Store) and found.event.kind == "extend"):
            return False
        if self.shown.varies(found.value, found.event):
            return False
        home = found.home or self.function
        uses = self.facts.later_uses(home, found.container, True).uses
        made = [bind.value for bind in bound_anywhere(self.facts, home, found.container)]
        appended = isinstance(found.event, ir.Store) and found.event.kind == "append"
        return Use.METHOD in uses or (appended and Use.JOINED in uses and bool(made) and all(map(_is_dict, made)))  # `d[key].append(x)`

    def summed(self, growth: Growth) -> Remedy | NoRemedy:
        """The remedy for a sum: a number where every later use wants one and the value is surely a single one, else a detached tensor."""
        event, place = growth.event, growth.place
        found = stored(event)
        if found is None:
            return NoRemedy(SEVERAL)
        boxed = isinstance(event, ir.Store)
        uses = self.facts.later_uses(self.function, place, boxed)
        by_call = isinstance(event, ir.Bind) and not isinstance(event.value, ir.Op)  # `torch.add(total, x)` takes no number
        numbers = uses.wants_number and not by_call and found.role is Role.VALUE and self._starts_as_number(event, place)
        told = Use.SINGLE in uses.uses and not boxed  # what is shown of one entry says nothing of the others
        single = numbers and (told or self.shown.single(growth.value, event))
        return self._rewritten(found, growth.value, ITEM if single else DETACH, summed=True)

    def given(self, event: ir.Invoke, kept: list[tuple[str, ir.Expr]], callee: ir.Function, summed: bool) -> Remedy | NoRemedy:
        """The remedy for arguments that a method keeps: by what the method, and whoever reads them there, does with each."""
        actions: list[Action] = []
        for param, arg in kept:
            uses = self.facts.later_uses(callee, param)
            single = summed and uses.wants_number and self.shown.single(arg, event)
            sure = summed or Use.METHOD in uses.uses
            found = self._rewritten(Stored(event, event.call, Role.WHOLE), arg, ITEM if single else DETACH, sure)
            if isinstance(found, NoRemedy):
                return found
            actions += found.actions
        return remedy(*actions)

    def _rewritten(self, found: Stored, value: ir.Expr, template: str, summed: bool) -> Remedy | NoRemedy:
        """Each term of a value that has a graph is written anew where that is possible, else the whole."""
        event = found.event
        terms = list(self._terms(value, event))
        if not all(self.shown.tensor(term, event) or (summed and self._adds(term, event)) for term in terms):
            return NoRemedy(f"whether {_spelled(terms)} is one tensor is not in sight")
        if not summed and isinstance(value, ir.Seq):
            return NoRemedy(SEVERAL)
        actions = []
        for term in dict.fromkeys(terms):
            once = isinstance(term, ir.Name) and sum(term.path in paths.prefixes(name) for name in ir.names(found.value)) == 1
            if isinstance(term, ir.Name) and once:
                actions.append(Rewrite(event.site, found.role, template, term.path))
            elif isinstance(term, ir.Call):
                actions.append(Rewrite(term.site, Role.WHOLE, template))
            elif found.role is Role.WHOLE:
                return NoRemedy(f"{_spelled(terms)} cannot be told from the other arguments")
            else:
                return remedy(Rewrite(event.site, found.role, template))
        return remedy(*actions)

    def _terms(self, value: ir.Expr, event: ir.Event) -> Iterator[ir.Expr]:
        """The terms of a value that carry its graph; of a product with numbers the one factor."""
        if isinstance(value, ir.Op) and value.op in ("+", "-", "*", "/", "neg"):
            kinds = {id(arg): self.values.at(arg, event) for arg in value.args}
            carrying = [arg for arg in value.args if kinds[id(arg)] is Kind.GRAPH]
            numbers = all(kinds[id(arg)] in NUMBERS for arg in value.args if arg not in carrying)
            apart = value.op in ("+", "-", "neg") and all(kind in PLAIN or kind is Kind.GRAPH for kind in kinds.values())
            if carrying and (apart or (len(carrying) == 1 and numbers)):
                for arg in carrying:
                    yield from self._terms(arg, event)
                return
        yield value

    def _adds(self, term: ir.Expr, event: ir.Event) -> bool:
        """Whether what is added to a number or tensor, and has a graph, is a tensor: it is not taken out of a result of several."""
        if isinstance(event, ir.Bind):
            starts = [bind.value for bind in bound_anywhere(self.facts, self.function, event.place) if bind is not event]
            if any(isinstance(start, (ir.Seq, ir.Comp)) for start in starts):
                return False
        return self._made_whole(term, event)

    def _made_whole(self, expr: ir.Expr, event: ir.Event) -> bool:
        """Whether a value has its graph from what made it, on every path, and is no part of a tuple."""
        if self.shown.tensor(expr, event):
            return True
        if isinstance(expr, ir.Name):
            binds = self.shown.at.get(event, {}).get(expr.path)
            if not binds:
                return self.values.at(expr, event) is Kind.GRAPH and not expr.path.endswith("]")
            return all(
                self.values.bound(bind) is Kind.GRAPH if bind.kind == "target" else self._made_whole(bind.value, bind) for bind in binds
            )
        if isinstance(expr, ir.Op):
            parts = [self._made_whole(arg, event) for arg in (expr.args[1:] if expr.op == "if" else expr.args)]
            return all(parts) if expr.op == "if" or expr.op in ir.BOOLEAN else any(parts)
        if isinstance(expr, ir.Call):
            by_default = gives_default(expr) or self.facts.bindings.callee(expr, self.function) is not None
            return not by_default and self.values.at(expr, event) is Kind.GRAPH
        return isinstance(expr, ir.Attr) and self.values.at(expr, event) is Kind.GRAPH

    def _starts_as_number(self, event: ir.Event, place: str) -> bool:
        """Whether the sum is nowhere given a tensor to start from."""
        for bind in bound_anywhere(self.facts, self.function, place):
            starts = bind is not event and bind.kind == "assign" and place not in ir.names(bind.value)
            if starts and self.facts.values(self.function).bound(bind) not in NUMBERS:
                return False
        return True


def bound_anywhere(facts: FileFacts, function: ir.Function, place: str) -> list[ir.Bind]:
    """All bindings of a place: in the functions around, in the module, and in the methods that share its object."""
    scopes = [function, *(facts.bindings.relatives(function) if place.startswith("self.") else ())]
    scope = function.parent
    while scope is not None:
        scopes.append(scope)
        scope = scope.parent
    if facts.program.module is not None and paths.root(place) not in function.params:
        scopes.append(facts.program.module)
    return [bind for each in dict.fromkeys(scopes) for bind in facts.bindings.assigned(each).get(place, ())]


def _is_dict(value: ir.Expr) -> bool:
    return (isinstance(value, ir.Seq) and value.kind == "dict") or (isinstance(value, ir.Call) and value.method in ("dict", "defaultdict"))


def _key(value: ir.Seq, index: int) -> object:
    """The key of a dict display's entry, as far as it is written out."""
    key = value.keys[index]
    return key.value if isinstance(key, ir.Const) else None


def _spelled(terms: list[ir.Expr]) -> str:
    named = [term.path for term in terms if isinstance(term, ir.Name)]
    return f"`{named[0]}`" if named else "the value"
