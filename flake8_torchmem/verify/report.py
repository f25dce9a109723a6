"""The verifier's table and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

from flake8_torchmem.output.text import paint, printable
from flake8_torchmem.verify.fixtures import Report, Row
from flake8_torchmem.verify.verdict import Finding

COLOURS = {Finding.CONFIRMED: "1;32", Finding.REFUTED: "1;31", Finding.INCONCLUSIVE: "1;33"}


def as_json(report: Report) -> Iterator[str]:
    """One JSON object."""
    rows = [row.as_json() for row in report.rows]
    yield json.dumps({"results": rows, "device": report.device, "device_reason": report.why, "torch": report.torch}, indent=2)


def as_text(report: Report, colour: bool) -> Iterator[str]:
    """A line for each case, and a summary."""
    yield f"device: {report.device or 'none'} ({printable(report.why) or 'nothing was run'}), PyTorch {report.torch or 'unknown'}"
    names = [_name(row) for row in report.rows]
    width = max(map(len, names), default=0)
    for row, name in zip(report.rows, names, strict=True):
        verdict = paint(row.verdict.verdict.value.ljust(12), COLOURS[row.verdict.verdict], colour)
        yield f"{verdict} {name.ljust(width)}  {row.effect.ljust(9)}  {printable(row.verdict.reason)}"
    counts = Counter(row.verdict.verdict for row in report.rows)
    yield f"{len(report.rows)} cases: " + ", ".join(f"{counts[kind]} {kind.value.lower()}" for kind in Finding)


def _name(row: Row) -> str:
    return f"{row.fixture}:{row.case}" if row.case else row.fixture
