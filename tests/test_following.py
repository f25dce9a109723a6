"""Imports are resolved as Python would, within the project and its limits, and nothing that is found there can stop a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from flake8_torchmem import reach
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.imports import disk
from flake8_torchmem.analysis.imports.outline import outline
from flake8_torchmem.analysis.imports.project import Limits, Project

CODES = frozenset({"TM101", "TM201", "TM205", "TM900"})
STEP = "def step(model, x, optimizer):\n    model(x).sum().backward()\n    optimizer.step()\n"
PREDICT = """import torch


def predict(model, val_loader):
    model.eval()
    outputs = []
    for inputs in val_loader:
        outputs.append(model(inputs))
    return outputs
"""
LOOP = """
import torch

{imports}


def main(model, loader):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x in loader:
        {call}(model, x, optimizer)
"""


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def codes(folder: Path, files: dict[str, str], checked: str, limits: Limits | None = None) -> list[str]:
    """Codes that are reported in one file of a project."""
    write(folder, files)
    return found_in(folder, files, checked, Project(limits or Limits()))


def found_in(folder: Path, files: dict[str, str], checked: str, project: Project) -> list[str]:
    return [finding.code for finding in check_text(files[checked], str(folder / checked), CODES, project=project)]


@pytest.mark.parametrize(
    ("files", "checked", "imports", "call"),
    [
        ({"steps.py": STEP}, "train.py", "from steps import step", "step"),
        ({"steps.py": STEP}, "train.py", "import steps", "steps.step"),
        ({"steps.py": STEP}, "train.py", "from steps import step as one", "one"),
        ({"lib/steps.py": STEP}, "train.py", "from lib.steps import step", "step"),
        ({"lib/steps.py": STEP}, "train.py", "from lib import steps", "steps.step"),
        ({"lib/steps.py": STEP}, "train.py", "import lib.steps", "lib.steps.step"),
        ({"lib/__init__.py": "from .steps import step", "lib/steps.py": STEP}, "train.py", "from lib import step", "step"),
        ({"lib/__init__.py": "from .steps import *", "lib/steps.py": STEP}, "train.py", "from lib import step", "step"),
        ({"lib/__init__.py": "from .a import step", "lib/a.py": STEP}, "t.py", "import lib", "lib.step"),
        ({"src/lib/__init__.py": "", "src/lib/steps.py": STEP}, "scripts/train.py", "from lib.steps import step", "step"),
        ({"pkg/__init__.py": "", "pkg/steps.py": STEP}, "pkg/train.py", "from .steps import step", "step"),
        ({"pkg/__init__.py": "", "pkg/steps.py": STEP, "pkg/a/__init__.py": ""}, "pkg/a/train.py", "from ..steps import step", "step"),
        ({"pkg/__init__.py": "", "pkg/steps.py": STEP}, "pkg/train.py", "from pkg.steps import step", "step"),
        ({"tools/steps.py": STEP}, "tools/train.py", "from .steps import step", "step"),
        ({"core/steps.py": STEP}, "exp/one/train.py", "from core.steps import step", "step"),
        ({"steps.py": f"import torch\n@torch.enable_grad()\n{STEP}"}, "train.py", "from steps import step", "step"),
        ({"steps.py": f"TEXT = '''\ndef step(): pass\n'''\n\n{STEP}"}, "train.py", "from steps import step", "step"),
        ({"steps.py": STEP}, "train.py", "try:\n    from steps import step\nexcept ImportError:\n    step = None", "step"),
    ],
)
def test_found(files: dict[str, str], checked: str, imports: str, call: str, tmp_path: Path) -> None:
    loop = LOOP.format(imports=imports, call=call)
    assert codes(tmp_path, {"pyproject.toml": "", **files, checked: loop}, checked) == ["TM101"]


def test_without_a_project_a_file_is_judged_alone() -> None:
    assert check_text(LOOP.format(imports="from steps import step", call="step"), "train.py", CODES) == []


@pytest.mark.parametrize(
    "limits",
    [Limits(depth=0), Limits(definitions=0), Limits(characters=10), Limits(read=10)],
    ids=["depth", "definitions", "characters", "read"],
)
def test_limits_end_the_search(limits: Limits, tmp_path: Path) -> None:
    files = {"pyproject.toml": "", "steps.py": STEP, "train.py": LOOP.format(imports="from steps import step", call="step")}
    assert codes(tmp_path, files, "train.py", limits) == []
    assert codes(tmp_path, files, "train.py") == ["TM101"]


@pytest.mark.parametrize(("read", "found"), [(7_000, []), (20_000, ["TM101"])])
@pytest.mark.parametrize("order", [["one.py", "two.py"], ["two.py", "one.py"]], ids=" ".join)
def test_what_was_read_for_other_files_costs_as_much(order: list[str], read: int, found: list[str], tmp_path: Path) -> None:
    """The file that re-exports takes all that may be read, whether it is read now or was kept."""
    loop = LOOP.format(imports="from lib import step", call="step")
    files = {"pyproject.toml": "", "lib.py": f"from steps import step\n{'# padding' * 1_000}\n", "steps.py": STEP}
    files |= dict.fromkeys(order, loop)
    write(tmp_path, files)
    project = Project(Limits(read=read))
    assert [found_in(tmp_path, files, file, project) for file in order] == [found, found]


def test_callers_are_looked_for_within_the_limit(tmp_path: Path) -> None:
    guarded = "import torch\nfrom lib import predict\n\n\n@torch.no_grad()\ndef main(model, loader):\n    return predict(model, loader)\n"
    files = {"pyproject.toml": "", "lib.py": PREDICT, "main.py": guarded}
    assert codes(tmp_path, files, "lib.py") == []
    assert codes(tmp_path, files, "lib.py", Limits(read=0)) == ["TM205"]


def test_depth_counts_files_on_the_way(tmp_path: Path) -> None:
    files = {
        "pyproject.toml": "",
        "a.py": "from b import inner\ndef step(model, x, optimizer):\n    inner(model, x, optimizer)\n",
        "b.py": STEP.replace("def step", "def inner"),
        "train.py": LOOP.format(imports="from a import step", call="step"),
    }
    assert codes(tmp_path, files, "train.py", Limits(depth=2)) == ["TM101"]
    assert codes(tmp_path, files, "train.py", Limits(depth=1)) == []


@pytest.mark.parametrize(
    "text",
    [
        "def step(:\n",
        "\0",
        "\xff",
        "def step(model, x, optimizer):\n" + "    x = " + "(" * 300 + ")" * 300,
        "from train import main as step",
        "",
    ],
    ids=["syntax", "nul", "encoding", "depth", "cycle", "empty"],
)
def test_what_cannot_be_read_is_unknown(text: str, tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_bytes(text.encode("latin-1"))
    files = {"pyproject.toml": "", "train.py": LOOP.format(imports="from steps import step", call="step")}
    assert codes(tmp_path, files, "train.py") == []


def test_a_link_out_of_the_project_is_not_followed(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "steps.py").write_text(STEP, encoding="utf-8")
    (inside / "steps.py").symlink_to(outside / "steps.py")
    files = {"pyproject.toml": "", "train.py": LOOP.format(imports="from steps import step", call="step")}
    assert codes(inside, files, "train.py") == []


def test_an_import_above_the_project_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(STEP, encoding="utf-8")
    files = {"pyproject.toml": "", "train.py": LOOP.format(imports="from ..steps import step", call="step")}
    assert codes(tmp_path / "inner", files, "train.py") == []


def test_a_local_name_hides_the_import(tmp_path: Path) -> None:
    loop = LOOP.format(imports="from steps import step", call="step").replace("def main(model, loader)", "def main(model, loader, step)")
    assert codes(tmp_path, {"pyproject.toml": "", "steps.py": STEP, "train.py": loop}, "train.py") == []


def test_many_files_that_import_one_another_end(tmp_path: Path) -> None:
    chain = {f"m{i}.py": f"from m{i + 1} import step\nfrom m{max(i - 1, 0)} import step as other\n" for i in range(40)}
    files = {"pyproject.toml": "", **chain, "m40.py": STEP, "train.py": LOOP.format(imports="from m0 import step", call="step")}
    assert codes(tmp_path, files, "train.py") == []  # re-exported more often than anybody does


def test_an_outline_knows_what_a_module_defines_and_imports() -> None:
    text = '''"""Docstring
def not_this(): pass
"""
import a.b, c as d
if True:
    from e import f
try:
    import g
except ImportError:
    g = None
from . import h
from ..i import j as k
@decorated
class L(M):
    def method(self): pass

async def n(): pass
def o(): pass  # last
'''
    found = outline("pkg/x.py", ".", text)
    assert found.definitions.keys() >= {"L", "n", "o"}
    assert found.definitions["L"][0] == 13
    assert found.source("L") == "@decorated\nclass L(M):\n    def method(self): pass"
    assert found.imports.full.items() >= {"a": "a", "d": "c", "f": "e.f", "g": "g", "h": "h", "k": "i.j"}.items()
    assert found.imports.relative == {"h": (1, "h"), "k": (2, "i.j")}
    assert Project().scope(found, ".")["o"] == "pkg.x.o"


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of which half lead on to twenty others each, and all of which speak of `predict`."""
    folder = tmp_path_factory.mktemp("many")
    count, fan = 10_000, 20
    for number in range(count):
        others = [(number * fan + one) % count for one in range(fan)] if number % 2 else [number]
        imports = "".join(f"from m{one} import step{one}\nfrom m{one} import *\n" for one in others)
        calls = "".join(f"    step{one}(model, x, optimizer)\n" for one in others)
        text = f"from lib import predict\n{imports}\n\ndef step{number}(model, x, optimizer):\n{calls}    predict(model, x)\n"
        (folder / f"m{number}.py").write_text(text)
    return folder


WIDE = Limits(depth=10_000, definitions=10_000, characters=100_000_000)


@pytest.mark.parametrize(
    ("limits", "most"),
    [(Limits(), 60), (replace(WIDE, read=100_000), 40), (replace(WIDE, read=400_000), 160)],
    ids=["default", "narrow", "wide"],
)
def test_ten_thousand_files_are_followed_as_far_as_the_limits_go(
    ten_thousand: Path, limits: Limits, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read is counted, and not the time."""
    sizes = counted(monkeypatch)
    imports = "".join(f"from m{number} import step{number}\n" for number in range(1, 400, 2))
    calls = "".join(f"        step{number}(model, x, optimizer)\n" for number in range(1, 400, 2))
    loop = LOOP.format(imports=imports, call="last").replace("        last(", f"{calls}        step(")
    found = codes(ten_thousand, {"pyproject.toml": "", "train.py": loop}, "train.py", limits)
    assert "TM900" not in found
    assert most / 2 < len(sizes) <= most
    assert sum(sizes) <= limits.read + max(sizes)


@pytest.mark.parametrize("searched", [200_000, 2_000_000])
def test_callers_are_searched_in_ten_thousand_files_as_far_as_the_limit_goes(
    ten_thousand: Path, searched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = counted(monkeypatch)
    limits = Limits(read=100_000, searched=searched)
    assert codes(ten_thousand, {"pyproject.toml": "", "lib.py": PREDICT}, "lib.py", limits) == ["TM205"]
    assert searched < sum(sizes) < searched + 2 * (limits.read + max(sizes))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of all files that are read for imports from now on."""
    sizes: list[int] = []
    read = reach.read_regular

    def watched(path: str, most: int) -> bytes:
        data = read(path, most)
        sizes.append(len(data))
        return data

    monkeypatch.setattr(disk, "read_regular", watched)
    return sizes
