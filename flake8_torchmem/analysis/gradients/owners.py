"""Whose gradients: from access paths, through calls, to one name per optimizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.bindings import Bindings

WRAPPED = (".base_optimizer", ".inner_optimizer", "._optimizer", ".optimizer", ".optim", ".module")


@dataclass(frozen=True, eq=False)
class Frame:
    """One call on the way: what its parameters stand for in the root, and the loops that are running.

    Attributes:
        function: being executed.
        args: parameter to the caller's path.
        prefix: keeps locals of different calls apart.
        loops: running in the callers, outermost first.
        stack: functions that are being executed.
        outer: the call of the function that this one is nested in, if that is running.
        entry: the call that left the checked file.
        ctx: of the call, with everything around it; None in the root.
    """

    function: ir.Function
    args: dict[str, str]
    prefix: str
    loops: tuple[ir.Loop, ...]
    stack: tuple[ir.Function, ...]
    outer: Frame | None = None
    entry: ir.Call | None = None
    ctx: ir.Context | None = None

    @property
    def depth(self) -> int:
        """How many calls lie between the root and here."""
        return len(self.stack)

    def around(self, ctx: ir.Context) -> ir.Context:
        """A context of the function, with what stands around the calls that led there."""
        if self.ctx is None:
            return ctx
        conds = ((cond, arm, level + len(self.ctx.loops)) for cond, arm, level in ctx.conds)
        return replace(
            ctx,
            loops=self.ctx.loops + ctx.loops,
            conds=(*self.ctx.conds, *conds),
            handler=ctx.handler or self.ctx.handler,
            accumulate=ctx.accumulate or self.ctx.accumulate,
        )


def spoken(step: ir.Step) -> str:
    """The owner of a step as its code calls it."""
    return "the parameters" if step.owner == ir.BY_HAND else f"`{step.owner}`"


class Owners:
    """Names owners in one exploration.

    Args:
        bindings: of the program.
    """

    def __init__(self, bindings: Bindings) -> None:
        self.bindings = bindings
        self.frames: dict[tuple[ir.Call, Frame], Frame] = {}

    def canonical(self, path: str, frame: Frame) -> str:
        """The root function's name for a path."""
        path = self.bindings.canonical(path, frame.function)
        head = paths.root(path)
        if head in frame.args:
            return frame.args[head] + path[len(head) :]
        if frame.outer is not None and head not in frame.function.locals:
            return self.canonical(path, frame.outer)
        if frame.depth and head in frame.function.locals:
            return frame.prefix + path
        return path

    def frame(self, call: ir.Call, callee: ir.Function, caller: Frame) -> Frame:
        """The frame of a call."""
        key = (call, caller)
        if key not in self.frames:
            args: dict[str, str] = {}
            if callee.owner and callee.params[:1] == ("self",):
                receiver = call.receiver
                args["self"] = self.canonical(receiver.path, caller) if isinstance(receiver, ir.Name) else f"<{id(call)}>"
            for param, arg in callee.arguments(call):
                if isinstance(arg, ir.Name):
                    args[param] = self.canonical(arg.path, caller)
            loops = caller.loops + call.ctx.loops
            outer: Frame | None = caller
            while outer is not None and outer.function is not callee.parent:
                outer = outer.outer
            prefix = f"{callee.name}#{len(self.frames)}:"
            entry = caller.entry or (call if callee.file.linked else None)
            self.frames[key] = Frame(callee, args, prefix, loops, (*caller.stack, caller.function), outer, entry, caller.around(call.ctx))
        return self.frames[key]

    def owner(self, path: str, frame: Frame) -> str:
        """One owner's name: an optimizer inside a wrapper is the wrapper's."""
        name = self.canonical(path, frame)
        for suffix in WRAPPED:
            base = name.removesuffix(suffix)
            if base != name and torchapi.looks_like_optimizer(base):
                return base
        return name

    def of_zero(self, path: str | None, frame: Frame, known: Iterable[str]) -> tuple[tuple[str, ...], bool]:
        """The owners that a clear empties, and whether that is certain.

        A module stands for the optimizers built from its parameters. A module of which nothing is known may be
        anybody's, so nothing is certain of any owner afterwards, unless there is one owner and one module alone.
        """
        known = tuple(known)
        if path is None:
            return known, False
        name = self.owner(path, frame)
        if name not in known and frame.depth and name.startswith(frame.prefix):
            return known, False
        if "param" in name:
            return known, False
        group = name.removesuffix("[*]")
        members = tuple(owner for owner in known if group != name and owner.startswith((f"{group}.", f"{group}[")))
        if members or name in known or torchapi.looks_like_optimizer(name):
            return (*members, *(() if name in members else (name,))), True
        name = group
        unmet = (place for place, modules in self.bindings.links.items() if place not in known and name in modules)
        linked = (*(owner for owner in known if self._holds(owner, name)), *unmet)
        if linked or name == "self":
            return linked or known, True
        alone = len(self.bindings.stepped) == 1 and not any(torchapi.last(place) in self.bindings.stepped for place in self.bindings.links)
        return known, alone and bool(torchapi.MODULE_NAME.match(torchapi.last(name)))

    def _holds(self, owner: str, module: str) -> bool:
        """Whether an optimizer is known to have been built from a module's parameters, all of them.

        Seen from another object the same attributes have longer paths; then the last parts have to do.
        """
        for place, modules in self.bindings.links.items():
            if place == owner and any(held == module or held.startswith(module + ".") for held in modules):
                return True
            if torchapi.last(place) == torchapi.last(owner) and torchapi.last(module) in {torchapi.last(held) for held in modules}:
                return True
        return False
