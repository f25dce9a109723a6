"""What a run leaves behind: samples at its beats, gradients at its steps, results. Plain data that travels as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

STAND_IN = "stand-in"  # the name of the device that is none
STEP, FORWARD, TURN = "step", "forward", "turn"
KINDS = (STEP, FORWARD, TURN)  # a beat is a step of an optimizer, else a call of a module from outside, else what the fixture says


@dataclass
class Sample:
    """One beat.

    Attributes:
        live: bytes on the device.
        peak: the most bytes since the last beat of this kind.
        blocks: live allocations.
        cohorts: earlier beats of which something is still alive.
        nodes: autograd nodes that live tensors hold, -1 where they were not counted.
        host: bytes of the process in memory, unshared and shared.
        reserved: bytes that the caching allocator has from the device, as far as there is one.
        seconds: since the run began.
    """

    live: int
    peak: int
    blocks: int
    cohorts: int
    nodes: int
    host: int
    reserved: int
    seconds: float


@dataclass
class Gradient:
    """The gradients that one step used: their length, and a digest of all of their bytes."""

    norm: float
    digest: str


@dataclass
class Failure:
    """A run that ended early: what kind of end, in one line, after how many beats."""

    kind: str
    message: str
    beat: int


@dataclass
class Run:
    """One run of one program.

    Attributes:
        samples: by kind of beat.
        gradients: one for each step of an optimizer.
        results: numbers that the program returned.
        categories: bytes by what they are for, at the beat with the most live bytes.
        lines: bytes by the lines that made what was alive at the last beat, most first: file, line, bytes.
        grown: the same of what came to be after the warm-up.
        failure: how it ended, if not well.
    """

    samples: dict[str, list[Sample]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    gradients: list[Gradient] = field(default_factory=list)
    results: list[float] = field(default_factory=list)
    categories: dict[str, int] = field(default_factory=dict)
    lines: list[tuple[str, int, int]] = field(default_factory=list)
    grown: list[tuple[str, int, int]] = field(default_factory=list)
    failure: Failure | None = None

    def series(self, kind: str, name: str) -> list[int]:
        """One figure of every sample of a kind."""
        return [getattr(sample, name) for sample in self.samples[kind]]

    def as_json(self) -> dict[str, Any]:
        """For another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Run:
        """What `as_json` gave."""
        failure = data["failure"]
        return cls(
            {kind: [Sample(**sample) for sample in samples] for kind, samples in data["samples"].items()},
            [Gradient(**gradient) for gradient in data["gradients"]],
            data["results"],
            data["categories"],
            [(file, line, size) for file, line, size in data["lines"]],
            [(file, line, size) for file, line, size in data["grown"]],
            Failure(**failure) if failure else None,
        )
