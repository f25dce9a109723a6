"""Verdicts from figures alone: series whose truth is known, without torch."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from flake8_torchmem.verify.series import FORWARD, STEP, Failure, Gradient, Run, Sample
from flake8_torchmem.verify.verdict import JUDGES, WARM_UP, Finding, Twins, Verdict, judge, rate, slope

ALL = frozenset(JUDGES)
BEATS = 32
FLAT = [1000] * BEATS


def run(live: Sequence[int], peaks: Sequence[int] | None = None, kind: str = STEP, cohorts: int = 1) -> Run:
    made = Run()
    pairs = zip(live, peaks or live, strict=True)
    made.samples[kind] = [Sample(size, peak, 1, cohorts, size, 0, size, float(at)) for at, (size, peak) in enumerate(pairs)]
    return made


def twins(bad: Run, fixed: Run, again: Run | None = None, exact: bool = True) -> Twins:
    return Twins(bad, again or bad, fixed, exact, ALL)


def grows(bad: Sequence[int], fixed: Sequence[int] = FLAT, exact: bool = True) -> Verdict:
    return judge("grows", twins(run(bad), run(fixed), exact=exact))


def leak(size: int, beats: int = BEATS) -> list[int]:
    return [1000 + size * beat for beat in range(beats)]


def test_a_leak_of_four_bytes_is_a_leak() -> None:
    verdict = grows(leak(4))
    assert verdict.verdict is Finding.CONFIRMED
    assert verdict.figures["bytes_per_beat"] == 4


def test_flat_is_refuted() -> None:
    assert grows(FLAT).verdict is Finding.REFUTED


def test_warm_up_is_no_growth() -> None:
    assert grows([100, 600, 800, 1000, *[1000] * (BEATS - 4)]).verdict is Finding.REFUTED


def test_the_sawtooth_of_a_window_is_no_growth() -> None:
    assert grows([1000 + 500 * (beat % 4) for beat in range(BEATS)]).verdict is Finding.REFUTED


def test_a_leak_under_a_sawtooth_is_found() -> None:
    verdict = grows([1000 + 500 * (beat % 4) + 64 * (beat // 4) for beat in range(BEATS)])
    assert verdict.verdict is Finding.CONFIRMED
    assert verdict.figures["bytes_per_beat"] == 16


def test_a_bounded_cache_is_not_confirmed() -> None:
    assert grows([1000 + 64 * min(beat, 12) for beat in range(BEATS)]).verdict is not Finding.CONFIRMED


def test_a_fixed_program_that_grows_as_well_confirms_nothing() -> None:
    assert grows(leak(64), leak(64)).verdict is Finding.INCONCLUSIVE


def test_too_few_beats() -> None:
    verdict = grows(leak(64, 8), FLAT[:8])
    assert verdict.verdict is Finding.INCONCLUSIVE
    assert verdict.too_few


def test_runs_that_differ_confirm_nothing() -> None:
    assert judge("grows", twins(run(leak(64)), run(FLAT), run(leak(65)))).verdict is Finding.INCONCLUSIVE


def test_sizes_that_vary_are_confirmed_by_what_survives_alone() -> None:
    sizes = random.Random(1)
    grown, total = [], 0
    for _ in range(BEATS):
        total += sizes.randrange(100, 900)
        grown.append(total)
    noise = [sizes.randrange(100, 900) for _ in range(BEATS)]
    found = [judge("grows", twins(run(grown, cohorts=cohorts), run(noise))) for cohorts in (BEATS, 2)]
    assert [verdict.verdict for verdict in found] == [Finding.CONFIRMED, Finding.INCONCLUSIVE]
    assert judge("grows", twins(run(noise), run(noise))).verdict is Finding.INCONCLUSIVE


def test_something_that_survives_is_never_refuted() -> None:
    assert judge("grows", twins(run(FLAT, cohorts=BEATS), run(FLAT))).verdict is Finding.INCONCLUSIVE


def test_ten_thousand_series_are_never_judged_wrongly() -> None:
    numbers = random.Random(7)
    for _ in range(10_000):
        leaks = numbers.random() < 0.5
        size = numbers.choice((4, 512, 4096)) if leaks else 0
        period, height = numbers.randrange(1, 6), numbers.randrange(0, 10_000)
        noise = numbers.choice((0, 0, 3))
        warm = numbers.randrange(0, 5_000)
        beats = numbers.randrange(4, 60)
        series = [
            (0 if beat < WARM_UP else warm) + size * beat + height * (beat % period) + numbers.randrange(noise + 1) for beat in range(beats)
        ]
        verdict = grows(series, [1000] * beats).verdict
        assert verdict is not (Finding.REFUTED if leaks else Finding.CONFIRMED), series


SHAPES = ("flat", "steps", "sawtooth", "plateaus", "leak", "leak and sawtooth", "rare leak")


def shaped(numbers: random.Random, shape: str, beats: int) -> tuple[list[int], list[int]]:
    """Two runs of a program, with the noise of an allocator or without any."""
    height, size = numbers.choice((512, 4096, 100_000)), numbers.choice((512, 4096, 65_536))
    period, noise, first = numbers.randrange(2, 9), numbers.choice((0, 0, 2, 4)), numbers.randrange(1 << 20)
    rises = [numbers.randrange(beats) for _ in range(numbers.randrange(1, 4))]
    values: dict[str, Callable[[int], int]] = {
        "flat": lambda beat: 0,
        "steps": lambda beat: height * sum(rise <= beat for rise in rises),
        "sawtooth": lambda beat: height * (beat % period),
        "plateaus": lambda beat: height * min(beat // period, 3),
        "leak": lambda beat: size * beat,
        "leak and sawtooth": lambda beat: size * beat + height * (beat % period),
        "rare leak": lambda beat: size * (beat // period),
    }
    clean = [first + values[shape](beat) for beat in range(beats)]
    return tuple([value + 512 * numbers.randrange(noise + 1) for value in clean] for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("exact", [True, False])
def test_ten_thousand_shapes_are_never_judged_wrongly(exact: bool) -> None:
    numbers = random.Random(23)
    decided = 0
    for _ in range(10_000):
        shape, beats = numbers.choice(SHAPES), numbers.randrange(10, 64)
        bad, again = shaped(numbers, shape, beats)
        verdict = judge("grows", twins(run(bad), run([1000] * beats), run(bad if exact else again), exact=exact)).verdict
        assert verdict is not (Finding.REFUTED if "leak" in shape else Finding.CONFIRMED), (shape, bad)
        decided += verdict is not Finding.INCONCLUSIVE
    assert decided > 2_000


def test_nodes_are_counted_one_by_one_on_any_device() -> None:
    assert judge("host", twins(run(leak(3)), run(FLAT), exact=False)).verdict is Finding.CONFIRMED
    assert judge("host", twins(run(FLAT), run(FLAT), exact=False)).verdict is Finding.REFUTED


def test_gradients_that_are_not_there_are_told_as_such() -> None:
    empty, there = ([Gradient(norm, f"{norm}") for _ in range(4)] for norm in (0.0, 2.0))
    verdict = judge("gradients", twins(Run(gradients=empty), Run(gradients=there)))
    assert verdict.reason == "4 of 4 steps use other gradients, from step 1 on, none at all at the last"


def test_allocator_noise_below_its_rounding_is_no_growth() -> None:
    numbers = random.Random(3)
    noisy = [1000 + 512 * numbers.randrange(3) for _ in range(BEATS)]
    assert grows(noisy, exact=False).verdict is Finding.INCONCLUSIVE
    assert grows(FLAT, exact=False).verdict is Finding.REFUTED
    assert grows([size + 2048 * beat for beat, size in enumerate(noisy)], exact=False).verdict is Finding.CONFIRMED


def test_peaks() -> None:
    high, low = run(FLAT, [3000] * BEATS), run(FLAT, [2000] * BEATS)
    assert judge("peak", twins(high, low)).figures["peak_bytes_more"] == 1000
    assert judge("peak", twins(high, low)).verdict is Finding.CONFIRMED
    assert judge("peak", twins(low, high)).verdict is Finding.REFUTED
    assert judge("peak", twins(low, low)).verdict is Finding.REFUTED
    assert judge("peak", twins(run(FLAT, [2256] * BEATS), low, exact=False)).verdict is Finding.REFUTED


def test_gradients() -> None:
    right, double = ([Gradient(norm, f"{norm}") for _ in range(4)] for norm in (1.0, 2.0))
    last_bits = [Gradient(1.0, "other") for _ in range(4)]
    made = [Run(gradients=gradients, results=[1.0]) for gradients in (right, double, last_bits, right[:3])]
    found = [judge("gradients", twins(bad, made[0])).verdict for bad in made]
    assert found == [Finding.REFUTED, Finding.CONFIRMED, Finding.INCONCLUSIVE, Finding.CONFIRMED]


def test_nothing_to_compare_is_inconclusive() -> None:
    assert judge("gradients", twins(Run(), Run())).verdict is Finding.INCONCLUSIVE


@pytest.mark.parametrize("effect", sorted(JUDGES))
def test_a_failed_run_is_never_judged(effect: str) -> None:
    broken = run(leak(64))
    broken.failure = Failure("ValueError", "ValueError: no", 3)
    for pair in (twins(broken, run(FLAT)), twins(run(leak(64)), broken)):
        assert judge(effect, pair).verdict is Finding.INCONCLUSIVE


@pytest.mark.parametrize("effect", sorted(JUDGES))
def test_what_a_device_cannot_show_is_inconclusive(effect: str) -> None:
    assert judge(effect, Twins(run(leak(64)), run(leak(64)), run(FLAT), True, frozenset())).verdict is Finding.INCONCLUSIVE


def test_nothing_is_claimed() -> None:
    calm, loud = run(FLAT), run(FLAT, [3000] * BEATS)
    calm.results = loud.results = [1.0]
    assert judge("none", twins(calm, calm)).verdict is Finding.CONFIRMED
    assert judge("none", twins(loud, calm)).verdict is Finding.REFUTED


def test_the_first_kind_of_beat_that_both_have_counts() -> None:
    assert judge("grows", twins(run(leak(64), kind=FORWARD), run(FLAT, kind=FORWARD))).figures["beat"] == FORWARD
    assert judge("grows", twins(run(leak(64)), run(FLAT, kind=FORWARD))).verdict is Finding.INCONCLUSIVE


def test_rates() -> None:
    assert rate(leak(8)) == slope(leak(8)) == 8
    assert rate([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]) is None


def test_a_run_travels_as_json() -> None:
    made = run(leak(8))
    made.failure, made.lines = Failure("ValueError", "no", 3), [("train.py", 3, 40)]
    assert Run.from_json(made.as_json()) == made


def evaluated(leak: int, fixed: int = 0, passes: int = 1, steps: int = BEATS) -> Verdict:
    """Training that is flat, and evaluations between whose batches nothing steps."""

    def made(size: int) -> Run:
        found, live, clock = Run(), 1000, 0.0
        for _ in range(passes):
            for kind in [STEP] * steps + [FORWARD] * BEATS:
                live, clock = live + size * (kind == FORWARD), clock + 2
                found.samples[FORWARD].append(Sample(live, live, 1, 1, -1, 0, live, clock))
                if kind == STEP:
                    found.samples[STEP].append(Sample(live, live, 1, 1, -1, 0, live, clock + 1))
        return found

    return judge("grows", twins(made(leak), made(fixed)))


def test_a_leak_on_evaluation_alone_is_a_leak() -> None:
    for passes in (1, 2):
        verdict = evaluated(64, passes=passes)
        assert verdict.verdict is Finding.CONFIRMED
        assert verdict.figures["bytes_per_beat"] == 64
        assert verdict.figures["beat"] == FORWARD
    assert evaluated(64, passes=8, steps=4).verdict is Finding.CONFIRMED
    assert evaluated(0).verdict is Finding.REFUTED
    assert evaluated(64, fixed=64).verdict is Finding.INCONCLUSIVE
