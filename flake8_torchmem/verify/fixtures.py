"""Fixture folders: what each claims, and whether running it shows that."""

from __future__ import annotations

import importlib.metadata
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flake8_torchmem.verify.runner import Limits, Outcome, Runner
from flake8_torchmem.verify.series import STAND_IN, Run
from flake8_torchmem.verify.verdict import JUDGES, Finding, Twins, Verdict, judge

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = "fixture.toml"
PROGRAMS = ("bad", "fixed")
MORE_BEATS = (1, 2, 4)  # times the beats of a fixture, until the verdict is decided
MAX_BEATS = 256
MEASURES = {
    "virtual": frozenset({"grows", "peak", "host", "gradients", "results", "none"}),
    "cuda": frozenset({"grows", "peak", "host", "gradients", "results", "none", "time"}),
}


@dataclass(frozen=True)
class Case:
    """One function of a fixture's programs: the effect that it claims; `beyond_virtual`: why the stand-in device cannot show it."""

    function: str
    effect: str
    note: str = ""
    beyond_virtual: str = ""


@dataclass(frozen=True)
class Fixture:
    """A fixture folder. `problem`: why it cannot be run, in one line."""

    folder: Path
    code: str = ""
    effect: str = ""
    beats: int = 16
    cases: tuple[Case, ...] = ()
    problem: str = ""

    def names(self) -> list[str]:
        """What its cases are called in reports."""
        return [name_of(self.folder.name, case.function) for case in self.cases] if not self.problem else [self.folder.name]


def name_of(fixture: str, case: str) -> str:
    """What a case is called in reports."""
    return f"{fixture}:{case}" if case else fixture


@dataclass
class Row:
    """The verdict on one case, with the runs that it rests on."""

    code: str
    fixture: str
    case: str
    effect: str
    verdict: Verdict
    runs: dict[str, Run] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        verdict = self.verdict
        row = {"code": self.code, "fixture": self.fixture, "case": self.case, "effect": self.effect, "verdict": verdict.verdict.value}
        figures = {name: figure if _is_json(figure) else str(figure) for name, figure in verdict.figures.items()}
        return {**row, "reason": verdict.reason, **figures}


def _is_json(figure: float | int | str) -> bool:
    """JSON has no infinite numbers, and none that are not numbers; lengths of gradients may be such."""
    return isinstance(figure, str) or math.isfinite(figure)


@dataclass
class Report:
    """All rows, and what they were measured on."""

    rows: list[Row] = field(default_factory=list)
    device: str = ""
    name: str = ""
    why: str = ""
    torch: str = ""


def find(paths: Sequence[Path]) -> Iterator[Fixture]:
    """The fixtures in folders, in sorted order; a folder is one itself, or holds some."""
    for path in paths:
        folders = [path] if (path / NAME).exists() else sorted(inner for inner in path.iterdir() if inner.is_dir() and _like(inner))
        for folder in folders:
            yield read(folder)


def _like(folder: Path) -> bool:
    return any((folder / name).exists() for name in (NAME, "bad.py", "fixed.py"))


def read(folder: Path) -> Fixture:
    """A fixture, or what is wrong with it."""
    try:
        spec = tomllib.loads((folder / NAME).read_text("utf-8"))
        cases = tuple(
            Case(case["function"], case["effect"], case.get("note", ""), case.get("beyond_virtual", "")) for case in spec.get("cases", [])
        )
        missing = [f"{name}.py" for name in PROGRAMS if not (folder / f"{name}.py").is_file()]
        unknown = [case.effect for case in cases if case.effect not in JUDGES]
        problem = f"no {missing[0]}" if missing else f"unknown effect {unknown[0]!r}" if unknown else "" if cases else "no cases are listed"
        return Fixture(folder, spec["code"], spec["effect"], int(spec.get("beats", 16)), cases, problem)
    except FileNotFoundError:
        return Fixture(folder, problem=f"no {NAME}")
    except KeyError as error:
        return Fixture(folder, problem=f"{NAME}: no {error.args[0]!r}")
    except (OSError, ValueError, TypeError) as error:
        return Fixture(folder, problem=f"{NAME}: {' '.join(str(error).split())}")


def device_of(limits: Limits, device: str) -> Report:
    """A report without rows: what the fixtures are to run on, and why; without a device, why there is none.

    Args:
        limits: of the process that asks PyTorch.
        device: auto, cuda or virtual.
    """
    if device == "virtual":  # it is everywhere
        return Report(device=device, name=STAND_IN, why="as asked for", torch=importlib.metadata.version("torch"))
    report = Report()
    with Runner(limits, device) as runner:
        outcome = runner.run({"kind": "device", "device": device})
    for line in outcome.lines:
        report.device, report.why, report.torch = line.get("device", ""), line.get("why", ""), line.get("torch", "")
        report.name = line.get("name", "")
    report.why = report.why or cause(outcome)
    return report


def verify(
    fixtures: Sequence[Fixture], report: Report, runner: Runner, jobs: int, snapshots: Path | None, done: Callable[[], None]
) -> Iterator[list[Row]]:
    """Run fixtures, several at a time on the stand-in device, and judge every case. Rows go into the report, too.

    Yields the rows of each fixture, in the order of the fixtures, as soon as they are there. Once the runner is stopped, the rows of
    what has not run by then say so.

    Args:
        fixtures: in the order of the report.
        report: with the device.
        runner: of the programs.
        jobs: processes at a time.
        snapshots: a folder for the allocator's history of each program; None: they are not wanted.
        done: called after each fixture, from any thread.
    """

    def one(fixture: Fixture) -> list[Row]:
        rows = list(_Judged(fixture, report.device, runner, snapshots).rows())
        done()
        return rows

    with ThreadPoolExecutor(max_workers=1 if report.device == "cuda" else jobs) as pool:
        for rows in pool.map(one, fixtures):
            report.rows += rows
            yield rows


class _Judged:
    """One fixture's runs and verdicts."""

    def __init__(self, fixture: Fixture, device: str, runner: Runner, snapshots: Path | None) -> None:
        self.fixture = fixture
        self.device = device
        self.runner = runner
        self.snapshots = snapshots.resolve() if snapshots is not None else None

    def rows(self) -> Iterator[Row]:
        """A row for each case."""
        fixture = self.fixture
        if fixture.problem:
            verdict = Verdict(Finding.INCONCLUSIVE, fixture.problem)
            yield Row(fixture.code or "?", fixture.folder.name, "", fixture.effect, verdict)
            return
        rows = {case.function: self._row(case, _beyond(case)) for case in fixture.cases if self.device == "virtual" and case.beyond_virtual}
        pending = [case for case in fixture.cases if case.function not in rows]
        for times in MORE_BEATS:
            steps = fixture.beats * times
            if not pending or (times > 1 and steps > MAX_BEATS):
                break
            rows |= {row.case: row for row in self._tried(pending, steps)}
            pending = [case for case in pending if rows[case.function].verdict.too_few]
        yield from (rows[case.function] for case in fixture.cases)

    def _tried(self, cases: list[Case], steps: int) -> Iterator[Row]:
        outcomes = {"bad": self._run("bad", cases, steps)}
        # Without the flagged program there is nothing to compare with.
        measured = any("run" in line for line in outcomes["bad"].lines)
        outcomes["fixed"] = self._run("fixed", cases, steps) if measured else Outcome([])
        for case in cases:
            runs = {name: _runs(outcome, case.function) for name, outcome in outcomes.items()}
            verdict = self._verdict(case, runs, outcomes)
            kept = {name: found[0] for name, found in runs.items() if found}
            yield self._row(case, verdict, kept)

    def _row(self, case: Case, verdict: Verdict, runs: dict[str, Run] | None = None) -> Row:
        return Row(self.fixture.code, self.fixture.folder.name, case.function, case.effect, verdict, runs or {})

    def _run(self, name: str, cases: list[Case], steps: int) -> Outcome:
        wanted = [{"function": case.function, "effect": case.effect} for case in cases]
        job = {"kind": "fixture", "file": str((self.fixture.folder / f"{name}.py").resolve()), "cases": wanted, "steps": steps}
        job["snapshot"] = str(self.snapshots / f"{self.fixture.folder.name}-{name}") if self.snapshots is not None else ""
        return self.runner.run({**job, "device": self.device, "repeats": 2 if name == "bad" else 1})

    def _verdict(self, case: Case, runs: dict[str, list[Run]], outcomes: dict[str, Outcome]) -> Verdict:
        for name, wanted in (("bad", 2), ("fixed", 1)):
            if len(runs[name]) < wanted:
                return Verdict(Finding.INCONCLUSIVE, f"{name}.py: {cause(outcomes[name])}")
        bad, again = runs["bad"]
        twins = Twins(bad, again, runs["fixed"][0], self.device == "virtual", MEASURES[self.device])
        return judge(case.effect, twins)


def _beyond(case: Case) -> Verdict:
    return Verdict(Finding.INCONCLUSIVE, f"the stand-in device cannot show it: {case.beyond_virtual}")


def _runs(outcome: Outcome, function: str) -> list[Run]:
    return [Run.from_json(line["run"]) for line in outcome.lines if line.get("case") == function]


def cause(outcome: Outcome) -> str:
    """Why a run is missing."""
    for line in outcome.lines:
        if "refused" in line:
            return str(line["refused"])
        if "import" in line:
            return f"it cannot be imported ({line['import']})"
    return outcome.last_words() or "it has not run"
