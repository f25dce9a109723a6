"""What the figures of two programs, the flagged and the fixed one, say about a claimed effect. Arithmetic alone.

Only the effect that a rule claims is judged. Nothing is confirmed by default: both programs must have run, the flagged one twice with
the same figures, and the fixed one must lack the effect.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from statistics import median, quantiles

from flake8_torchmem.verify.series import FORWARD, KINDS, STEP, Run, Sample

WARM_UP = 4  # beats in which optimizers and caches fill
MIN_BEATS = {"grows": 12, "host": 12, "peak": 6, "time": 12}
FLAT = 0.1  # share of the flagged program's growth that the fixed one may have
ROUNDING = 512  # bytes to which a device rounds each allocation
REPEATS = 5  # how often growth must have come back: a cache that fills, or an allocator, makes some steps, too
SLOWER = 1.05


class Finding(str, Enum):
    """The three verdicts."""

    CONFIRMED = "CONFIRMED"
    REFUTED = "REFUTED"
    INCONCLUSIVE = "INCONCLUSIVE"


@dataclass(frozen=True)
class Verdict:
    """A verdict with its reason in one line, and the figures that it rests on."""

    verdict: Finding
    reason: str
    figures: dict[str, float | int | str] = field(default_factory=dict)
    too_few: bool = False


@dataclass(frozen=True)
class Twins:
    """The runs that are compared.

    Attributes:
        bad: the flagged program.
        again: the flagged program once more.
        fixed: the fixed one.
        exact: whether bytes are those that were asked for, not those that an allocator rounded.
        measures: what the backend can show at all; effects beside it are inconclusive.
    """

    bad: Run
    again: Run
    fixed: Run
    exact: bool
    measures: frozenset[str]


def judge(effect: str, twins: Twins) -> Verdict:
    """The verdict on an effect: grows, peak, host, gradients, results or time."""
    for name, run in (("flagged", twins.bad), ("flagged", twins.again), ("fixed", twins.fixed)):
        if run.failure is not None:
            return _open(f"the {name} program ended early ({run.failure.kind}: {run.failure.message})")
    if effect not in twins.measures:
        return _open(f"this device cannot show {EFFECTS.get(effect, effect)}")
    return JUDGES[effect](twins)


def _open(reason: str, too_few: bool = False, **figures: float | int | str) -> Verdict:
    return Verdict(Finding.INCONCLUSIVE, reason, figures, too_few)


def beats_of(twins: Twins, least: int) -> str | None:
    """The first kind of beat of which both programs have enough, after the warm-up."""
    runs = (twins.bad, twins.again, twins.fixed)
    return next((kind for kind in KINDS if all(len(run.samples[kind]) >= least + WARM_UP for run in runs)), None)


def rate(series: Sequence[int], repeats: int = 3) -> float | None:
    """Growth per beat of a series that grows by the same amount with every period; None if it has no period.

    Args:
        series: with the warm-up.
        repeats: how often the period must have been there.
    """
    settled = series[WARM_UP:]
    for period in range(1, len(settled) // repeats + 1):
        steps = {after - before for before, after in zip(settled, settled[period:], strict=False)}
        if len(steps) == 1:
            return steps.pop() / period
    return None


def steady(series: Sequence[int]) -> float | None:
    """Growth per beat under noise: by what a series grows that grows over every stretch of some length; None if it does not.

    Single steps, plateaus and what is thrown away now and then have stretches without growth.

    Args:
        series: with the warm-up.
    """
    settled = series[WARM_UP:]
    for length in range(1, len(settled) // REPEATS + 1):
        steps = [after - before for before, after in zip(settled, settled[length:], strict=False)]
        if min(steps) > length * ROUNDING / 2:
            return median(steps) / length
    return None


def slope(series: Sequence[int]) -> float:
    """The median growth per beat over all pairs of samples: single outliers do not move it."""
    settled = series[WARM_UP:]
    pairs = ((settled[j] - settled[i]) / (j - i) for i in range(len(settled)) for j in range(i + 1, len(settled)))
    return median(pairs)


def _growth(twins: Twins, name: str, unit: str) -> Verdict:
    kind = beats_of(twins, MIN_BEATS["grows"])
    verdict = _grown(twins, kind, name, unit) if kind is not None else _open("too few beats", too_few=True)
    if kind == FORWARD or not (verdict.verdict is Finding.REFUTED or verdict.too_few):
        return verdict
    # What only an evaluation keeps does not show from one step to the next.
    bad, again, fixed = (_evaluation(run) for run in (twins.bad, twins.again, twins.fixed))
    between = Twins(bad, again, fixed, twins.exact, twins.measures)
    if beats_of(between, MIN_BEATS["grows"]) is None:
        return verdict
    return _grown(between, FORWARD, name, unit)


def _evaluation(run: Run) -> Run:
    """The most forwards in a row that no step follows; none where no optimizer steps."""
    steps = [sample.seconds for sample in run.samples[STEP]]
    between: dict[int, list[Sample]] = {}
    for sample in run.samples[FORWARD] if steps else []:
        between.setdefault(bisect(steps, sample.seconds), []).append(sample)
    rows = [row[:-1] if ended < len(steps) else row for ended, row in between.items()]
    return Run({**Run().samples, FORWARD: max(reversed(rows), key=len, default=[])})


def _grown(twins: Twins, kind: str, name: str, unit: str) -> Verdict:
    bad, again, fixed = (run.series(kind, name) for run in (twins.bad, twins.again, twins.fixed))
    exact = twins.exact or name != "live"  # nodes are counted one by one on any device
    if exact and bad != again:
        return _open("two runs of the flagged program differ")
    in_bad, in_fixed = rate(bad), rate(fixed)
    if not exact and bad != again:
        in_bad = None  # a period of one run is chance
    if not exact:
        in_bad, in_fixed = steady(bad) if in_bad is None else in_bad, slope(fixed) if in_fixed is None else in_fixed
    beats = len(bad) - WARM_UP
    if in_bad is None or in_fixed is None:
        return _by_cohorts(twins, kind, name) if exact else _open("what there is of growth is lost in noise", too_few=True, beat=kind)
    figures: dict[str, float | int | str] = {f"{unit}_per_beat": in_bad, f"{unit}_per_beat_fixed": in_fixed, "beats": beats, "beat": kind}
    if in_bad > 0 and rate(bad, REPEATS) is None and (exact or steady(bad) is None):
        return Verdict(Finding.INCONCLUSIVE, "it grows in steps, too few to tell from a cache that fills", figures, too_few=True)
    least = 0 if exact or bad == again else ROUNDING / 2
    if in_bad > least and in_fixed <= max(in_bad * FLAT, least):
        return Verdict(Finding.CONFIRMED, f"grew by {in_bad:,.0f} {unit} per {kind} for {beats} beats, fixed by {in_fixed:,.0f}", figures)
    if in_bad > least:
        return Verdict(Finding.INCONCLUSIVE, f"the fixed program grows too, by {in_fixed:,.0f} {unit} per {kind}", figures)
    if name == "live" and _cohorts(twins.bad.samples[kind]) > FLAT:
        return Verdict(Finding.INCONCLUSIVE, "no growth, but something of earlier beats is still alive", figures, too_few=True)
    return Verdict(Finding.REFUTED, f"no growth in {beats} beats", figures)


def _cohorts(samples: Sequence[Sample]) -> float:
    """The share of beats after the warm-up of which something is alive at the end, the last ones left out."""
    counted = len(samples) - WARM_UP - 2
    return max(samples[-1].cohorts - 2, 0) / counted if counted > 0 else 0.0


def _by_cohorts(twins: Twins, kind: str, name: str) -> Verdict:
    """Sizes that vary: what survives of each beat may confirm growth, but never refute it."""
    in_bad, in_fixed = _cohorts(twins.bad.samples[kind]), _cohorts(twins.fixed.samples[kind])
    figures: dict[str, float | int | str] = {"beats_alive": in_bad, "beats_alive_fixed": in_fixed, "beat": kind}
    if name == "live" and in_bad > 1 - 2 * FLAT and in_fixed <= FLAT:
        share, rest = f"{in_bad:.0%}", f"{in_fixed:.0%}"
        return Verdict(
            Finding.CONFIRMED, f"sizes vary; something of {share} of the beats stays alive, in the fixed program of {rest}", figures
        )
    return Verdict(Finding.INCONCLUSIVE, "the series has no period", figures, too_few=True)


def _grows(twins: Twins) -> Verdict:
    return _growth(twins, "live", "bytes")


def _host(twins: Twins) -> Verdict:
    return _growth(twins, "nodes", "nodes")


def _peak(twins: Twins) -> Verdict:
    kind = beats_of(twins, MIN_BEATS["peak"])
    if kind is None:
        return _open("too few beats", too_few=True)
    bad, again, fixed = (max(run.series(kind, "peak")[WARM_UP:]) for run in (twins.bad, twins.again, twins.fixed))
    figures: dict[str, float | int | str] = {"peak_bytes": bad, "peak_bytes_fixed": fixed, "peak_bytes_more": bad - fixed, "beat": kind}
    least = 0 if twins.exact else ROUNDING
    if abs(bad - again) > least:
        return Verdict(Finding.INCONCLUSIVE, "two runs of the flagged program differ", figures)
    if bad - fixed > least:
        return Verdict(Finding.CONFIRMED, f"the peak is {bad - fixed:,} bytes higher ({bad:,} against {fixed:,})", figures)
    how = "the same" if abs(bad - fixed) <= least else f"{fixed - bad:,} bytes lower"
    return Verdict(Finding.REFUTED, f"the peak is {how}", figures)


def _gradients(twins: Twins) -> Verdict:
    bad, again, fixed = ([gradient.digest for gradient in run.gradients] for run in (twins.bad, twins.again, twins.fixed))
    if not (bad or fixed):
        return _results(twins)
    if bad != again:
        return _open("two runs of the flagged program have other gradients")
    norms = [[gradient.norm for gradient in run.gradients] for run in (twins.bad, twins.fixed)]
    figures: dict[str, float | int | str] = {"steps": len(bad), "steps_fixed": len(fixed)}
    if len(bad) != len(fixed):
        return Verdict(Finding.CONFIRMED, f"{len(bad)} steps where the fixed program makes {len(fixed)}", figures)
    differ = [index for index, pair in enumerate(zip(*norms, strict=True)) if not math.isclose(*pair, rel_tol=1e-6, abs_tol=1e-12)]
    if differ:
        first, last = differ[0], len(bad) - 1
        figures |= {"first_step": first + 1, "norm": norms[0][last], "norm_fixed": norms[1][last]}
        return Verdict(
            Finding.CONFIRMED,
            f"{len(differ)} of {len(bad)} steps use other gradients, from step {first + 1} on{_compared(norms[0][last], norms[1][last])}",
            figures,
        )
    if bad == fixed and twins.bad.results == twins.fixed.results:
        return Verdict(Finding.REFUTED, f"the gradients of all {len(bad)} steps are the same to the last bit", figures)
    return _results(twins) if bad == fixed else Verdict(Finding.INCONCLUSIVE, "the gradients differ in their last bits alone", figures)


def _compared(length: float, fixed: float) -> str:
    """How the gradients of the last step compare with those that it should have used."""
    if not (math.isfinite(length) and math.isfinite(fixed) and fixed):
        return ""
    if not length:
        return ", none at all at the last"
    times = length / fixed
    return f", {times:.2f} times as long at the last" if times >= 0.01 else f", {times:.1e} times as long at the last"


def _results(twins: Twins) -> Verdict:
    if not twins.bad.results or twins.bad.results != twins.again.results:
        return _open("the program returns nothing to compare" if not twins.bad.results else "two runs of the flagged program differ")
    count = sum(one != other for one, other in zip(twins.bad.results, twins.fixed.results, strict=False))
    count += abs(len(twins.bad.results) - len(twins.fixed.results))
    if count:
        total = max(len(twins.bad.results), len(twins.fixed.results))
        return Verdict(Finding.CONFIRMED, f"{count} of {total} results differ", {"results_that_differ": count})
    return Verdict(Finding.REFUTED, "the results are the same to the last bit", {"results_that_differ": 0})


def _none(twins: Twins) -> Verdict:
    """Nothing that can be measured: neither growth nor peak, gradients nor results differ."""
    found = [judged(twins) for judged in (_grows, _peak, _gradients)]
    shown = [verdict for verdict in found if verdict.verdict is Finding.CONFIRMED]
    if shown:
        return Verdict(Finding.REFUTED, shown[0].reason, shown[0].figures)
    undecided = [verdict for verdict in found if verdict.verdict is Finding.INCONCLUSIVE]
    return undecided[0] if undecided else Verdict(Finding.CONFIRMED, "bytes, peaks, gradients and results are alike")


def _time(twins: Twins) -> Verdict:
    kind = beats_of(twins, MIN_BEATS["time"])
    if kind is None:
        return _open("too few beats", too_few=True)
    spent = []
    for run in (twins.bad, twins.fixed):
        clock = [sample.seconds for sample in run.samples[kind]][WARM_UP:]
        spent.append(quantiles([after - before for before, after in pairwise(clock)], n=4))
    (low, middle, _), (_, base, high) = spent
    figures: dict[str, float | int | str] = {"seconds_per_beat": middle, "seconds_per_beat_fixed": base, "beat": kind}
    if middle > base * SLOWER and low > high:
        return Verdict(Finding.CONFIRMED, f"a {kind} takes {middle / base:.2f} times as long", figures)
    if middle <= base * SLOWER and high > low:
        return Verdict(Finding.REFUTED, f"a {kind} takes {middle / base:.2f} times as long", figures)
    return Verdict(Finding.INCONCLUSIVE, f"a {kind} takes {middle / base:.2f} times as long, within the noise", figures)


JUDGES: dict[str, Callable[[Twins], Verdict]] = {
    "grows": _grows, "host": _host, "peak": _peak, "gradients": _gradients, "results": _results, "time": _time, "none": _none,
}  # fmt: skip
EFFECTS = {"time": "how long something takes", "grows": "growth", "host": "host memory", "peak": "the peak"}
