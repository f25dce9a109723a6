"""Where gradients are lost sight of in training code: functions with too many paths, and calls into the unknown."""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.gradients import explorer as gradient_paths
from flake8_torchmem.analysis.gradients.explorer import HANDLERS, MAX_VISITS, Explorer
from flake8_torchmem.analysis.gradients.observations import Observations
from flake8_torchmem.analysis.gradients.owners import Frame
from flake8_torchmem.analysis.gradients.typestate import UNKNOWN, State
from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.source import SourceError, decode
from tests.benchmarks.corpora import table

GRADIENT_RULES = frozenset({"TM101"})  # one is enough: all of them read the same paths
Place = tuple[str, str]


@dataclass
class Tally:
    """What was seen: functions by file and name.

    Attributes:
        file: that is being checked.
        training: functions that step and back-propagate, themselves or in what they call, with the visits that they took.
        over: those with more paths than the budget.
        muted: those in which a call into the unknown had gradients in hand, by how the call is written.
    """

    file: str = ""
    training: dict[Place, int] = field(default_factory=dict)
    over: list[Place] = field(default_factory=list)
    muted: defaultdict[str, set[Place]] = field(default_factory=lambda: defaultdict(set))

    def run(self, explorer: Explorer) -> Observations | None:
        """An exploration, noted."""
        found = EXPLORE(explorer)
        place = self.place(explorer)
        if place is not None:
            self.training[place] = gradient_paths.MAX_VISITS - explorer.budget.left
            if found is None:
                self.over.append(place)
        return found

    def invoke(self, explorer: Explorer, event: ir.Invoke, state: State, frame: Frame) -> Iterator[State]:
        """A call, noted if it leads into the unknown and something was known before."""
        known = state.ready or any(gradients != UNKNOWN for _, gradients in state.owners)
        place = self.place(explorer) if known and event in explorer.plan(frame).touched else None
        if place is not None:
            self.muted[ir.text(event.call.func)].add(place)
        return INVOKE(explorer, event, state, frame)

    def place(self, explorer: Explorer) -> Place | None:
        """Names the root of an exploration, if it trains."""
        function = explorer.function
        trains = {"backward", "step"} <= explorer.summaries.effects(function)
        return (self.file, function.name) if trains and not function.file.linked else None


EXPLORE, INVOKE = Explorer.run, Explorer.invoke


@contextmanager
def watched() -> Iterator[Tally]:
    """Explorations, noted."""
    tally = Tally()

    def run(explorer: Explorer) -> Observations | None:
        return tally.run(explorer)

    with patch.object(Explorer, "run", run), patch.dict(HANDLERS, {ir.Invoke: tally.invoke}):
        yield tally


def main() -> None:
    """Check and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", metavar="DIR", help="a project's folder")
    arguments.add_argument("--budget", type=int, default=MAX_VISITS, help="visits per function (default: %(default)s)")
    arguments.add_argument("--top", type=int, default=40, help="callees and functions to list (default: %(default)s)")
    options = arguments.parse_args()
    with watched() as tally, patch.object(gradient_paths, "MAX_VISITS", options.budget):
        project = Project()
        for path in sorted({path for folder in options.folders for path in Path(folder).resolve().rglob("*.py") if path.is_file()}):
            tally.file = str(path)
            try:
                check_text(decode(path.read_bytes()), str(path), GRADIENT_RULES, project=project)
            except SourceError:
                continue
    _print(tally, options.top)


def _print(tally: Tally, top: int) -> None:
    muted = set().union(*tally.muted.values())
    rows = [
        (name, str(len({file for file, _ in places})), str(len(places)))
        for name, places in (("train", set(tally.training)), ("too many paths", set(tally.over)), ("muted by a callee", muted))
    ]
    sys.stdout.write(table(("functions that", "files", "functions"), rows) + "\n")
    alone = Counter(next(iter(callees)) for callees in _callees(tally.muted).values() if len(callees) == 1)
    common = sorted(tally.muted.items(), key=lambda item: (-len(item[1]), item[0]))[:top]
    listed = [(name, str(len(places)), str(alone[name]), ": ".join(min(places))) for name, places in common]
    sys.stdout.write(table(("callee", "functions", "it alone", "for example"), listed) + "\n")
    most = sorted(tally.training.items(), key=lambda item: (-item[1], item[0]))[:top]
    sys.stdout.write(table(("function", "visits"), [(": ".join(place), str(count)) for place, count in most]))


def _callees(muted: dict[str, set[Place]]) -> dict[Place, set[str]]:
    found: defaultdict[Place, set[str]] = defaultdict(set)
    for callee, places in muted.items():
        for place in places:
            found[place].add(callee)
    return found


if __name__ == "__main__":
    main()
