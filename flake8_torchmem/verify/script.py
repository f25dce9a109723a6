"""A user's script, as it is and with fixes: what each finding costs, which lines hold it, and how many steps are left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flake8_torchmem.fixes import Document, Planned, fix_document
from flake8_torchmem.fixes.rounds import Left
from flake8_torchmem.model import Finding
from flake8_torchmem.settings import Settings
from flake8_torchmem.verify.runner import Limits, Outcome, run_job
from flake8_torchmem.verify.series import KINDS, Run
from flake8_torchmem.verify.verdict import WARM_UP, rate, slope

MAX_FINDINGS = 12  # that are run one by one
SHOWN_LINES = 3


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
    """One run in numbers: bytes and autograd nodes per beat (None: not decided), peak bytes, beats of which kind."""

    growth: float | None
    nodes: float | None
    peak: int
    beats: int
    kind: str

    @classmethod
    def of(cls, run: Run, exact: bool) -> Figures:
        """The figures of a run, by its first kind of beat that goes on."""
        kind = next((kind for kind in KINDS if len(run.samples[kind]) > WARM_UP + 3), KINDS[0])
        live, nodes = run.series(kind, "live"), run.series(kind, "nodes")
        peaks = [sample.peak for samples in run.samples.values() for sample in samples]
        if len(live) <= WARM_UP + 3:
            return cls(None, None, max(peaks, default=0), len(live), kind)
        # Without a period, as with shuffled lengths, the median over all pairs still says about how much.
        found = rate(live) if exact else None
        return cls(slope(live) if found is None else found, slope(nodes), max(peaks), len(live), kind)


@dataclass(frozen=True)
class Cost:
    """What a finding costs: the script with this one fixed; None and a reason where it could not be run so."""

    finding: Finding
    fixed: Figures | None
    reason: str = ""


@dataclass
class ScriptReport:
    """All that was measured."""

    script: Script
    device: str = ""
    why: str = ""
    torch: str = ""
    now: Figures | None = None
    all_fixed: Figures | None = None
    costs: list[Cost] = field(default_factory=list)
    lines: list[tuple[str, int, int]] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    failure: str = ""


def verify(script: Script, device: str, limits: Limits, settings: Settings, progress: Callable[[], None]) -> ScriptReport:
    """Run a script as it is, with all of its findings fixed, and with each one fixed alone.

    Args:
        script: what to run, with the environment of this process.
        device: auto, cuda or virtual.
        limits: of each run.
        settings: whose findings count.
        progress: called after each run.

    Raises:
        SourceError: the script is no Python.
        OSError: it cannot be read.
    """
    document = Document.of(script.path.read_bytes())
    outcome = fix_document(document, str(script.path), settings, unsafe=True)
    report = ScriptReport(script)
    runs = _Runs(script, device, limits, report, progress)
    report.now = runs.figures(document, keep=True)
    if report.failure:
        return report
    fixed = [finding for finding, _ in outcome.fixed]
    if fixed:
        report.all_fixed = runs.figures(outcome.document)
    for finding in fixed[:MAX_FINDINGS]:
        alone = fix_document(document, str(script.path), settings, unsafe=True, wanted=_only(finding)).document if len(fixed) > 1 else None
        figures = runs.figures(alone) if alone is not None else report.all_fixed
        report.costs.append(Cost(finding, figures, "" if figures else runs.failure))
    report.costs += [Cost(finding, None, "run with the others only") for finding in fixed[MAX_FINDINGS:]]
    report.costs += [Cost(left.finding, None, _unfixed(left)) for left in outcome.left]
    return report


def _only(finding: Finding) -> Callable[[Planned, Document], bool]:
    return lambda planned, _document: (planned.finding.code, planned.finding.span) == (finding.code, finding.span)


def _unfixed(left: Left) -> str:
    return f"no fix: {left.reason}"


class _Runs:
    """Runs versions of a script, and keeps what is common to all."""

    def __init__(self, script: Script, device: str, limits: Limits, report: ScriptReport, progress: Callable[[], None]) -> None:
        self.script = script
        self.device = device
        self.limits = limits
        self.report = report
        self.progress = progress
        self.failure = ""

    def figures(self, document: Document, keep: bool = False) -> Figures | None:
        """One run; None if it did not get to its beats. The failure of the one to `keep` is the report's."""
        script = self.script
        job: dict[str, object] = {"kind": "script", "path": str(script.path.resolve()), "source": document.normal, "module": script.module}
        job |= {"arguments": list(script.arguments), "beats": script.beats, "device": self.device}
        outcome = run_job(job, self.limits, cwd=Path.cwd(), own_environment=True)
        self.progress()
        run = self._run(outcome)
        if keep:
            self.report.failure = "" if run is not None else self.failure
            if run is not None:
                self.report.lines, self.report.categories = run.lines, run.categories
        return Figures.of(run, self.report.device == "virtual") if run is not None else None

    def _run(self, outcome: Outcome) -> Run | None:
        for line in outcome.lines:
            if "device" in line:
                self.report.device, self.report.why, self.report.torch = line["device"], line["why"], line["torch"]
            if "refused" in line:
                self.failure = line["refused"]
            if "run" in line:
                run = Run.from_json(line["run"])
                if run.failure is None or sum(map(len, run.samples.values())) > WARM_UP:
                    return run
                self.failure = f"after {run.failure.beat} beats: {run.failure.message}"
                return None
        last = outcome.stderr.strip().split("\n")[-1]
        self.failure = self.failure or ": ".join(filter(None, [outcome.failure, last])) or "it ended without a beat"
        return None


def steps_left(figures: Figures, memory: int) -> int | None:
    """Beats until the memory of a device is full, from the start; None if it does not fill."""
    if figures.growth is None or figures.growth <= 0:
        return None
    return max(int((memory - figures.peak) / figures.growth) + figures.beats, 0)


def as_text(report: ScriptReport, memory: int) -> Iterator[str]:
    """The report, for people."""
    yield f"device: {report.device or 'none'} ({report.why or 'nothing was run'}), PyTorch {report.torch or 'unknown'}"
    if report.now is None:
        yield f"{report.script.path}: it could not be measured: {report.failure}"
        return
    yield f"{report.script.path}: {report.now.beats} {report.now.kind}s, {_spelled(report.now, memory)}"
    for file, line, size in report.lines[:SHOWN_LINES]:
        yield f"  {size:,} bytes are held from {file}:{line}"
    for cost in report.costs:
        place = f"{cost.finding.path}:{cost.finding.span.line}: {cost.finding.code} [{cost.finding.name}]"
        yield f"{place}: {_gain(report.now, cost.fixed) if cost.fixed else cost.reason}"
    if report.all_fixed is not None and len(report.costs) > 1:
        yield f"all of these fixed: {_spelled(report.all_fixed, memory)}"
    if not report.costs:
        yield "no findings to compare with"


def _spelled(figures: Figures, memory: int) -> str:
    growth = "growth not decided" if figures.growth is None else f"{figures.growth:+,.0f} bytes per {figures.kind}"
    nodes = f", {figures.nodes:+,.0f} autograd nodes" if figures.nodes else ""
    left = steps_left(figures, memory)
    full = f"; {memory:,} bytes are full after {left:,} {figures.kind}s" if left is not None else ""
    return f"{growth}{nodes}, peak {figures.peak:,} bytes{full}"


def _gain(now: Figures, fixed: Figures) -> str:
    parts = []
    if now.growth is not None and fixed.growth is not None and now.growth != fixed.growth:
        parts.append(f"{now.growth:+,.0f} bytes per {now.kind} become {fixed.growth:+,.0f}")
    if now.nodes and fixed.nodes is not None and now.nodes != fixed.nodes:
        parts.append(f"{now.nodes:+,.0f} autograd nodes on the host become {fixed.nodes:+,.0f}")
    if now.peak != fixed.peak:
        parts.append(f"peak {now.peak:,} becomes {fixed.peak:,} bytes")
    return "; ".join(parts) or f"no effect on memory in {now.beats} {now.kind}s: it is about gradients, or about other data"


def as_json(report: ScriptReport, memory: int) -> str:
    """The report, for programs."""

    def figures(found: Figures | None) -> dict[str, object] | None:
        return None if found is None else {**vars(found), "steps_to_full": steps_left(found, memory)}

    costs: Sequence[dict[str, object]] = [
        {"code": cost.finding.code, "line": cost.finding.span.line, "fixed": figures(cost.fixed), "reason": cost.reason}
        for cost in report.costs
    ]
    document = {
        "path": str(report.script.path),
        "device": report.device,
        "device_reason": report.why,
        "torch": report.torch,
        "now": figures(report.now),
        "all_fixed": figures(report.all_fixed),
        "findings": costs,
        "lines": [{"file": file, "line": line, "bytes": size} for file, line, size in report.lines],
        "categories": report.categories,
        "gpu_memory": memory,
        "failure": report.failure,
    }
    return json.dumps(document, indent=2)
