"""The report on a script, as text and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from flake8_torchmem.output.text import count, printable
from flake8_torchmem.verify.script import Cost, Figures, ScriptReport, steps_left

SHOWN_LINES = 3
EXACT = 1 << 20  # bytes from which on a unit reads better
UNITS = ("MiB", "GiB", "TiB")
OTHER_GRADIENTS = 0.01  # share by which the length of gradients must differ to be told


def as_text(report: ScriptReport, memory: int) -> Iterator[str]:
    """The report, for people: of one that is not finished, the lines that will not change.

    Args:
        report: what was measured so far.
        memory: bytes of the device that is to be filled.
    """
    yield f"device: {report.device or 'none'} ({printable(report.why) or 'nothing was run'}), PyTorch {report.torch or 'unknown'}"
    path = printable(str(report.script.path))
    if report.now is None:
        yield f"{path}: it could not be measured: {printable(report.failure)}"
        return
    now = report.now
    yield f"{path}: {count(now.beats, now.kind)}, {_spelled(now, memory)}"
    if not now.peak:
        yield "  it puts nothing on the device, and what it keeps in host memory is not counted in bytes"
    if report.ended:
        yield f"  it ended there of itself: {printable(report.ended)}"
    yield from _holders(report)
    for cost in report.costs:
        yield f"{_place(cost)} {_gain(now, cost.fixed) if cost.fixed else printable(cost.reason)}"
    if report.all_fixed is not None and sum(cost.fixed is not None for cost in report.costs) > 1:
        yield f"all of these fixed: {_spelled(report.all_fixed, memory)}"
    if report.finished and not report.costs:
        yield "torchmem check finds nothing in it to compare with"


def _holders(report: ScriptReport) -> Iterator[str]:
    """What the memory is for, and which lines made what grows, or what there is."""
    if report.categories:
        yield "  at the most: " + ", ".join(f"{name} {size_of(size)}" for name, size in _largest(report.categories.items()))
    grows = bool(report.now and report.now.growth and report.now.growth > 0 and report.grown)
    for file, line, size in (report.grown if grows else report.lines)[:SHOWN_LINES]:
        what = "more were kept from" if grows else "are held from"
        yield f"  {size_of(size)} {what} {printable(_near(file))}:{line}"


def _largest(categories: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted((entry for entry in categories if entry[1]), key=lambda entry: -entry[1])


def _near(file: str) -> str:
    """A path below this folder as such, another as it is."""
    path, here = Path(file), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else file


def size_of(size: float, sign: bool = False) -> str:
    """Bytes: all of them up to a mebibyte, then in the unit that fits."""
    shown = "+" if sign else ""
    if abs(size) < EXACT:
        return f"{size:{shown},.0f} {'byte' if abs(size) == 1 else 'bytes'}"
    for unit in UNITS:
        size /= 1024 if unit != UNITS[0] else EXACT
        if abs(size) < 1024 or unit == UNITS[-1]:
            return f"{size:{shown},.1f} {unit}"
    raise AssertionError  # the last unit takes all


def _spelled(figures: Figures, memory: int) -> str:
    growth = "growth not decided" if figures.growth is None else f"{size_of(figures.growth, sign=True)} per {figures.kind}"
    growth = "no growth" if figures.growth == 0 else growth
    nodes = f", {figures.nodes:+,.0f} autograd nodes per {figures.kind} on the host" if figures.nodes else ""
    left = steps_left(figures, memory)
    full = f"; {size_of(memory)} are full after {count_of(left, figures.kind)}" if left is not None else ""
    return f"{growth}{nodes}, peak {size_of(figures.peak)}{full}"


def count_of(number: int, noun: str) -> str:
    """`1 step`, `12,000 steps`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _place(cost: Cost) -> str:
    finding = cost.finding
    return f"{printable(finding.path)}:{finding.span.line}: {finding.code} [{finding.name}]"


def _gain(now: Figures, fixed: Figures) -> str:
    """What a fix changes."""
    parts = []
    if now.growth is not None and fixed.growth is not None and now.growth != fixed.growth:
        parts.append(f"{size_of(now.growth, sign=True)} per {now.kind} become {size_of(fixed.growth, sign=True)}")
    if now.nodes is not None and fixed.nodes is not None and now.nodes != fixed.nodes:
        parts.append(f"{now.nodes:+,.0f} autograd nodes per {now.kind} on the host become {fixed.nodes:+,.0f}")
    elif now.most_nodes != fixed.most_nodes:
        parts.append(f"{now.most_nodes:,} autograd nodes at the most on the host become {fixed.most_nodes:,}")
    if now.peak != fixed.peak and now.growth == fixed.growth:  # else it says how long the run was
        parts.append(f"the peak of {size_of(now.peak)} becomes {size_of(fixed.peak)}")
    if _differ(now.gradients, fixed.gradients):
        parts.append(f"the median gradient of length {now.gradients:.3g} becomes one of {fixed.gradients:.3g}")
    return "; ".join(parts) or f"no effect seen in {count(now.beats, now.kind)}: with other data or more steps it may have one"


def _differ(one: float | None, other: float | None) -> bool:
    return one is not None and other is not None and abs(one - other) > OTHER_GRADIENTS * max(abs(one), abs(other))


def as_json(report: ScriptReport, memory: int) -> str:
    """The report, for programs."""

    def figures(found: Figures | None) -> dict[str, object] | None:
        return None if found is None else {**vars(found), "steps_to_full": steps_left(found, memory)}

    def entries(lines: list[tuple[str, int, int]]) -> list[dict[str, object]]:
        return [{"file": file, "line": line, "bytes": size} for file, line, size in lines]

    document = {
        "path": str(report.script.path),
        "device": report.device,
        "device_reason": report.why,
        "torch": report.torch,
        "now": figures(report.now),
        "ended": report.ended,
        "all_fixed": figures(report.all_fixed),
        "findings": [
            {"code": cost.finding.code, "path": cost.finding.path, "line": cost.finding.span.line, "fixed": figures(cost.fixed)}
            | {"reason": "" if cost.fixed else cost.reason}
            for cost in report.costs
        ],
        "lines": entries(report.lines),
        "grown": entries(report.grown),
        "categories": report.categories,
        "gpu_memory": memory,
        "failure": report.failure,
        "finished": report.finished,
    }
    return json.dumps(document, indent=2)
