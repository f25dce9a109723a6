"""One cell of a notebook is no Python: the others are checked, and nothing is said that mending it could make wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flake8_torchmem import check_source
from flake8_torchmem.baseline import FILE
from flake8_torchmem.notebooks import Notebook
from flake8_torchmem.notebooks.broken import MAX_NAMES
from flake8_torchmem.settings import Settings
from tests.running import REPOSITORY, torchmem
from tests.samples import UNCLEARED
from tests.test_notebooks import FIXTURES, TRAIN, cut, notebook

EVERYTHING = Settings(select=("TM",))
# What would be found in these beside a broken import or definition is wrong; of the others some cells will do.
WHOLE = [REPOSITORY / "fixtures" / name for name in ("TM214-cached-tensor/good.py", "TM403-fragmenting-loop/fixed.py")]
EACH = 5
LOOP = "for x, y in loader:\n    criterion(model(x), y).backward()\n    optimizer.step()\n"
MADE = "model = torch.nn.Linear(2, 2)\noptimizer = torch.optim.SGD(model.parameters(), lr=0.1)\ncriterion = torch.nn.MSELoss()\n"
EVALUATED = "model.eval()\nscores = []\nfor x, y in val_loader:\n    scores.append(model(x).argmax(1).eq(y).sum().item())\n"


def places(*cells: str) -> set[tuple[str, int | None, int]]:
    """Code, cell and line of what is found in a notebook that begins with a text cell."""
    found = Notebook.of(notebook(*cells))
    findings = check_source(found.text, "nb.py", EVERYTHING)
    return {(each.code, each.cell, each.span.line) for each in map(found.located, filter(found.is_sure, findings))}


def test_the_other_cells_are_checked(tmp_path: Path) -> None:
    broken = "x = 1\nprint 'loss', x\n"
    data = notebook("import torch", broken, TRAIN, "y = (", "%%time\n")
    (tmp_path / "nb.ipynb").write_bytes(data)
    first = torchmem("check", ".", cwd=tmp_path)
    assert first.status == 1
    assert first.out.startswith("./nb.ipynb:cell 4:8:9: TM201 [loss-accumulated] ")
    complaints = first.out.split("\n\n")[1].splitlines()
    assert [line.partition("]")[0] for line in complaints] == [
        "./nb.ipynb:cell 3:2: TM901 [unreadable-file",
        "./nb.ipynb:cell 5:1: TM901 [unreadable-file",
    ]
    assert complaints[1].endswith("syntax error: '(' was never closed")
    assert first.out.endswith("1 finding in 1 file; 0 files checked; 1 could not be checked\n")
    assert torchmem("check", ".", cwd=tmp_path) == first, "what is kept is what was found"
    assert torchmem("check", "--no-cache", "--jobs=2", ".", cwd=tmp_path) == first
    (tmp_path / "nb.ipynb").write_bytes(data.replace(b"y = (", b"y = [").replace(b"x = 1", b"x = 2"))
    assert torchmem("check", ".", cwd=tmp_path).out == first.out.replace("'(' was", "'[' was"), "complaints are not kept"
    assert "TM901" not in torchmem("check", "--ignore=TM901", ".", cwd=tmp_path).out


def test_without_findings_the_run_has_failed(tmp_path: Path) -> None:
    (tmp_path / "nb.ipynb").write_bytes(notebook("import torch", "x = ("))
    assert torchmem("check", ".", cwd=tmp_path).status == 2
    assert torchmem("check", "--ignore=TM901", ".", cwd=tmp_path).status == 0


def test_programs_are_told_where(tmp_path: Path) -> None:
    data = notebook("import torch", "x = 1\n\ny = (\n")
    (tmp_path / "nb.ipynb").write_bytes(data)
    row = data.decode().split("\n").index('    "y = (\\n"') + 1
    (entry,) = json.loads(torchmem("check", "--output-format=json", "nb.ipynb", cwd=tmp_path).out)["errors"]
    assert (entry["path"], entry["cell"]) == ("nb.ipynb", 3)
    assert entry["message"].startswith("nb.ipynb:cell 3:3: TM901 ")
    assert f"file=nb.ipynb,line={row},title" in torchmem("check", "--output-format=github", "nb.ipynb", cwd=tmp_path).out
    (tmp_path / "nb.ipynb").write_bytes(notebook("x = (", "y = ("))
    entries = json.loads(torchmem("check", "--output-format=gitlab", "nb.ipynb", cwd=tmp_path).out)
    assert len({entry["fingerprint"] for entry in entries}) == 2


def test_fixes_leave_the_notebook(tmp_path: Path) -> None:
    """What a sum is used for, or an import, may be written in the broken cell."""
    data = notebook("import torch", TRAIN, "print train(")
    (tmp_path / "nb.ipynb").write_bytes(data)
    result = torchmem("fix", "nb.ipynb", cwd=tmp_path)
    assert (result.status, (tmp_path / "nb.ipynb").read_bytes()) == (2, data)
    assert "nb.ipynb: TM901 [unreadable-file] cell 4, line 1: syntax error" in result.out


def test_a_baseline_forgets_nothing_of_a_notebook_that_was_not_all_checked(tmp_path: Path) -> None:
    path = tmp_path / "nb.ipynb"
    path.write_bytes(notebook("import torch", TRAIN, TRAIN.replace("train", "tune")))
    assert torchmem("baseline", ".", cwd=tmp_path).status == 0
    known = (tmp_path / FILE).read_text()
    assert '"nb.ipynb: TM201": 2' in known
    path.write_bytes(notebook("import torch", TRAIN, TRAIN.replace("train", "tune") + ")"))
    result = torchmem("check", ".", "--baseline", FILE, "--prune", cwd=tmp_path)
    assert (result.status, "TM201" in result.out) == (2, False)
    assert torchmem("baseline", ".", cwd=tmp_path).status == 2
    assert (tmp_path / FILE).read_text() == known


@pytest.mark.parametrize(
    "broken",
    ["pass", "def clear(optimizer): pass", "x = 1", "import torch\nprint model", "plot(", "model.train("],
    ids=range(6),
)
def test_what_a_broken_cell_does_not_touch_is_known(broken: str) -> None:
    broken = f"{broken}\n)"
    assert ("TM101", 4, 2) in places(f"import torch\n{MADE}", broken, LOOP)
    assert ("TM205", 4, 4) in places(f"import torch\n{MADE}", broken.replace("print model", "print 1"), EVALUATED)


@pytest.mark.parametrize(
    ("broken", "loop"),
    [
        ("def clear(optimizer):\n    optimizer.zero_grad(", f"{LOOP}    clear(optimizer)\n"),
        ("class Model(torch.nn.Module):\n    def step(self:", "model = Model()\n" + LOOP.replace("optimizer.step", "model.step")),
        ("torch.set_grad_enabled(False)\nprint 1", EVALUATED),
        ("for p in model.parameters():\n    p.requires_grad = False\nprint 1", EVALUATED),
        ("model.requires_grad_(False)\nprint 1", EVALUATED),
    ],
    ids=range(5),
)
def test_what_a_broken_cell_may_do_is_not_held_against_others(broken: str, loop: str) -> None:
    harmless = "import torch\n" + MADE
    assert not {each for each in places(harmless, broken, loop) if each[1] == 4}


def test_a_broken_cell_brings_no_finding() -> None:
    """Fixtures are cut between their statements, and cells broken in turn: what is found is among what was found in other cells."""
    expected = kept = 0
    for number, path in enumerate([*FIXTURES, *WHOLE]):
        cells = cut(path.read_text("utf-8"))
        before = places(*cells)
        for index in range(number % EACH, len(cells), 1 if path in WHOLE else EACH):
            others = {each for each in before if each[1] != index + 2}
            after = places(*cells[:index], f"{cells[index]}\n)", *cells[index + 1 :])
            assert after <= others, (path, cells[index], after - others)
            expected, kept = expected + len(others), kept + len(after)
    assert kept > 0.8 * expected, (kept, expected)


def test_lines_stay_and_comments_hold_on() -> None:
    cells = ("import torch", "# flake8: noqa\nfrom a import (\n    b,\n    c,\n)\nimport d\nx = (", TRAIN)
    found = Notebook.of(notebook(*cells))
    assert found.texts[1].split("\n") == ["# flake8: noqa", "from a import (", "    b,", "    c,", ")", "import d", "x = get_ipython()"]
    assert places(*cells) == set()
    assert Notebook.of(notebook("x = (\nimport a")).texts == ("\nimport a; x = get_ipython()",)
    assert Notebook.of(notebook("# a\nfrom a import b\nimport c\nprint b\nimport d\n")).texts == (
        "# a\nfrom a import b\nimport c\n\nimport d\n",
    )
    assert Notebook.of(notebook("print x\n# done")).texts == ("\nx = get_ipython()  # done",)


def test_a_cell_with_too_many_names_says_nothing_of_any(tmp_path: Path) -> None:
    (tmp_path / "nb.ipynb").write_bytes(notebook("import torch", TRAIN, " ".join(f"n{number}" for number in range(MAX_NAMES + 1))))
    result = torchmem("check", ".", cwd=tmp_path)
    assert (result.status, "TM201" in result.out) == (2, False)
    assert "./nb.ipynb: TM901 [unreadable-file] cell 4, line 1: syntax error" in result.out


def test_uncleared_gradients_beside_a_broken_cell() -> None:
    assert {each[0] for each in places(UNCLEARED, "x = (")} == {each[0] for each in places(UNCLEARED, "x = 1")} != set()
