"""Programs that took many seconds once: what is counted is the work, which a slow machine does not change."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from flake8_torchmem import check_source
from flake8_torchmem.analysis.facts import FileFacts
from flake8_torchmem.analysis.retention.later_uses import LaterUses
from flake8_torchmem.analysis.retention.recurrence import Recurrence
from flake8_torchmem.analysis.settled import MAX_LEVELS, settled
from flake8_torchmem.analysis.summaries import Summaries
from flake8_torchmem.fixes import Document, Outcome, fix_document
from flake8_torchmem.fixes.rounds import TOO_MANY, Rounds
from flake8_torchmem.settings import Settings
from tests.samples import LEAKY, UNCLEARED

LEVELS = 300


def counted(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> Counter[str]:
    """How often a method is called from now on."""
    found: Counter[str] = Counter()
    method = getattr(owner, name)

    def noted(*arguments: Any, **more: Any) -> Any:  # noqa: ANN401
        found[name] += 1
        return method(*arguments, **more)

    monkeypatch.setattr(owner, name, noted)
    return found


def fixed(text: str) -> Outcome:
    return fix_document(Document(text, "utf-8"), "dense.py", Settings(), unsafe=True)


def again(text: str, times: int) -> str:
    """A function so many times, under other names."""
    return "\n\n".join(text.replace("def train(", f"def train_{number}(") for number in range(times))


# A stack of layers, each with the state of the one below.
STACKED = """\
import torch


def train(loader, optimizer, criterion):
    cell = torch.nn.LSTM(8, 8)
    h_0 = c_0 = torch.zeros(1, 8)
    for inputs, targets in loader:
        optimizer.zero_grad()
{layers}
        criterion(out_{last}, targets).backward()
        optimizer.step()
        h_0, c_0 = h_{last}, c_{last}
"""
LAYER = "        out_{next}, (h_{next}, c_{next}) = cell(inputs, (h_{number}, c_{number}))"


def stacked(layers: int) -> str:
    lines = (LAYER.format(number=number, next=number + 1) for number in range(layers))
    return STACKED.format(layers="\n".join(lines), last=layers)


def test_what_a_state_is_made_of_is_found_once_per_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred lines asked 1,560,450 times, as each turn of a fixed point went over all bindings, for every call."""
    layers = 100
    bindings = 3 * layers
    asked = counted(monkeypatch, Recurrence, "_passes_on")
    found = check_source(stacked(layers), settings=Settings(select=("TM208",)))
    assert len(found) == layers  # all of them hang on the turn before
    assert layers < asked["_passes_on"] <= layers * bindings


@pytest.mark.parametrize("functions", [5, 20])
def test_later_uses_are_read_where_they_can_be(monkeypatch: pytest.MonkeyPatch, functions: int) -> None:
    """Each of 150 functions was read for each of 150 findings, and twice."""
    read = counted(monkeypatch, LaterUses, "_read")
    assert len(fixed(again(LEAKY, functions)).fixed) == functions
    assert functions <= read["_read"] <= 2 * functions


def test_later_uses_of_one_place_are_followed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = counted(monkeypatch, LaterUses, "__init__")
    line = "        total += loss\n"
    assert len(fixed(LEAKY.replace(line, line * 40)).fixed) == 40
    assert made["__init__"] == 1


# Its fix would bring a finding: the last window of each epoch goes into the next one's.
NOT_TO_BE_HAD = """\
import torch


def train(net, data, every):
    optim = torch.optim.Adagrad(net.parameters(), lr=0.1)
    criterion = torch.nn.BCEWithLogitsLoss()
    for k, (x, y) in enumerate(data):
        loss = criterion(net(x), y) / every
        loss.backward()
        if (k + 1) % every != 0:
            continue
        optim.step()
"""


@pytest.mark.parametrize("before", [0, 10, 20])
def test_a_fix_that_cannot_be_had_keeps_none_of_the_others_back(monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """One was made in each round, and there are ten rounds."""
    codes = Settings(extend_select=("TM107",))
    attempts = counted(monkeypatch, Rounds, "_checked")
    bad = NOT_TO_BE_HAD.replace("def train(", "def other(")
    text = "\n\n".join([again(UNCLEARED, before), bad, again(UNCLEARED, 20).replace("def train_", "def later_")])
    outcome = fix_document(Document(text, "utf-8"), "dense.py", codes, unsafe=True)
    assert len(outcome.fixed) == before + 20
    assert [left.finding.code for left in outcome.left] == ["TM101"]
    assert outcome.left[0].reason.startswith("the edit would bring TM107")
    assert attempts["_checked"] <= 4  # all; those that do well; the one that does not


def test_fixes_that_cannot_be_had_are_not_tried_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    codes = Settings(extend_select=("TM107",))
    text = again(NOT_TO_BE_HAD, 40)
    monkeypatch.setattr("flake8_torchmem.fixes.rounds.MAX_TRIED", 8 * len(text))
    attempts = counted(monkeypatch, Rounds, "_checked")
    outcome = fix_document(Document(text, "utf-8"), "dense.py", codes, unsafe=True)
    reasons = {left.reason for left in outcome.left if left.finding.code == "TM101"}
    assert TOO_MANY in reasons
    assert not outcome.fixed
    assert attempts["_checked"] <= 10


def test_callers_are_asked_once_however_many_ways_lead_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty functions that call one another took for ever: each way from one to another was gone."""
    functions = 24
    called = "".join(f"    f{{{number}}}(model, loader)\n" for number in range(functions))
    body = "    for x in loader:\n        kept.append(model(x))\n"
    text = "import torch\n\nkept = []\n" + "".join(
        f"\n\ndef f{number}(model, loader):\n{body}{called.format(*range(functions))}" for number in range(functions)
    )
    asked = counted(monkeypatch, FileFacts, "_prescribed")
    effects = counted(monkeypatch, Summaries, "effects")
    text += "\n\n@torch.no_grad()\ndef run(model, loader):\n    model.eval()\n    f0(model, loader)\n"
    check_source(text)
    assert asked["_prescribed"] <= 4 * functions
    assert effects["effects"] <= 20 * functions * functions


def chain(*last: str) -> str:
    """A value that is made of one that is made of one, and so on, in a loop."""
    links = (f"a{number + 1} = a{number} + x" for number in range(LEVELS))
    body = "".join(f"        {line}\n" for line in ("a0 = model(x)", *links, *last))
    return f"import torch\n\n\ndef evaluate(model, loader):\n    model.eval()\n    kept = []\n    for x in loader:\n{body}    return kept\n"


def test_values_are_followed_over_any_number_of_bindings() -> None:
    found = check_source(chain(f"kept.append(a{LEVELS})"))
    assert {finding.code for finding in found} == {"TM202", "TM205"}


class Numbers:
    """Each is one more than the one below; below the first there is nothing, or another one."""

    def __init__(self, around: int | None = None) -> None:
        self.around = around
        self.asked: Counter[int] = Counter()

    @settled(0)
    def size(self, number: int) -> int:
        self.asked[number] += 1
        below = number - 1 if number else self.around
        return 1 if below is None else self.size(below) + 1


def test_answers_that_lead_to_one_another_are_found_to_any_depth() -> None:
    numbers = Numbers()
    assert numbers.size(5_000) == 5_001
    assert numbers.size(4_999) == 5_000
    assert sum(numbers.asked.values()) <= 2 * 5_001


@pytest.mark.parametrize("around", [MAX_LEVELS // 2, 5 * MAX_LEVELS])
def test_answers_that_lead_to_themselves_are_found(around: int) -> None:
    """In a circle the first that is asked is seen as 0."""
    numbers = Numbers(around)
    assert [numbers.size(number) for number in (around, around // 2, 0)] == [around + 1, around // 2 + 1, 1]


def test_a_question_that_fails_leaves_no_answers() -> None:
    class Failing(Numbers):
        @settled(0)
        def size(self, number: int) -> int:
            return self.size(number - 1) if number else 1 // number

    failing = Failing()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            failing.size(2 * MAX_LEVELS)
    assert not failing.__dict__["_size_answers"]
