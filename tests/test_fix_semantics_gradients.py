"""Fixes of the gradient rules, run: the fixed program uses, at every step, the gradients that a right one uses.

`TORCHMEM_EXAMPLES=5000` takes that many generated programs, drawn anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from flake8_torchmem.fixes import Document, Outcome, fix_document
from flake8_torchmem.settings import Settings
from tests.generation.programs import EPOCHS, LENGTH, WINDOW, Program, programs
from tests.generation.real import Shares, real_shares, symbolic_shares
from tests.generation.spec import RIGHT, Pair, Spec, Turn
from tests.generation.symbolic import Trace, run
from tests.generation.truth import truth
from tests.test_generated import EXAMPLES, generated

CODES = ("TM101", "TM102", "TM103", "TM104", "TM105", "TM106", "TM108", "TM110")
FOLDERS = sorted(path for code in CODES for path in (Path(__file__).parent.parent / "fixtures").glob(f"{code}-*"))
HONEST = {"the loss is computed after the step, which waits for a condition"}
MARK = re.compile(r"  # expect: [\w, ]+$", re.MULTILINE)


def fixed(source: str, codes: tuple[str, ...] = CODES) -> Outcome:
    return fix_document(Document(source, "utf-8"), "generated.py", Settings(select=codes), unsafe=True)


def right(turn: Turn, window: str) -> Turn:
    """The turn as it should be: where only the first micro-batch of a window clears, or the step is one turn late, it goes on to."""
    if turn.zero == "first" and "Z" in turn.order:
        return replace(turn, else_backward=False)
    late = turn.order in ("SFB", "SZFB", "SFZB") or (turn.order == "ZSFB" and window == "inner" and turn.zero == "each")
    return Turn("SZFB" if late else "FBSZ", "each" if window == "none" else "window")


def reference(program: Program) -> Program:
    """The program without its defects."""
    spec = program.spec
    if isinstance(spec, Pair):
        first, second = (order if order in RIGHT else "ZFBS" for order in spec.orders)
        return Program(replace(spec, orders=(first, second)))
    return Program(replace(spec, turns=tuple(right(turn, spec.window) for turn in spec.turns)))


def settings_of(program: Program) -> Iterator[tuple[bool, frozenset[int]]]:
    """Every precision, with and without a batch whose loss is not finite."""
    guarded = isinstance(program.spec, Spec) and program.spec.guard == "nan"
    for use_amp in program.precisions:
        for bad in (frozenset[int](), frozenset({4})) if guarded else (frozenset[int](),):
            yield use_amp, bad


def used(source: str, program: Program, use_amp: bool, bad: frozenset[int]) -> list[Shares]:
    return symbolic_shares(run(source, LENGTH, program.rows, Trace(bad), n=WINDOW, use_amp=use_amp, epochs=EPOCHS))


def same(found: list[Shares], expected: list[Shares]) -> bool:
    return len(found) == len(expected) and all(
        one.keys() == other.keys() and all(one[name] == pytest.approx(other[name]) for name in one)
        for one, other in zip(found, expected, strict=True)
    )


@generated(EXAMPLES * 2 // 3)
@given(programs())
def test_fixed_programs_use_the_right_gradients(program: Program) -> None:
    outcome = fixed(program.source)
    result = outcome.document.text
    shown = f"{program.spec}\n{program.source}\n=====\n{result}\n{[(left.finding.code, left.reason) for left in outcome.left]}"
    if not program.truth:
        assert result == program.source, shown
        return
    assert {left.reason for left in outcome.left} <= HONEST, shown
    if outcome.left:
        return
    assert fixed(result).document.text == result, shown
    for use_amp, bad in settings_of(program):
        events = run(program.source, LENGTH, program.rows, Trace(bad), n=WINDOW, use_amp=use_amp, epochs=EPOCHS)
        wrong = bool(truth([events]))
        expected = used(reference(program).source, program, use_amp, bad) if wrong else symbolic_shares(events)
        assert same(used(result, program, use_amp, bad), expected), shown


@generated(EXAMPLES // 10)
@given(programs())
def test_fixed_programs_do_so_on_torch(program: Program) -> None:
    torch = pytest.importorskip("torch", reason="the fixed programs are run on PyTorch too")
    outcome = fixed(program.source)
    if outcome.left or not outcome.fixed:
        return
    source, right_source = outcome.document.text, reference(program).source
    for use_amp, bad in settings_of(program):
        events = run(program.source, LENGTH, program.rows, Trace(bad), n=WINDOW, use_amp=use_amp, epochs=EPOCHS)
        if truth([events]):
            found, error = real_shares(torch, source, LENGTH, program.rows, EPOCHS, bad, n=WINDOW, use_amp=use_amp)
            expected, same_error = real_shares(torch, right_source, LENGTH, program.rows, EPOCHS, bad, n=WINDOW, use_amp=use_amp)
            assert type(error) is type(same_error)  # a scaler's step that comes first in the first turn of all
            assert same(found, expected), f"{program.spec}\n{source}"


@pytest.mark.parametrize("folder", FOLDERS, ids=[folder.name for folder in FOLDERS])
def test_fixed_fixtures_run_as_written_by_hand(folder: Path) -> None:
    """Bit for bit, wherever the statements of the two differ."""
    torch = pytest.importorskip("torch", reason="the fixtures are training programs: running them takes PyTorch")
    torch.set_num_threads(1)
    outcome = fixed(MARK.sub("", (folder / "bad.py").read_text(encoding="utf-8")), (folder.name[:5],))
    assert not outcome.left
    by_tool, by_hand = ({}, {})  # type: dict[str, object], dict[str, object]
    exec(compile(outcome.document.text, "<fixed>", "exec"), by_tool)
    exec(compile((folder / "fixed.py").read_text(encoding="utf-8"), "<by hand>", "exec"), by_hand)
    assert by_tool["main"](4, "cpu") == by_hand["main"](4, "cpu")  # type: ignore[operator]
