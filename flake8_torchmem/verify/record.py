"""Writes the measured table that rule pages and documents quote: see `flake8_torchmem.measured` for what it holds."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from flake8_torchmem.verify.fixtures import Report, Row
from flake8_torchmem.verify.series import KINDS, Run
from flake8_torchmem.verify.verdict import WARM_UP, rate, slope
from flake8_torchmem.writing import write_whole

DIGITS = 6  # of what is no count: the rest differs from one processor to the next
_NUMBERS = re.compile(r"\[\s+([-+.\de,\s]+?)\s+\]")


def table(report: Report, day: str) -> dict[str, Any]:
    """The table of a report.

    Args:
        report: of all fixtures, on one device.
        day: on which it was measured, as YYYY-MM-DD.
    """
    rules: dict[str, list[dict[str, Any]]] = {}
    for row in report.rows:
        if row.case:  # else the folder is no fixture that can be run
            rules.setdefault(row.code, []).append(_row(row, exact=report.device == "virtual"))
    return {"device": report.device, "name": report.name, "torch": report.torch, "measured": day, "rules": dict(sorted(rules.items()))}


def _row(row: Row, exact: bool) -> dict[str, Any]:
    verdict = row.verdict
    head = {"case": row.case, "fixture": row.fixture, "effect": row.effect, "verdict": verdict.verdict.value, "reason": verdict.reason}
    figures = {name: _rounded(value) for name, value in verdict.figures.items()}
    kind = str(figures.get("beat") or _kind(row.runs.values()))
    bad, fixed = (row.runs.get(name, Run()) for name in ("bad", "fixed"))
    unit, shown = _shown(row.effect, kind, bad, fixed)
    live = [run.series(kind, "live") if kind else [] for run in (bad, fixed)]
    grown = _growth("per_beat", shown if unit in ("bytes", "nodes") else ([], []), exact or unit == "nodes")
    return {
        **head, "beat": kind, "beats": len(bad.samples[kind]) if kind else 0, "unit": unit, "bad": shown[0], "fixed": shown[1],
        **grown, **_growth("bytes_per_beat", live, exact), **_judged(figures, unit),
        "bad_peak": _peak(bad, kind), "fixed_peak": _peak(fixed, kind), "figures": figures,
    }  # fmt: skip


def _judged(figures: dict[str, Any], unit: str) -> dict[str, Any]:
    """Growth as the verdict has it: it may lie in a part of the series alone."""
    if f"{unit}_per_beat" not in figures:
        return {}
    pair = {"bad": figures[f"{unit}_per_beat"], "fixed": figures[f"{unit}_per_beat_fixed"]}
    names = ("per_beat", "bytes_per_beat") if unit == "bytes" else ("per_beat",)
    return {f"{name}_{program}": value for name in names for program, value in pair.items()}


def _kind(runs: Iterable[Run]) -> str:
    """The kind of beats that both programs have, empty where they have none in common."""
    both = list(runs)
    return next((kind for kind in KINDS if len(both) == 2 and all(run.samples[kind] for run in both)), "")


def _shown(effect: str, kind: str, bad: Run, fixed: Run) -> tuple[str, list[list[float]]]:
    """The series of both programs that say most about an effect, and their unit."""
    runs = (bad, fixed)
    if effect == "gradients" and all(run.gradients for run in runs):
        return "norm", [[_rounded(gradient.norm) for gradient in run.gradients] for run in runs]
    if not kind:
        return "bytes", [[], []]
    if effect == "host":
        return "nodes", [[*run.series(kind, "nodes")] for run in runs]
    if effect == "time":
        clocks = ([sample.seconds for sample in run.samples[kind]] for run in runs)
        return "seconds", [[_rounded(after - before) for before, after in pairwise(clock)] for clock in clocks]
    return "bytes", [[*run.series(kind, "live")] for run in runs]


def _growth(name: str, series: Sequence[Sequence[float]], exact: bool) -> dict[str, float | None]:
    """What both series grow by; on a device that rounds, their robust slope."""
    found = {}
    for program, values in zip(("bad", "fixed"), series, strict=True):
        whole = [int(value) for value in values]
        grown = (rate(whole) if exact else slope(whole)) if len(whole) > WARM_UP + 1 else None
        found[f"{name}_{program}"] = None if grown is None else _rounded(grown)
    return found


def _peak(run: Run, kind: str) -> int | None:
    peaks = run.series(kind, "peak")[WARM_UP:] if kind else []
    return max(peaks, default=None)


def _rounded(value: Any) -> Any:  # noqa: ANN401
    """Whole numbers stay what they are, others lose the digits that are noise."""
    if not isinstance(value, float):
        return value
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short


def as_text(document: dict[str, Any]) -> str:
    """The table as it lies in its file: a line for each field, series on one line, so that differences can be read."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


class OtherDeviceError(Exception):
    """The file holds figures of another device or PyTorch, for rules that were not measured now."""


def write(report: Report, path: Path, day: str) -> bool:
    """Write the table of a report, whole or not at all. Rules that the report does not cover keep what the file holds of them.

    A file that holds the same figures already keeps its day and is not touched.

    Args:
        report: of fixtures.
        path: the file.
        day: on which they were measured, as YYYY-MM-DD.

    Returns:
        Whether the figures are others than before.

    Raises:
        OtherDeviceError: what the file would keep was measured on something else.
        OSError: the file cannot be written.
    """
    old, new = _read(path), table(report, day)
    left = {code: rows for code, rows in old.get("rules", {}).items() if code not in new["rules"]}
    if left and _source(old) != _source(new):
        of = " and ".join(map(str, _source(old)))
        raise OtherDeviceError(f"it holds figures of {of} for rules that were not measured now, {min(left)} among them: measure all")
    new["rules"] = dict(sorted({**left, **new["rules"]}.items()))
    if {**old, "measured": day} == new:
        return False
    write_whole(str(path), as_text(new).encode())
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):  # none yet, or none that can be read: it is written anew
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("rules"), dict) else {}


def _source(document: dict[str, Any]) -> tuple[object, ...]:
    return document.get("name"), f"PyTorch {document.get('torch')}"
