"""The picture of a measured case: the flagged program beside the mended one, for pages of any kind."""

from __future__ import annotations

from flake8_torchmem.measured import Row
from flake8_torchmem.output.svg import Series, line_plot


def plot(row: Row) -> str:
    """The `<svg>` element; empty where there is nothing to draw."""
    series = [Series("as it is", "bad", row.bad), Series("mended", "fixed", row.fixed)]
    return line_plot(series, f"{row.case}: {row.unit} over {row.beat}s", f"{row.beat}s", row.unit)
