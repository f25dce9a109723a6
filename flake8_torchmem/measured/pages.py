"""How rule pages quote the measured table: references in their text, and a section that shows all of a rule's figures.

A page never spells a figure of memory out. It says `{measured:drift.per_beat_bad}`: the case of the rule's fixture, and the name of a
figure of its row (see `Row`), on the stand-in device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from flake8_torchmem.measured import Row, Table, tables

REFERENCE = re.compile(r"\{measured:(?P<case>\w+)\.(?P<figure>\w+)\}")
FIGURES = (
    "per_beat_bad", "per_beat_fixed", "bytes_per_beat_bad", "bytes_per_beat_fixed", "bad_peak", "fixed_peak", "peak_more", "beats",
)  # fmt: skip
QUOTED = "virtual"  # exact, and the same on every machine
UNKNOWN = "(not measured)"
BEFORE = "\n## Example\n"  # the section stands there, after why the rule matters
NAMES = {"virtual": "the stand-in device", "cuda": "a CUDA device"}
EFFECTS = {
    "grows": "more live bytes with every beat",
    "host": "more autograd nodes in host memory with every beat",
    "peak": "a higher most of live bytes",
    "gradients": "steps use other gradients than those of the fixed program",
    "results": "the program ends with other values",
    "time": "the same takes longer",
}


def quoted(code: str, case: str, figure: str) -> str | None:
    """A figure as a page says it; None if the table does not hold it."""
    table = tables().get(QUOTED)
    row = table.row(code, case) if table is not None else None
    value = getattr(row, figure) if row is not None and figure in FIGURES else None
    return None if value is None else _number(value)


def with_figures(code: str, page: str) -> str:
    """A page with its references replaced and its section put in.

    Args:
        code: of the rule.
        page: as its file has it.
    """

    def found(match: re.Match[str]) -> str:
        return quoted(code, match["case"], match["figure"]) or UNKNOWN

    text = REFERENCE.sub(found, page)
    section = "\n".join(_section(code))
    return text.replace(BEFORE, f"\n{section}\n{BEFORE}", 1) if section else text


def _section(code: str) -> Iterator[str]:
    """All that was measured for a rule, in Markdown; nothing if there is nothing."""
    known = [table for table in tables().values() if code in table.rules]
    if known:
        yield "## Measured"
    for table in known:
        yield from ("", _title(table), "")
        yield from _rows(table.rules[code])
    if known:
        yield from ("", _legend({row.effect for table in known for row in table.rules[code]}))


def _legend(effects: set[str]) -> str:
    """What the words of the tables mean."""
    meanings = "; ".join(f"*{effect}*: {meaning}" for effect, meaning in EFFECTS.items() if effect in effects)
    return f"A beat is a step of an optimizer, or a forward where there are no steps. Effects: {meanings}."


def _title(table: Table) -> str:
    name = NAMES[table.device] if table.device == QUOTED else table.name
    return f"By `torchmem verify` on {name}, PyTorch {table.torch}, {table.measured}: `bad.py` / `fixed.py` of this rule's fixture."


def _rows(rows: tuple[Row, ...]) -> Iterator[str]:
    head = ("case", "effect", "verdict", "growth per beat", "peak bytes", "what was seen")
    lines = [head, *((row.case, row.effect, row.verdict, _growth(row), _pair(row.bad_peak, row.fixed_peak), row.reason) for row in rows)]
    # The last column is prose: padding it would only make lines long.
    widths = [max(map(len, column)) for column in list(zip(*lines, strict=True))[:-1]] + [0]
    for number, line in enumerate(lines):
        yield "| " + " | ".join(cell.replace("|", "\\|").ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        if number == 0:
            yield "|" + "|".join("-" * (max(width, 3) + 2) for width in widths) + "|"


def _growth(row: Row) -> str:
    """In nodes where those were counted, else in bytes."""
    if row.unit == "nodes":
        pair = _pair(row.per_beat_bad, row.per_beat_fixed)
        return f"{pair} nodes" if pair else ""
    pair = _pair(row.bytes_per_beat_bad, row.bytes_per_beat_fixed)
    return f"{pair} bytes" if pair else ""


def _pair(bad: float | None, fixed: float | None) -> str:
    return "" if bad is None or fixed is None else f"{_number(bad)} / {_number(fixed)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
