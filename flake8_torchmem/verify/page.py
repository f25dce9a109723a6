"""The verifier's HTML page: one plot per case, the flagged program against the fixed one. Self-contained, no scripts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from flake8_torchmem.measured import Table
from flake8_torchmem.measured.plot import plot
from flake8_torchmem.output.page import escaped, page
from flake8_torchmem.verify.fixtures import Report, Row
from flake8_torchmem.verify.record import table

STYLE = """
td.v { font-weight: 600; } .plots { display: flex; flex-wrap: wrap; gap: .5rem 2rem; } .plots figure { flex: 1 1 20rem; max-width: 28rem; }
"""


def render(report: Report) -> Iterator[str]:
    """The lines of the page."""
    yield from page("What running the fixtures shows", STYLE, _body(report))


def _body(report: Report) -> Iterator[str]:
    measured = Table.from_json(table(report, ""))
    yield f"<p>Device: {escaped(report.device)} ({escaped(report.why)}), PyTorch {escaped(report.torch)}.</p>"
    for fixture, rows in groupby(report.rows, key=lambda row: row.fixture):
        yield from _section(fixture, list(rows), measured)


def _section(fixture: str, rows: list[Row], measured: Table) -> Iterator[str]:
    yield f'<h2 id="{escaped(fixture)}">{escaped(fixture)}</h2><table>'
    for row in rows:
        verdict = row.verdict.verdict.value
        cells = "".join(f"<td>{escaped(cell)}</td>" for cell in (row.case, row.effect, row.verdict.reason))
        yield f'<tr><td class="v {verdict}">{verdict}</td>{cells}</tr>'
    yield '</table><div class="plots">'
    for row in rows:
        found = next((each for each in measured.rules.get(row.code, ()) if (each.fixture, each.case) == (row.fixture, row.case)), None)
        picture = plot(found) if found is not None else ""
        if picture:
            yield f"<figure>{picture}<figcaption>{escaped(row.case)}</figcaption></figure>"
    yield "</div>"
