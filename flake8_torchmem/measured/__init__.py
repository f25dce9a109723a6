"""The measured table: what running the fixtures has shown. `torchmem verify fixtures/ --record FILE` writes it, nobody else does.

There is a file for each kind of device: `virtual.json` for the stand-in device, and `cuda.json` once a real one was at hand. Each is
one JSON object:

    {"device": "virtual", "name": "stand-in", "torch": "2.13.0", "measured": "2026-11-27", "rules": {"TM201": [ROW, ...], ...}}

`name` is the device's own name, `measured` the day (UTC) on which the figures were last found to be other ones. A row is one case of a
rule's fixture:

    {"case": "drift", "fixture": "TM201-loss-accumulated", "effect": "grows", "verdict": "CONFIRMED", "reason": "grew by ...",
     "beat": "step", "beats": 48, "unit": "bytes", "bad": [...], "fixed": [...], "per_beat_bad": 18432, "per_beat_fixed": 0,
     "bytes_per_beat_bad": 18432, "bytes_per_beat_fixed": 0, "bad_peak": 900000, "fixed_peak": 80000, "figures": {...}}

- `bad` and `fixed` hold a figure for each beat, the warm-up included: live bytes on the device (`unit` is "bytes"); autograd nodes that are
  alive where the effect is "host" ("nodes"); the length of the gradient that a step used where it is "gradients" ("norm").
- `per_beat_*` is the growth of these per beat after the warm-up, null where it has no period; `bytes_per_beat_*` that of the live bytes.
  Where only an evaluation after the training grows, it is the growth of that, over the beats that `figures` has.
- `*_peak` is the most live bytes of any beat after the warm-up.
- `figures` are those that the verdict rests on, under the names that `torchmem verify --output-format json` gives them.
- What was not measured is null or empty, and `reason` says why.

This package reads that with the standard library alone, and imports neither torch nor the verifier.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

DEVICES = ("virtual", "cuda")  # in the order in which they are shown


@dataclass(frozen=True)
class Row:
    """One case, measured; see the module for what the fields hold."""

    case: str
    fixture: str
    effect: str
    verdict: str
    reason: str
    beat: str = ""
    beats: int = 0
    unit: str = "bytes"
    bad: tuple[float, ...] = ()
    fixed: tuple[float, ...] = ()
    per_beat_bad: float | None = None
    per_beat_fixed: float | None = None
    bytes_per_beat_bad: float | None = None
    bytes_per_beat_fixed: float | None = None
    bad_peak: int | None = None
    fixed_peak: int | None = None
    figures: dict[str, float | int | str] = field(default_factory=dict)

    @property
    def peak_more(self) -> int | None:
        """By how many bytes the peak of the flagged program is higher."""
        return None if self.bad_peak is None or self.fixed_peak is None else self.bad_peak - self.fixed_peak

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Row:
        """A row of a file; what a later version has added is passed over."""
        known = {name: data[name] for name in (one.name for one in fields(cls)) if name in data}
        return cls(**{**known, "bad": tuple(known.get("bad", ())), "fixed": tuple(known.get("fixed", ()))})


@dataclass(frozen=True)
class Table:
    """What was measured on one device.

    Attributes:
        device: virtual or cuda.
        name: the device's own name.
        torch: the version of PyTorch.
        measured: the day, as YYYY-MM-DD.
        rules: rows by code, in the order of the fixture.
    """

    device: str
    name: str
    torch: str
    measured: str
    rules: dict[str, tuple[Row, ...]]

    def row(self, code: str, case: str) -> Row | None:
        """One case of a rule."""
        return next((row for row in self.rules.get(code, ()) if row.case == case), None)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Table:
        """A whole file."""
        rules = {code: tuple(Row.from_json(row) for row in rows) for code, rows in data["rules"].items()}
        return cls(data["device"], data["name"], data["torch"], data["measured"], rules)


@cache
def tables() -> dict[str, Table]:
    """The shipped tables by device; one that was never measured is missing."""
    files = {device: Path(__file__).with_name(f"{device}.json") for device in DEVICES}
    return {device: Table.from_json(json.loads(file.read_text("utf-8"))) for device, file in files.items() if file.is_file()}
