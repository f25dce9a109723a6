"""Clipped gradients: whether they are there, unscaled and unused when they are clipped."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import conditions, ir
from flake8_torchmem.analysis.flow import following
from flake8_torchmem.analysis.gradients.callees import HOLDERS
from flake8_torchmem.analysis.memo import memoized
from flake8_torchmem.lazy import Words

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

CLIP_FUNCTIONS = frozenset({"clip_grad_norm_", "clip_grad_norm", "clip_grad_value_", "clip_grads_with_norm_"})
CLIPS_IN_PLACE = Words(r"\.grad(?:\.data)?\.(?:clamp|clip)_$")
CLIP_METHODS = frozenset({"clip_grad_norm_", "clip_grad_value_", "clip_gradients"})
# Accelerate and Lightning unscale by themselves before they clip.
UNSCALES_FIRST = Words(r"accelerator|fabric|^self$|trainer|engine", re.I)
MAY_TRAIN = Words(r"train|learn|update|step|fit", re.I)
MEASURES_FROM = 1000


class Misplaced(NamedTuple):
    """A clip in the wrong place.

    Attributes:
        clip: the call.
        kind: scaled, late or early.
        step: which uses gradients that were not clipped as meant.
        cause: what comes in the wrong order: the unscaling after the clip, or the backward; None where there is none.
    """

    clip: ir.Event
    kind: str
    step: ir.Step
    cause: ir.Event | None = None


class Clipping:
    """The clips of one function, judged by what can precede and follow them in a turn.

    Args:
        facts: of the file.
        function: where to look.
    """

    def __init__(self, facts: FileFacts, function: ir.Function) -> None:
        self.facts = facts
        self.function = function
        self.events = tuple(function.events())
        self.steps = tuple(event for event in self.events if isinstance(event, ir.Step) and self._is_plain(event))

    @cached_property
    def clips(self) -> tuple[ir.Event, ...]:
        """What clips and does nothing else."""
        return tuple(event for event in self.events if self.does(event) == {"clip"} and not event.ctx.handler)

    @cached_property
    def _places(self) -> dict[ir.Event, tuple[ir.Block, int]]:
        """The first block that holds an event, and where in it."""
        blocks = reversed(self.function.blocks)
        return {event: (block, index) for block in blocks for index, event in reversed(tuple(enumerate(block.events)))}

    @cached_property
    def _leads_to(self) -> dict[ir.Block, list[ir.Block]]:
        """The blocks before each block, loops not starting over."""
        found: dict[ir.Block, list[ir.Block]] = {}
        for block in self.function.blocks:
            for edge in block.edges:
                if edge.turn is None:
                    found.setdefault(edge.target, []).append(block)
        return found

    def misplaced(self) -> Iterator[Misplaced]:
        """Clips in the wrong place, each once."""
        for clip in self.clips if self.steps and self.facts.clips else ():
            found = self._scaled(clip) or self._late(clip) or self._early(clip)
            if found is not None:
                yield found

    @memoized
    def after(self, event: ir.Event) -> frozenset[ir.Event]:
        """What can follow an event in its turn."""
        return frozenset(following(self.function, event))

    def before(self, event: ir.Event) -> Iterator[ir.Event]:
        """What can precede an event in its turn, in source order."""
        home, index = self._places[event]
        earlier, pending = {home}, [home]
        while pending:
            more = [block for block in self._leads_to.get(pending.pop(), ()) if block not in earlier]
            earlier.update(more)
            pending += more
        for other in self.events:
            block, at = self._places[other]
            if at < index if block is home else block in earlier:
                yield other

    @memoized
    def does(self, event: ir.Event) -> frozenset[str]:
        """Which of backward, step, zero, clip, unscale an event is or leads to; `?` when it may train out of sight."""
        call = getattr(event, "call", None)
        callee = self.facts.bindings.callee(call, self.function) if call is not None else None
        if callee is not None and callee is not self.function:
            return self.facts.clip_effects[callee]
        return _own_effect(self.facts, self.function, event)

    def _is_plain(self, step: ir.Step) -> bool:
        """Whether an optimizer steps here with the gradients that it finds."""
        known = step.call is None or self.facts.bindings.callee(step.call, self.function) is None
        return known and not step.closure and self.facts.bindings.is_optimizer(step.owner, self.function)

    def _scaled(self, clip: ir.Event) -> Misplaced | None:
        """The next step is a scaler's, and nothing has unscaled what its backward made."""
        if _unscales_first(clip) or any("unscale" in self.does(event) for event in self.before(clip)) or self._scale_is_known(clip):
            return None
        step = next((step for step in self._next_steps(clip) if _by_scaler(self.facts, self.function, step)), None)
        if step is None or not self._backward_is_scaled(clip) or any(self._may_unscale(event, step) for event in self.before(clip)):
            return None
        unscales = (event for event in self.events if event in self.after(clip) and "unscale" in self.does(event))
        return Misplaced(clip, "scaled", step, next((event for event in unscales if step in self.after(event)), None))

    def _may_unscale(self, event: ir.Event, step: ir.Step) -> bool:
        """Whether something out of sight gets the optimizer or the scaler in hand after the backward."""
        if (
            not isinstance(event, ir.Invoke)
            or self.facts.bindings.callee(event.call, self.function) is not None
            or self.does(event) == {"clip"}
        ):
            return False
        scaler = step.call.receiver if step.call is not None else None
        wanted = {step.owner, scaler.path if isinstance(scaler, ir.Name) else step.owner}
        cls = self.function.owner
        inherited = event.call.path == f"self.{event.call.method}" and cls is not None and not self.facts.bindings.complete(cls)
        if not inherited and not any(isinstance(arg, ir.Name) and arg.path in wanted for arg in event.call.operands):
            return False
        return any(event in self.after(other) for other in self.events if "backward" in self.does(other))

    def _next_steps(self, clip: ir.Event) -> Iterator[ir.Step]:
        """Steps that follow with no other between."""
        steps = [step for step in self.steps if step in self.after(clip) and compatible(clip, step)]
        return (step for step in steps if not any(step in self.after(other) for other in steps))

    def _scale_is_known(self, clip: ir.Event) -> bool:
        """Whether the scale is taken out, or multiplied into the threshold, by hand."""
        reads = (path for event in self.events for path in ir.reads(event))
        return any("get_scale" in path or "inv_scale" in path for path in reads) or any(
            "scale" in path.lower() for path in _arguments(clip)
        )

    def _backward_is_scaled(self, clip: ir.Event) -> bool:
        """Whether a scaled backward leads to the clip; where none is in sight, nothing around may unscale."""
        backwards = [event for event in self.events if "backward" in self.does(event)]
        if backwards:
            return any(clip in self.after(event) and compatible(event, clip) and self._is_scaled(event) for event in backwards)
        family = {caller for caller, _ in self.facts.summaries.callers.get(self.function, ())}
        family |= set(self.function.owner.methods.values()) if self.function.owner else set()
        return not any("unscale" in self.facts.clip_effects[member] for member in family)

    def _is_scaled(self, event: ir.Event) -> bool:
        """`scaler.scale(loss).backward()`, in one or two statements, here or in what is called."""
        callee = self.facts.bindings.callee(event.call, self.function) if isinstance(event, (ir.Invoke, ir.Backward)) else None
        function = callee or self.function
        backwards = [event] if callee is None else list(callee.events())
        at = self.facts.evidence.reaching(function).at
        for backward in backwards:
            if isinstance(backward, ir.Backward):
                values = [bind.value for path in ir.names(backward.value) for bind in at[backward].get(path, ())]
                if any(isinstance(value, ir.Call) and value.method == "scale" for value in (backward.call.receiver, *values)):
                    return True
        return False

    def _late(self, clip: ir.Event) -> Misplaced | None:
        """Each path to the clip has stepped, and none goes on to another step."""
        if any(self.does(event) & {"step", "?"} for event in self.after(clip)):
            return None
        for step in self.steps:
            if (
                clip not in self.after(step)
                or step.ctx.loops != clip.ctx.loops
                or not _always(step, clip)
                or not self._concerns(clip, step)
            ):
                continue
            refilled = (event for event in self.after(step) if self.does(event) & {"backward", "?"})
            if not any(clip in self.after(event) for event in refilled):
                return Misplaced(clip, "late", step)
        return None

    def _early(self, clip: ir.Event) -> Misplaced | None:
        """A backward of the turn follows, then its step, with no clip between."""
        filled = [event for event in self.before(clip) if self.does(event) & {"backward", "?"}]
        for backward in (event for event in self.events if isinstance(event, ir.Backward) and event in self.after(clip)):
            if any(self._clips_somehow(event) for event in self.after(backward)) or self._stepped_between(clip, backward):
                continue
            for step in self.steps:
                if (
                    step in self.after(backward)
                    and step.ctx.loops == clip.ctx.loops
                    and compatible(clip, step)
                    and self._concerns(clip, step)
                    and all(self._cleared_between(event, clip, step) for event in filled)
                ):
                    return Misplaced(clip, "early", step, backward)
        return None

    def _cleared_between(self, event: ir.Event, clip: ir.Event, step: ir.Step) -> bool:
        """Whether what an event puts into the gradients of a step's optimizer is cleared on every path to the clip."""
        owner = self.facts.bindings.canonical(step.owner, self.function)
        for zero in (other for other in self.after(event) if isinstance(other, ir.Zero) and event not in self.after(other)):
            same = self.facts.bindings.canonical(zero.owner or "", self.function) == owner
            if same and clip in self.after(zero) and zero.ctx.loops == clip.ctx.loops and _always(zero, clip):
                return True
        return False

    def _clips_somehow(self, event: ir.Event) -> bool:
        return isinstance(event, ir.Invoke) and ("clip" in self.does(event) or "clip" in event.call.method)

    def _stepped_between(self, clip: ir.Event, backward: ir.Event) -> bool:
        """Whether the clip is for gradients of the turn before, which are stepped first."""
        return any(backward in self.after(event) for event in self.after(clip) if self.does(event) & {"step", "?"})

    def _concerns(self, clip: ir.Event, step: ir.Step) -> bool:
        """Whether the clip is about what the step moves: there is one optimizer here, or it was built from what is clipped."""
        if len({self.facts.bindings.canonical(other.owner, self.function) for other in self.steps}) == 1:
            return True
        owner = self.facts.bindings.canonical(step.owner, self.function)
        modules = self.facts.bindings.links.get(owner, set())
        clipped = [path.removesuffix(".parameters") for path in _arguments(clip)]
        named = {torchapi.last(module) for module in modules}
        return any(torchapi.last(path) in named or any(module.startswith(f"{path}.") for module in modules) for path in clipped)


def effects(facts: FileFacts) -> dict[ir.Function, frozenset[str]]:
    """What each function and all that it calls do to gradients."""

    def own(function: ir.Function) -> frozenset[str]:
        found: set[str] = set()
        for event in function.events():
            call = getattr(event, "call", None)
            if call is None or facts.bindings.callee(call, function) is None:
                found |= _own_effect(facts, function, event)
        return frozenset(found)

    return facts.summaries.spread(own)


def _own_effect(facts: FileFacts, function: ir.Function, event: ir.Event) -> frozenset[str]:
    if isinstance(event, (ir.Backward, ir.Zero)):
        return frozenset({type(event).__name__.lower()})
    if isinstance(event, ir.Step):
        return frozenset({"step"} if facts.bindings.is_optimizer(event.owner, function) and not event.closure else {"?"})
    if not isinstance(event, ir.Invoke):
        return frozenset()
    if "unscale" in event.call.method:
        return frozenset({"unscale"})
    if clips(facts, function, event.call):
        return frozenset({"clip"})
    return frozenset({"?"}) if _may_train(facts, function, event.call) else frozenset()


def clips(facts: FileFacts, function: ir.Function, call: ir.Call) -> bool:
    """Whether a call clips for sure, and does not only measure the norm."""
    path = facts.evidence.resolve(call.path or "", function)
    name = torchapi.last(path)
    if CLIPS_IN_PLACE.search(call.path or ""):
        return True
    known = name in CLIP_FUNCTIONS and (path == name or path.startswith(("torch.nn.utils.", "nn.utils.")))
    if not known and not (call.method in CLIP_METHODS and call.receiver is not None and "." in path):
        return False
    limit = [*call.args[1:2], *(value for key, value in call.kwargs.items() if key in ("max_norm", "clip_value"))]
    return not any(_is_huge(value) for value in limit)


def _is_huge(value: ir.Expr) -> bool:
    """`float("inf")`, `math.inf`, or a number that no gradient reaches."""
    if isinstance(value, ir.Const) and isinstance(value.value, (int, float)):
        return value.value >= MEASURES_FROM
    if isinstance(value, ir.Call):
        return any(isinstance(arg, ir.Const) and "inf" in str(arg.value) for arg in value.args)
    return isinstance(value, ir.Name) and torchapi.last(value.path) == "inf"


def _may_train(facts: FileFacts, function: ir.Function, call: ir.Call) -> bool:
    """Whether a call out of sight may back-propagate or step: by its name, of something that may hold model and optimizer."""
    path = facts.evidence.resolve(call.path or "", function)
    if path.startswith("torch.") or call.method == "train":
        return False
    base = torchapi.last(path.rpartition(".")[0])
    holder = not base or torchapi.LEARNER_NAME.search(base) or HOLDERS.search(base)
    by_name = MAY_TRAIN.search(call.method) and not torchapi.REPORTS.search(call.method)
    return bool(torchapi.TAKES_LOSS.search(call.method) or (holder and by_name)) and call.method != "optimizers"


def _unscales_first(clip: ir.Event) -> bool:
    receiver = clip.call.receiver if isinstance(clip, ir.Invoke) else None
    return isinstance(receiver, ir.Name) and bool(UNSCALES_FIRST.search(torchapi.last(receiver.path)))


def _by_scaler(facts: FileFacts, function: ir.Function, step: ir.Step) -> bool:
    """`scaler.step(optimizer)`, of a scaler that PyTorch makes where it is seen being made."""
    receiver = step.call.receiver if step.call is not None and step.call.args else None
    if not isinstance(receiver, ir.Name):
        return False
    values = (bind.value for bind in facts.bindings.binds(receiver.path, function))
    built = [node for value in values for node in ir.walk(value) if isinstance(node, ir.Call)]
    if built:
        return any(call.method.endswith("GradScaler") and not _is_off(call) for call in built)
    return "scaler" in torchapi.last(receiver.path).lower()


def _is_off(call: ir.Call) -> bool:
    enabled = call.kwargs.get("enabled")
    return isinstance(enabled, ir.Const) and enabled.value is False


def _arguments(clip: ir.Event) -> Iterator[str]:
    """Paths in a clip's arguments, and what it is a method of."""
    if isinstance(clip, ir.Invoke):
        yield from (path for operand in (*clip.call.operands, clip.call.receiver) if operand is not None for path in ir.names(operand))


def _always(first: ir.Event, second: ir.Event) -> bool:
    """Whether the second event happens only where the first one does."""
    arms = {(id(cond), arm) for cond, arm, _ in second.ctx.conds}
    return all((id(cond), arm) in arms for cond, arm, _ in first.ctx.conds)


def compatible(first: ir.Event, second: ir.Event) -> bool:
    """Whether both can happen in one turn, by the conditions that they stand under."""
    known = frozenset(fact for cond, arm, _ in first.ctx.conds for fact in conditions.compile_test(cond, str).implied(arm))
    return all(conditions.compile_test(cond, str).truth(known) in (None, arm) for cond, arm, _ in second.ctx.conds)
