"""A user's script, as it is and with fixes: what each finding costs, which lines hold it, and how many steps are left."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from flake8_torchmem.fixes import Document, Planned, fix_document
from flake8_torchmem.fixes.rounds import Left
from flake8_torchmem.model import Finding
from flake8_torchmem.settings import Settings
from flake8_torchmem.verify.runner import Outcome, Runner
from flake8_torchmem.verify.series import KINDS, Run
from flake8_torchmem.verify.verdict import WARM_UP, rate, slope

MAX_FINDINGS = 12  # that are run one by one


@dataclass(frozen=True)
class Script:
    """What is run.

    Attributes:
        path: its file.
        module: its name, where it is run as `-m module`.
        arguments: that it gets.
        beats: after which each run is stopped.
    """

    path: Path
    module: str | None
    arguments: tuple[str, ...]
    beats: int


@dataclass(frozen=True)
class Figures:
    """One run in numbers.

    Attributes:
        growth: bytes on the device per beat; None: not decided.
        nodes: autograd nodes in host memory per beat; None: not decided.
        most_nodes: the most of them at any beat.
        peak: bytes on the device.
        beats: how many there were.
        kind: of the beats.
        gradients: the median length of the gradients that a step used; None without steps.
    """

    growth: float | None
    nodes: float | None
    most_nodes: int
    peak: int
    beats: int
    kind: str
    gradients: float | None = None

    @classmethod
    def of(cls, run: Run, exact: bool) -> Figures:
        """The figures of a run, by its first kind of beat that goes on."""
        kind = next((kind for kind in KINDS if len(run.samples[kind]) > WARM_UP + 3), KINDS[0])
        live, nodes = run.series(kind, "live"), run.series(kind, "nodes")
        peak = max((sample.peak for samples in run.samples.values() for sample in samples), default=0)
        lengths = [gradient.norm for gradient in run.gradients if math.isfinite(gradient.norm)]
        gradients = median(lengths) if lengths else None
        if len(live) <= WARM_UP + 3:
            return cls(None, None, max(nodes, default=0), peak, len(live), kind, gradients)
        # Without a period, as with shuffled lengths, the median over all pairs still says about how much.
        found = rate(live) if exact else None
        return cls(slope(live) if found is None else found, slope(nodes), max(nodes), peak, len(live), kind, gradients)


@dataclass(frozen=True)
class Cost:
    """What a finding costs: the script with this one fixed; None and a reason where it could not be run so."""

    finding: Finding
    fixed: Figures | None
    reason: str = ""


@dataclass
class ScriptReport:
    """All that was measured.

    Attributes:
        script: what was run.
        device: cuda or virtual; empty if none was reached.
        why: it was chosen.
        torch: the version.
        now: the script as it is.
        ended: how the script ended of itself, if not well, before it had all of its beats.
        all_fixed: with all findings fixed that can be.
        costs: of each finding.
        lines: bytes by the lines that made what was alive at the end: file, line, bytes.
        grown: the same of what came to be after the warm-up.
        categories: bytes by what they are for, at the beat with the most of them.
        failure: why nothing was measured.
        finished: nothing is to come.
    """

    script: Script
    device: str = ""
    why: str = ""
    torch: str = ""
    now: Figures | None = None
    ended: str = ""
    all_fixed: Figures | None = None
    costs: list[Cost] = field(default_factory=list)
    lines: list[tuple[str, int, int]] = field(default_factory=list)
    grown: list[tuple[str, int, int]] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    finished: bool = False


@dataclass(frozen=True)
class Plan:
    """What is to be run: the script as it is, with all of its findings fixed, and with each one fixed alone.

    Attributes:
        script: what is run.
        now: its text.
        all_fixed: with all fixes; None if there is nothing to fix.
        alone: each finding with the script in which it alone is fixed, or None and why there is none.
    """

    script: Script
    now: Document
    all_fixed: Document | None
    alone: tuple[tuple[Finding, Document | None, str], ...]

    @property
    def runs(self) -> int:
        """How often the script is run."""
        return 1 + (self.all_fixed is not None) + sum(document is not None for _, document, _ in self.alone)


def plan(script: Script, settings: Settings) -> Plan:
    """Check a script, and fix copies of it.

    Args:
        script: what is to be run.
        settings: whose findings count.

    Raises:
        SourceError: the script is no Python.
        OSError: it cannot be read.
    """
    now = Document.of(script.path.read_bytes())
    outcome = fix_document(now, str(script.path), settings, unsafe=True)
    fixed = [finding for finding, _ in outcome.fixed]
    alone: list[tuple[Finding, Document | None, str]] = []
    for index, finding in enumerate(fixed if len(fixed) > 1 else ()):
        found = fix_document(now, str(script.path), settings, unsafe=True, wanted=_only(finding))
        if index >= MAX_FINDINGS or not found.fixed:
            alone.append((finding, None, "fixed together with the others only"))
        else:
            alone.append((finding, found.document, ""))
    if len(fixed) == 1:
        alone.append((fixed[0], outcome.document, ""))
    alone += [(left.finding, None, _unfixed(left)) for left in outcome.left]
    return Plan(script, now, outcome.document if len(fixed) > 1 else None, tuple(alone))


def _only(finding: Finding) -> Callable[[Planned, Document], bool]:
    return lambda planned, _document: (planned.finding.code, planned.finding.span) == (finding.code, finding.span)


def _unfixed(left: Left) -> str:
    return f"not measured, as nothing fixes it: {left.reason}"


def measure(planned: Plan, report: ScriptReport, runner: Runner, snapshots: Path | None = None) -> Iterator[None]:
    """Run all that is planned, in the environment of this process, and fill the report. Yields after each run.

    Args:
        planned: what to run.
        report: to be filled, with the device.
        runner: of the processes.
        snapshots: a folder for the allocator's history of each run; None: they are not wanted.
    """
    runs = _Runs(planned.script, runner, report, snapshots)
    run, report.failure = runs.run(planned.now, "now")
    if run is not None:
        report.now = runs.figures(run)
        report.ended = run.failure.message if run.failure else ""
        report.lines, report.grown, report.categories = run.lines, run.grown, run.categories
    yield
    for finding, document, reason in planned.alone if run is not None else ():
        if document is None:
            report.costs.append(Cost(finding, None, reason))
            continue
        fixed, failure = runs.run(document, f"fixed-{finding.code}-line-{finding.span.line}")
        report.costs.append(Cost(finding, runs.figures(fixed) if fixed else None, f"with the fix it could not be measured: {failure}"))
        yield
    if planned.all_fixed is not None and run is not None:
        fixed, _ = runs.run(planned.all_fixed, "fixed")
        report.all_fixed = runs.figures(fixed) if fixed else None
        yield
    elif len(report.costs) and report.costs[0].fixed is not None:
        report.all_fixed = report.costs[0].fixed
    report.finished = not runner.stopped


class _Runs:
    """Runs versions of a script."""

    def __init__(self, script: Script, runner: Runner, report: ScriptReport, snapshots: Path | None) -> None:
        self.script = script
        self.runner = runner
        self.report = report
        self.snapshots = snapshots

    def run(self, document: Document, name: str) -> tuple[Run | None, str]:
        """One run, or None and why it did not get to its beats."""
        script = self.script
        snapshot = str(self.snapshots.resolve() / f"{script.path.stem}-{name}") if self.snapshots is not None else ""
        job: dict[str, object] = {"kind": "script", "path": str(script.path.resolve()), "source": document.normal, "module": script.module}
        job |= {"arguments": list(script.arguments), "beats": script.beats, "device": self.report.device, "snapshot": snapshot}
        outcome = self.runner.run(job, cwd=Path.cwd())
        for line in outcome.lines:
            if "refused" in line:
                return None, str(line["refused"])
            if "run" in line:
                return self._judged(line["run"])
        return None, _how(outcome)

    def _judged(self, found: Mapping[str, object]) -> tuple[Run | None, str]:
        run = Run.from_json(dict(found))
        beats = max(map(len, run.samples.values()))
        if beats > WARM_UP + 3:
            return run, ""
        if run.failure is not None:
            return None, f"after {run.failure.beat} beats: {run.failure.message}"
        return (
            None,
            f"it ended after {beats} beats; {WARM_UP + 4} are needed" if beats else "no optimizer made a step, and no module was called",
        )

    def figures(self, run: Run) -> Figures:
        """A run in numbers."""
        return Figures.of(run, self.report.device == "virtual")


def _how(outcome: Outcome) -> str:
    return outcome.last_words() or "it ended without a word"


def steps_left(figures: Figures, memory: int) -> int | None:
    """Beats until the memory of a device is full, from the start; None if it does not fill."""
    if figures.growth is None or figures.growth <= 0:
        return None
    return max(int((memory - figures.peak) / figures.growth) + figures.beats, 0)
