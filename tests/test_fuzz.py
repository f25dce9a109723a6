"""The fuzzers: short runs with fixed seeds, what they have found before, and that they would see what they look for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random

import pytest

if sys.platform == "win32":
    pytest.skip("the limits of the fuzzers are those of POSIX", allow_module_level=True)

from flake8_torchmem import check_source
from flake8_torchmem.fixes import Document, Planned
from flake8_torchmem.model import Edit, Fix, Safety, Span
from flake8_torchmem.settings import Settings
from tests.fuzz import seeds
from tests.fuzz.judge import Judge
from tests.fuzz.mended import change_of_meaning, lost_comments
from tests.fuzz.minimise import minimised
from tests.fuzz.mutations import Mutator, is_python
from tests.fuzz.oracles import Problem, problem
from tests.samples import LEAK_LINE, LEAKY, UNCLEARED

KEPT = sorted((Path(__file__).parent / "data" / "crashes").glob("*.txt"))
MUTANTS, PROGRAMS = 12, 4


def dies(_data: bytes, _step: Callable[[], None]) -> Problem | None:
    os.abort()


def hangs(_data: bytes, step: Callable[[], None]) -> Problem | None:
    step()
    while True:
        pass


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_what_failed_once(path: Path) -> None:
    assert problem(path.read_bytes()) is None


def test_mutants() -> None:
    mutator = Mutator(seeds.own(), Random(7))
    with Judge() as judge:
        for _ in range(MUTANTS):
            data = mutator.mutant()
            assert judge(data) is None, data


def test_generated_programs() -> None:
    pytest.importorskip("hypothesmith", reason="it makes the programs")
    from tests.fuzz.generated import batch

    with Judge() as judge:
        for data in batch(3, PROGRAMS):
            assert judge(data) is None, data


def test_led_by_coverage() -> None:
    pytest.importorskip("atheris", reason="it tells what was reached")
    from tests.fuzz.coverage import led

    failed: list[bytes] = []
    inputs, reached = led([LEAKY, UNCLEARED], 0.02, 0, 60, failed.append)
    assert inputs > 2
    assert int(reached.split()[0]) > 100
    assert not failed


def test_seeded_bugs_are_drawn_from_all_files_in_turn(tmp_path: Path) -> None:
    for name in ("a", "b", "nothing"):
        (tmp_path / f"{name}.py").write_text(f"# {name}\n" + (UNCLEARED if name != "nothing" else "with torch.no_grad():\n    pass\n"))
    first, again = (list(islice(seeds.with_bugs([str(tmp_path)], Random(1)), 16)) for _ in range(2))
    assert first == again
    assert {data[:4] for data in first} == {b"# a\n", b"# b\n"}
    assert len(set(first)) > 2
    assert all(is_python(data.decode()) for data in first)
    for name in ("a", "b"):
        (tmp_path / f"{name}.py").unlink()
    assert not list(seeds.with_bugs([str(tmp_path)], Random(1)))


def test_mutants_are_programs_for_the_most_part_and_the_same_for_the_same_seed() -> None:
    first, again = ([mutator.mutant() for _ in range(40)] for mutator in (Mutator(seeds.own(), Random(1)) for _ in range(2)))
    assert first == again
    assert len(set(first)) == 40
    assert 20 < sum(is_python(data.decode("utf-8", "replace")) for data in first) < 40


def test_the_end_of_a_process_is_seen() -> None:
    with Judge(ask=dies) as judge:
        found = judge(b"")
        assert found is not None
        assert found.kind == "dead"
        assert "dies" in found.detail


def test_what_never_ends_is_seen() -> None:
    with Judge(limit=0.2, ask=hangs) as judge:
        found = judge(b"")
        assert found is not None
        assert found.kind == "slow"
        assert "hangs" in found.detail


def test_a_failure_within_the_engine_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise IndexError

    monkeypatch.setattr("flake8_torchmem.analysis.findings.FileFacts", fails)
    found = problem(LEAKY.encode())
    assert found is not None
    assert found.kind == "TM900"
    assert found.cause.startswith("IndexError")


def test_what_the_gates_lose_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flake8_torchmem.analysis.gate.select", lambda *_: None)
    found = problem(LEAKY.encode())
    assert found is not None
    assert (found.kind, found.cause) == ("gates", "-TM201")


def planned(column: int, text: str, end: int | None = None) -> Planned:
    """A fix of the leak, that writes something on its line."""
    (finding,) = check_source(LEAKY, settings=Settings(select=("TM201",)))
    return Planned(finding, Fix((Edit(Span(LEAK_LINE, column, LEAK_LINE, end or column), text),), Safety.SAFE))


@pytest.mark.parametrize(
    ("fix", "seen"),
    [
        (planned(22, ".item()"), ""),
        (planned(9, "x = 1\n        "), ""),
        (planned(1, "#"), "outside of the edits: AugAssign"),
        (planned(1, "    "), ""),  # that is no program
        (planned(18, "0  # loss", 22), "words gone"),
        (planned(22, "\n    return"), ""),
        (planned(22, '\n    """'), ""),
    ],
)
def test_a_change_of_meaning_is_seen(fix: Planned, seen: str) -> None:
    assert change_of_meaning(fix, Document(LEAKY, "utf-8")).startswith(seen)


def test_a_lost_comment_is_seen() -> None:
    assert lost_comments(b"x = 1  # one\ny = 2  # two\n", b"x = 1\ny = 2  # two\n") == ["# one"]


def test_what_fails_is_made_short() -> None:
    data = b"import torch\n\nx = 1\nfor x in [1, 2, 3]:\n    print(x, y=z)\n" * 3
    assert minimised(data, lambda less: b"print" in less and b"[" in less) in (b"[print", b"print[")
