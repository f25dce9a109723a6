"""The verifier's HTML page: one plot per case, live bytes over the beats, flagged against fixed. Self-contained, no scripts."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from flake8_torchmem.verify.fixtures import Report, Row
from flake8_torchmem.verify.series import KINDS, Run

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --paper: #ffffff; --line: #d9dde1;
  --ok: #18794e; --no: #c62a2f; --open: #8a6100; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #15181b; --line: #33393f; --ok: #5bd19a; --no: #ff8589; --open: #f0c14b; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .25rem .6rem .25rem 0; }
tr + tr td { border-top: 1px solid var(--line); }
.CONFIRMED { color: var(--ok); } .REFUTED { color: var(--no); } .INCONCLUSIVE { color: var(--open); } td.v { font-weight: 600; }
figure { margin: .6rem 0; display: inline-block; } figure img { max-width: 100%; background: #fff; border: 1px solid var(--line); }
figcaption { font-size: .9rem; }
"""
BAD, FIXED = "#c62a2f", "#18794e"


def render(report: Report) -> Iterator[str]:
    """The lines of the page."""
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    yield f"<title>torchmem verify</title><style>{STYLE}</style></head><body><h1>What running the fixtures shows</h1>"
    yield f"<p>Device: {html.escape(report.device)} ({html.escape(report.why)}), PyTorch {html.escape(report.torch)}.</p>"
    for fixture, rows in groupby(report.rows, key=lambda row: row.fixture):
        yield from _section(fixture, list(rows))
    yield "</body></html>"


def _section(fixture: str, rows: list[Row]) -> Iterator[str]:
    yield f'<h2 id="{html.escape(fixture, quote=True)}">{html.escape(fixture)}</h2><table>'
    for row in rows:
        verdict = row.verdict.verdict.value
        cells = f"<td>{html.escape(row.case)}</td><td>{html.escape(row.effect)}</td><td>{html.escape(row.verdict.reason)}</td>"
        yield f'<tr><td class="v {verdict}">{verdict}</td>{cells}</tr>'
    yield "</table>"
    for row in rows:
        picture = _plot(row)
        if picture:
            text = html.escape(f"{row.case}: live bytes, flagged against fixed")
            yield f'<figure><img alt="{text}" src="data:image/png;base64,{picture}"><figcaption>{text}</figcaption></figure>'


def _plot(row: Row) -> str:
    """A picture of the two runs, as base64; empty where there is nothing to draw."""
    runs = [(name, row.runs[name], colour) for name, colour in (("bad", BAD), ("fixed", FIXED)) if name in row.runs]
    kind = next((kind for kind in KINDS if runs and all(len(run.samples[kind]) > 1 for _, run, _ in runs)), None)
    if kind is None:
        return ""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for name, run, colour in runs:
        _draw(axes, name, run, kind, colour)
    axes.set_xlabel(f"{kind}s")
    axes.set_ylabel("autograd nodes" if row.effect == "host" else "bytes")
    axes.ticklabel_format(axis="y", style="plain")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _draw(axes: Any, name: str, run: Run, kind: str, colour: str) -> None:  # noqa: ANN401
    nodes = run.series(kind, "nodes")
    if nodes[-1] >= 0:
        axes.plot(nodes, color=colour, label=f"{name}: nodes")
        return
    axes.plot(run.series(kind, "live"), color=colour, label=f"{name}: live")
    axes.plot(run.series(kind, "peak"), color=colour, linestyle=":", linewidth=1, label=f"{name}: peak")
