"""The verifier's table and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

from flake8_torchmem.output.text import count, paint, printable
from flake8_torchmem.verify.fixtures import Report, Row, name_of
from flake8_torchmem.verify.verdict import Finding

COLOURS = {Finding.CONFIRMED: "1;32", Finding.REFUTED: "1;31", Finding.INCONCLUSIVE: "1;33"}


def as_json(report: Report) -> Iterator[str]:
    """One JSON object."""
    rows = [row.as_json() for row in report.rows]
    yield json.dumps({"results": rows, "device": report.device, "device_reason": report.why, "torch": report.torch}, indent=2)


class Text:
    """The report for people, bit by bit: the device, a line for each case, and at the end how many cases of each effect came out how.

    Args:
        names: of all cases to come, which are set in one column.
        colour: paint the verdicts.
    """

    def __init__(self, names: Iterable[str], colour: bool) -> None:
        self._width = max(map(len, names), default=0)
        self._colour = colour

    def head(self, report: Report) -> Iterator[str]:
        """What the cases run on."""
        yield f"device: {report.device or 'none'} ({printable(report.why) or 'nothing was run'}), PyTorch {report.torch or 'unknown'}"

    def rows(self, rows: Iterable[Row]) -> Iterator[str]:
        """A line for each case."""
        for row in rows:
            verdict = paint(row.verdict.verdict.value.ljust(12), COLOURS[row.verdict.verdict], self._colour)
            name = printable(name_of(row.fixture, row.case)).ljust(self._width)
            yield f"{verdict} {name}  {row.effect.ljust(9)}  {printable(row.verdict.reason)}"

    def table(self, report: Report) -> Iterator[str]:
        """Verdicts by effect, and in all."""
        counts = Counter((row.effect, row.verdict.verdict) for row in report.rows)
        effects = sorted({effect for effect, _ in counts})
        width = max(map(len, effects), default=0)
        yield ""
        yield " ".join(["effect".ljust(width), *(kind.value.rjust(12) for kind in Finding)])
        for effect in effects:
            yield " ".join([effect.ljust(width), *(str(counts[effect, kind] or "-").rjust(12) for kind in Finding)])
        totals = Counter(row.verdict.verdict for row in report.rows)
        yield ""
        yield f"{count(len(report.rows), 'case')}: " + ", ".join(f"{totals[kind]} {kind.value.lower()}" for kind in Finding)
