"""What mends findings, for rules to ask: all the ways there are, in one place.

Rules get here through `FileFacts.remedies`, and only where remedies are asked for. So the modules behind this one, which are
a good part of the analysis, are imported by whoever fixes and by nobody who lints.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.gradients.mending import Clears
from flake8_torchmem.analysis.gradients.reordering import Backwards
from flake8_torchmem.analysis.gradients.rescaling import clipped, divided, rephased
from flake8_torchmem.analysis.loading.mending import made_there, onto_host
from flake8_torchmem.analysis.retention import hook_mending
from flake8_torchmem.analysis.retention.collected_mending import cloned, moved
from flake8_torchmem.analysis.retention.copying import copied
from flake8_torchmem.analysis.retention.detaching import detached
from flake8_torchmem.analysis.retention.guarding import without_gradients
from flake8_torchmem.analysis.retention.mending import Mending, stored
from flake8_torchmem.remedies import DropArgument, LeaveHandler, NoRemedy, Remedy, Remove, SetArgument, remedy

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.gradients.clipping import Clipping, Misplaced
    from flake8_torchmem.analysis.gradients.observations import Observations
    from flake8_torchmem.analysis.gradients.scaling import Fault
    from flake8_torchmem.analysis.gradients.windows import Window
    from flake8_torchmem.analysis.retention.buffers import Kept
    from flake8_torchmem.analysis.retention.collected import Collected
    from flake8_torchmem.analysis.retention.hooks import Kept as KeptByHook
    from flake8_torchmem.analysis.retention.recurrence import Carried
    from flake8_torchmem.analysis.retention.snapshots import Held
    from flake8_torchmem.model import Safety

Found = Remedy | NoRemedy


class Remedies:
    """The remedies for what is found in one file.

    Args:
        facts: of the file.
    """

    def __init__(self, facts: FileFacts) -> None:
        self._facts = facts

    def clears(self, seen: Observations) -> Clears:
        """Where the clears of what was seen belong."""
        return Clears(self._facts, seen)

    def backwards(self, seen: Observations) -> Backwards:
        """Where the backwards of what was seen belong."""
        return Backwards(self._facts, seen)

    def divided(self, fault: Fault) -> Found:
        """A loss that is divided by the size of its window."""
        return divided(fault, self._facts)

    def rephased(self, window: Window) -> Found:
        """A window that ends where it should."""
        return rephased(window, self._facts)

    def clipped(self, found: Misplaced, clipping: Clipping) -> Found:
        """A clip in its place."""
        return clipped(found, clipping)

    def mending(self, function: ir.Function) -> Mending:
        """How what a function keeps lets go of its graph."""
        return Mending(self._facts, function)

    def kept(self, kept: Kept) -> Found:
        """What goes to a buffer or record, without its graph."""
        mending = self.mending(kept.function)
        callee = self._facts.bindings.callee(kept.event.call, kept.function) if isinstance(kept.event, ir.Invoke) else None
        if isinstance(kept.event, ir.Invoke) and callee is not None and kept.param:
            return mending.given(kept.event, [(kept.param, kept.value)], callee, summed=False)
        queue = isinstance(kept.event, ir.Store) and kept.event.kind == "append"
        return mending.detached(stored(kept.event), sure=not queue)

    def moved(self, found: Collected) -> Found:
        """Outputs that are collected on the host."""
        return moved(self._facts, found)

    def cloned(self, found: Collected) -> Found:
        """Parts of outputs that are copies."""
        return cloned(self._facts, found)

    def copied(self, held: Held, goes_on: bool) -> Found:
        """A snapshot that is a copy; `goes_on`: training goes on from it."""
        return copied(held, goes_on)

    def guarded(self, function: ir.Function, loop: ir.Loop | None, forward: ir.Invoke) -> Found:
        """An evaluation that runs without gradients."""
        return without_gradients(self._facts, function, loop, forward)

    def detached(self, function: ir.Function, carried: Carried) -> Found:
        """A recurrent state that is cut from the turn before."""
        return detached(self._facts, function, carried)

    def let_go(self, found: KeptByHook) -> Found:
        """What a hook stores, without its graph."""
        return hook_mending.kept(self._facts, found)

    def unregistered(self, function: ir.Function, event: ir.Invoke, loop: ir.Loop | None) -> Found:
        """A hook that is removed at the end of its turn."""
        return hook_mending.registered(function, event, loop)

    def onto_host(self, function: ir.Function, load: ir.Bind, call: ir.Call) -> Found:
        """A checkpoint that is loaded to the host."""
        return onto_host(self._facts, function, load, call)

    def made_there(self, function: ir.Function, transfer: ir.Call, made: ir.Call) -> Found:
        """A tensor that is made where it is moved to."""
        return made_there(self._facts, function, transfer, made)

    def after_handler(self, first: ir.Site) -> Found:
        """A recovery that begins, from this statement on, when the handler is over."""
        return remedy(LeaveHandler(first))

    def removed(self, statement: ir.Site) -> Found:
        """A statement that is gone, with an `if` that had nothing else."""
        return remedy(Remove(statement, unasked=True))

    def with_argument(self, call: ir.Site, name: str, value: str) -> Found:
        """A call with a keyword argument."""
        return remedy(SetArgument(call, name, value))

    def without_argument(self, call: ir.Site, name: str, position: int, safety: Safety | None = None, doubt: str = "") -> Found:
        """A call without an argument, given by keyword or at this position (from 0); `safety` and `doubt` as in `Remedy`."""
        return remedy(DropArgument(call, name, position), safety=safety, doubt=doubt)

    def none(self, reason: str) -> Found:
        """No edit mends it, for this reason, one clause."""
        return NoRemedy(reason)
