"""Training programs built from parts: what is reported is what a run on symbolic gradients shows to be wrong, at those lines.

`TORCHMEM_EXAMPLES=5000` takes that many, drawn anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.facts import FileFacts
from flake8_torchmem.analysis.flow import Budget
from flake8_torchmem.analysis.gradients.explorer import MAX_VISITS_OF_FILE
from flake8_torchmem.settings import Settings
from tests.generation.programs import EPOCHS, LENGTH, WINDOW, Program, programs
from tests.generation.real import Shares, real_shares, symbolic_shares
from tests.generation.spec import BY_INDEX, RIGHT, Spec, Turn
from tests.generation.symbolic import Trace, run

EXAMPLES = int(os.environ.get("TORCHMEM_EXAMPLES", "300"))
CODES = Settings().enabled_codes()


def generated(examples: int) -> settings:
    return settings(
        max_examples=examples,
        derandomize=EXAMPLES == 300,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def marked(program: Program, found: set[tuple[int, str]]) -> str:
    """The program with what is expected and found beside its lines."""
    lines = program.source.split("\n")
    for number, code in sorted(program.truth | found):
        kind = "right" if (number, code) in program.truth & found else "missing" if (number, code) in program.truth else "wrong"
        lines[number - 1] += f"  # {code} {kind}"
    return "\n".join(lines)


@generated(EXAMPLES)
@given(programs())
def test_what_is_reported_is_what_is_wrong(program: Program) -> None:
    found = {(finding.span.line, finding.code) for finding in check_text(program.source, "generated.py", CODES)}
    assert found == program.truth, f"{program.spec}\n{marked(program, found)}"


@generated(EXAMPLES // 4)
@given(programs())
def test_symbolic_gradients_are_those_of_torch(program: Program) -> None:
    torch = pytest.importorskip("torch", reason="the programs are run on PyTorch too")
    bad = frozenset({4} if isinstance(program.spec, Spec) and program.spec.guard == "nan" else ())
    for use_amp in program.precisions:
        events = run(program.source, LENGTH, program.rows, Trace(bad), n=WINDOW, use_amp=use_amp, epochs=EPOCHS)
        expected = symbolic_shares(events)
        found, error = real_shares(torch, program.source, LENGTH, program.rows, EPOCHS, bad, n=WINDOW, use_amp=use_amp)
        assert len(found) == len(expected) or error is not None
        for real, symbolic in zip(found, expected, strict=False):
            assert real.keys() == symbolic.keys()
            for name in real:
                assert real[name] == pytest.approx(symbolic[name]), program.source


def windows() -> Iterator[Shares]:
    """What steps should use, by hand: each window's micro-batches once; what an epoch leaves over goes into the next one's first."""
    held: dict[int, float] = {}
    for epoch in range(EPOCHS):
        for index in range(LENGTH):
            held[epoch * LENGTH + index] = 1 / WINDOW
            if (index + 1) % WINDOW == 0:
                yield {"model": held}
                held = {}


@pytest.mark.parametrize("kind", [kind for kind in BY_INDEX if kind != "last_clause"])
@pytest.mark.parametrize("setting", ["function", "method"])
def test_right_windows_use_every_micro_batch_once(kind: str, setting: str) -> None:
    program = Program(Spec((Turn("FBSZ", "window"),), window=kind, setting=setting))
    assert program.truth == set()
    (events,) = program.runs()
    for found, expected in zip(symbolic_shares(events), windows(), strict=True):
        assert found["model"] == pytest.approx(expected["model"])


@pytest.mark.parametrize("order", RIGHT)
def test_right_turns_use_their_batch_alone(order: str) -> None:
    (events,) = Program(Spec((Turn(order),), divided=False)).runs()
    assert symbolic_shares(events) == [{"model": {sample: 1.0}} for sample in range(LENGTH * EPOCHS)]


def recursive(functions: int, calls: int) -> str:
    """Functions that train and call one another."""
    parts = ["import torch\n"]
    for number in range(functions):
        called = "".join(f"    f{(number * 7 + call * 13 + 1) % functions}(model, optimizer, loader)\n" for call in range(calls))
        parts.append(
            f"def f{number}(model, optimizer, loader):\n    for x, y in loader:\n        if x > {number}:\n"
            "            optimizer.zero_grad()\n        loss = model(x, y)\n        loss.backward()\n        optimizer.step()\n" + called
        )
    return "\n\n".join(parts)


@pytest.mark.parametrize("calls", [1, 2, 6])
def test_paths_through_recursive_functions_are_bounded(calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, Budget]] = []
    init = FileFacts.__init__

    def noted(self: FileFacts, *rest: object, **more: object) -> None:
        init(self, *rest, **more)  # type: ignore[arg-type]
        seen.append((len(self.functions), self.budget))

    monkeypatch.setattr(FileFacts, "__init__", noted)
    assert not [finding for finding in check_text(recursive(500, calls), "x.py", CODES | {"TM900"}) if finding.code == "TM900"]
    ((functions, budget),) = seen
    assert -functions <= budget.left < MAX_VISITS_OF_FILE, "each function may ask once more after the budget is spent"
