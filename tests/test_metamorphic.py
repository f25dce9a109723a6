"""Rewritings that change nothing about the gradients change nothing about what is reported."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.settings import Settings
from tests.cases import Case, load
from tests.generation.programs import Program, programs
from tests.generation.rewrite import REWRITINGS
from tests.test_generated import EXAMPLES, generated

CODES = Settings().enabled_codes()
# Order, and where events stand, are followed through calls; other rules look at the function that they are in.
FOLLOWED = frozenset({"TM101", "TM102", "TM103", "TM104", "TM105"})
IN_PART = frozenset({"extracted", "peeled"})
EVERY = 1 if EXAMPLES > 300 else 12  # of the cases, per rewriting
LIMITS = {
    ("extracted", "TM101-fire-the loop is two calls away from the backward"): "now it is three",
    ("in a class", "TM402-silent-the loss is back-propagated"): "a method of that name is called once per batch",
}


def codes(source: str) -> set[str]:
    return {finding.code for finding in check_text(source, "x.py", CODES)}


def compared(name: str, before: set[str], after: set[str]) -> None:
    """The same codes; rewritings that take a function apart may hide what is not followed, and never show more."""
    if name in IN_PART:
        assert after <= before
        before, after = before & FOLLOWED, after & FOLLOWED
    assert after == before


def sampled(name: str) -> Iterator[Case]:
    """Every so many cases; all that are known to be beyond what is followed."""
    for number, case in enumerate(load()):
        if number % EVERY == len(name) % EVERY or (name, case.id) in LIMITS:
            yield case


@pytest.mark.parametrize("name", REWRITINGS)
def test_cases_keep_their_codes(name: str) -> None:
    applied = 0
    for case in sampled(name):
        rewritten = REWRITINGS[name](case.source)
        if rewritten is None:
            continue
        applied += 1
        before, after = codes(case.source), codes(rewritten)
        if (name, case.id) in LIMITS:
            assert before != after, "no limit any more"
            continue
        try:
            compared(name, before, after)
        except AssertionError as error:
            pytest.fail(f"{case.id}: {error}\n{rewritten}")
    assert applied


@pytest.mark.parametrize("name", REWRITINGS)
def test_generated_programs_keep_their_codes(name: str) -> None:
    @generated(EXAMPLES // 10)
    @given(programs())
    def keeps(program: Program) -> None:
        rewritten = REWRITINGS[name](program.source)
        if rewritten is not None:
            compared(name, codes(program.source), codes(rewritten))

    keeps()
