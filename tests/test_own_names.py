"""Names of a project's own are judged as what they stand for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flake8_torchmem import check_source, fix_source, torchapi
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.cache import Cache
from flake8_torchmem.ownnames import OwnNames
from flake8_torchmem.rules import rule_codes
from flake8_torchmem.settings import Settings
from tests.cases import Case, load

OWN = OwnNames(backward=("go_back",), step=("take_step",), zero_grad=("lib.wipe",), detach=("cut",), to_host=("plain",), no_grad=("quiet",))
SPOKEN = r"(?<![\w.\])])([A-Za-z_][\w.]*)"
REWRITES = [
    (rf"{SPOKEN}\.zero_grad\(\)", r"lib.wipe(\1)"),
    (rf"{SPOKEN}\.zero_grad\((set_to_none=\w+)\)", r"lib.wipe(\1, \2)"),
    (rf"{SPOKEN}\.backward\(\)", r"go_back(\1)"),
    (rf"{SPOKEN}\.backward\((\w+=[^()]*)\)", r"go_back(\1, \2)"),
    (rf"{SPOKEN}\.item\(\)", r"plain(\1)"),
    (rf"{SPOKEN}\.detach\(\)", r"cut(\1)"),
    (r"torch\.(?:no_grad|inference_mode)\(\)", "quiet()"),
]
CODES = frozenset(rule_codes())
LOOP = """\
from acme.engine import go_back, take_step
from acme import engine


def train(model, loader, optimizer, criterion):
    total = 0
    for x, y in loader:
        {clear}
        loss = criterion(model(x), y)
        go_back(loss, 0.5)
        take_step(model, optimizer, clip=1.0)
        total += {loss}
    return total
"""


def rewritten(source: str) -> str:
    for pattern, replacement in REWRITES:
        source = re.sub(pattern, replacement, source)
    return re.sub(rf"{SPOKEN}\.step\(\)", lambda m: m[0] if torchapi.looks_like_scheduler(m[1]) else f"take_step({m[1]})", source)


CASES = [case for case in load() if rewritten(case.source) != case.source][::12]


def found(source: str, own: OwnNames = OWN) -> set[tuple[int, str]]:
    return {(finding.span.line, finding.code) for finding in check_text(source, "case.py", CODES, own=own)}


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_wrappers_are_judged_as_what_they_wrap(case: Case) -> None:
    assert found(rewritten(case.source)) == found(case.source, OwnNames())


def test_without_the_names_nothing_is_known() -> None:
    source = LOOP.format(clear="pass", loss="loss")
    assert found(source, OwnNames()) == set()
    assert found(source) == {(10, "TM101"), (12, "TM201")}


@pytest.mark.parametrize("name", ["acme.engine.go_back", "engine.go_back", "go_back"])
@pytest.mark.parametrize("call", ["go_back(loss, 0.5)", "engine.go_back(loss)", "loss = scaled(engine).go_back(loss)"])
def test_bare_and_dotted_names(name: str, call: str) -> None:
    source = LOOP.format(clear="pass", loss="1").replace("go_back(loss, 0.5)", call)
    own = OwnNames(backward=(name,), step=("take_step",))
    bare_alone = "scaled" in call and "." in name
    assert found(source, own) == (set() if bare_alone else {(10, "TM101")})


@pytest.mark.parametrize("name", ["other.go_back", "gine.go_back", "back", "go_back.engine"])
def test_other_names_are_not_meant(name: str) -> None:
    assert found(LOOP.format(clear="pass", loss="1"), OwnNames(backward=(name,), step=("take_step",))) == set()


@pytest.mark.parametrize("clear", ["lib.wipe(optimizer)", "lib.wipe(model, optimizer)", "optimizer.zero_grad()"])
@pytest.mark.parametrize("loss", ["plain(loss)", "cut(loss)", "loss.cut()", "loss.sum().plain()"])
def test_what_is_cleared_and_cut_is_silent(clear: str, loss: str) -> None:
    assert found(LOOP.format(clear=clear, loss=loss)) == set()


def test_one_call_may_do_several_things() -> None:
    source = "def train(model, loader, optimizer, criterion):\n    for x, y in loader:\n        apply(criterion(model(x), y), optimizer)\n"
    assert found(source, OwnNames(backward=("apply",), step=("apply",))) == {(3, "TM101")}
    assert found(source, OwnNames(backward=("apply",), step=("apply",), zero_grad=("apply",))) == set()


@pytest.mark.parametrize("guard", ["@quiet", "@quiet()", "@lib.quiet(model)"])
def test_guards(guard: str) -> None:
    source = "import torch\n{}def evaluate(model, loader):\n    model.eval()\n    return [model(x) for x in loader]\n"
    assert {code for _, code in found(source.format(""))} >= {"TM205"}
    assert found(source.format(f"{guard}\n")) == set()
    block = source.format("").replace("    return [", "    with quiet(model):\n        return [")
    assert found(block) == set()


def test_a_call_about_nothing_that_is_seen_is_left_unknown() -> None:
    source = "import torch\n\n\ndef train(model, loader, optimizer):\n    for x in loader:\n        go_back()\n        take_step()\n"
    assert found(source) == set()


def write(folder: Path, files: dict[str, str]) -> None:
    (folder / "pyproject.toml").touch()
    for path, source in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(source)


TRAIN = "def train(model, loader, optimizer):\n    for x in loader:\n        learn(model, x, optimizer)\n"
FILES = {
    "train.py": f"from steps import learn\n\n\n{TRAIN}",
    "steps.py": "from acme import apply\n\n\ndef learn(model, x, optimizer):\n    apply(model(x).sum(), optimizer)\n",
}


def test_imported_files_are_read_with_the_same_names(tmp_path: Path) -> None:
    write(tmp_path, FILES)
    source = "import torch\n" + FILES["train.py"]
    for own, codes in ((OwnNames(), []), (OwnNames(backward=("acme.apply",), step=("acme.apply",)), ["TM101"])):
        findings = check_source(source, str(tmp_path / "train.py"), Settings(own=own), Project())
        assert [finding.code for finding in findings] == codes


def test_the_cache_knows_findings_by_the_names(tmp_path: Path) -> None:
    def cached(own: OwnNames) -> list[str]:
        cache = Cache(store, "program", Settings(own=own), None)  # type: ignore[arg-type]
        return [finding.code for finding in cache.check(LOOP.format(clear="pass", loss="1"), "a.py")]

    class Kept(dict[bytes, bytes]):
        put = dict.__setitem__

    store = Kept()
    assert [cached(OWN), cached(OwnNames()), cached(OWN)] == [["TM101"], [], ["TM101"]]


def test_fixes_know_them() -> None:
    source = LOOP.format(clear="lib.wipe(optimizer)", loss="loss")
    outcome = fix_source(source, settings=Settings(own=OWN))
    assert outcome.document.text == source.replace("total += loss", "total += loss.detach()")
    accumulating = source.replace("take_step(model, optimizer, clip=1.0)", "if total % 4 == 3:\n            take_step(optimizer)")
    accumulating = accumulating.replace("total += loss", "total += 1")
    assert "TM105" in {code for _, code in found(accumulating)}
    moved = fix_source(accumulating, settings=Settings(own=OWN), unsafe=True).document.text
    assert "take_step(optimizer)\n            lib.wipe(optimizer)\n" in moved
