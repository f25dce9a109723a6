"""Generated programs: source, settings to run it under, and what is to be reported."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from hypothesis import strategies as st

from tests.generation.render import Renderer, pair_source
from tests.generation.spec import Pair, Spec, pairs, specs
from tests.generation.symbolic import Event, Trace, run
from tests.generation.truth import Finding, truth

WINDOW, EPOCHS, LENGTH = 3, 2, 7  # the last window of an epoch is a short one


@dataclass(frozen=True)
class Program:
    """One program."""

    spec: Spec | Pair

    @cached_property
    def source(self) -> str:
        return Renderer(self.spec).source() if isinstance(self.spec, Spec) else pair_source(self.spec)

    @property
    def rows(self) -> int:
        """Samples per batch: as many as micro-batches are cut from it."""
        return WINDOW if isinstance(self.spec, Spec) and self.spec.window == "inner" else 1

    @property
    def precisions(self) -> tuple[bool, ...]:
        """The values of `use_amp` that the program tells apart."""
        return (False, True) if isinstance(self.spec, Spec) and self.spec.amp in ("split", "arms") else (False,)

    def runs(self) -> Iterator[list[Event]]:
        """What happens under every setting, with a batch that has no finite loss where the program looks for one."""
        guarded = isinstance(self.spec, Spec) and self.spec.guard == "nan"
        for use_amp in self.precisions:
            for bad in ((), (4,)) if guarded else ((),):
                yield run(self.source, LENGTH, self.rows, Trace(frozenset(bad)), n=WINDOW, use_amp=use_amp, epochs=EPOCHS)

    @cached_property
    def truth(self) -> set[Finding]:
        return truth(self.runs())


def programs() -> st.SearchStrategy[Program]:
    """All kinds; most of them have one optimizer."""
    return st.builds(Program, st.one_of(specs(), specs(), specs(), pairs()))
