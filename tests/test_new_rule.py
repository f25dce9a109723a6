"""`torchmem-dev new-rule` makes what the tests ask of a rule, and they fail until it is filled in."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.running import REPOSITORY, SCRIPTS, Result, run

LAUNCHER = REPOSITORY / "tools" / "torchmem-dev"
COPIED = ("fixtures", "flake8_torchmem", "tests", "tools")
ENDED = re.compile(r"^(PASSED|FAILED) tests/\w+\.py::(\S+)", re.MULTILINE)
RIGHT_IN_SHAPE = {
    "row": "test_the_row_is_complete[TM216]",
    "module": "test_the_file_is_named_after_the_rule[TM216]",
    "page": "test_the_page_has_its_sections[TM216]",
    "fixture": "test_the_fixture_is_complete[TM216]",
    "folder": "test_each_fixture_belongs_to_a_rule",
    "names": "test_names_are_unique",
    "changelog": "test_the_changelog_names_the_rule[TM216]",
}
TO_BE_FILLED_IN = {
    "holes": "test_nothing_is_left_to_be_filled_in",
    "cases": "test_there_are_cases_enough[TM216]",
    "example": "test_page_example[TM216]",
    "bad": "test_fixture[bad.py-TM216-some-name]",
    "fixed": "test_the_fix_makes_fixed_of_bad[TM216-some-name]",
}


def new_rule(cwd: Path, *arguments: str) -> Result:
    return run([sys.executable, str(LAUNCHER), "new-rule", *arguments], cwd)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this checkout."""
    root = tmp_path_factory.mktemp("checkout")
    for folder in COPIED:
        shutil.copytree(REPOSITORY / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("CHANGELOG.md", "README.md", "pyproject.toml"):
        shutil.copy(REPOSITORY / file, root)
    return root


@pytest.fixture(scope="module")
def made(checkout: Path) -> Result:
    """What making a rule says."""
    return new_rule(checkout / "tests", "TM216", "some-name")


@pytest.fixture(scope="module")
def ended(checkout: Path, made: Result) -> dict[str, str]:
    """How the tests of the copy ended that concern the new rule."""
    assert made.status == 0, made.err
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "tests/test_meta.py", "tests/test_fixtures.py"]
    result = run([*command, "-k", "TM216 or unique or belongs or filled"], checkout)
    return {test: word for word, test in ENDED.findall(result.out)}


def test_it_says_what_it_made_and_what_is_next(checkout: Path, made: Result) -> None:
    files = [line for line in made.out.splitlines() if line.endswith((".py", ".toml", ".txt", ".md")) and " " not in line]
    assert len(files) == 8
    assert all((checkout / file).is_file() for file in files)
    assert "DEFAULT_OFF" in made.out


@pytest.mark.parametrize("test", RIGHT_IN_SHAPE.values(), ids=RIGHT_IN_SHAPE)
def test_what_it_makes_is_right_in_shape(test: str, ended: dict[str, str]) -> None:
    assert ended[test] == "PASSED"


@pytest.mark.parametrize("test", TO_BE_FILLED_IN.values(), ids=TO_BE_FILLED_IN)
def test_nothing_passes_that_is_not_filled_in(test: str, ended: dict[str, str]) -> None:
    assert ended[test] == "FAILED"


def test_what_it_makes_is_clean(checkout: Path, made: Result) -> None:
    assert made.status == 0
    module = "flake8_torchmem/rules/tm216_some_name.py"
    for command in (["check"], ["format", "--check"]):
        result = run([str(SCRIPTS / "ruff"), *command, module], checkout)
        assert result.status == 0, result.out


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("TM16", "some-name"), "TM16: a rule's code is TM and three digits"),
        (("TM902", "some-name"), "TM902: a rule's code is TM and three digits"),
        (("TM217", "Some-name"), "Some-name: a rule's name is two words or more"),
        (("TM217", "../../other"), "../../other: a rule's name is two words or more"),
        (("TM201", "third-name"), "tm201_loss_accumulated.py: this code or name is taken"),
        (("TM217", "loss-accumulated"), "tm201_loss_accumulated.py: this code or name is taken"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(checkout: Path, arguments: tuple[str, str], cause: str) -> None:
    before = sorted(checkout.rglob("*.txt")) + sorted(checkout.rglob("*.py"))
    result = new_rule(checkout, *arguments)
    assert result.status == 2
    assert cause in result.err
    assert len(result.err.splitlines()) == 1
    assert sorted(checkout.rglob("*.txt")) + sorted(checkout.rglob("*.py")) == before


def test_outside_of_a_checkout_nothing_is_made(tmp_path: Path) -> None:
    result = new_rule(tmp_path, "TM216", "some-name")
    assert result.status == 2
    assert result.err.endswith("no checkout of flake8-torchmem is around this folder\n")
    assert not list(tmp_path.iterdir())


def test_a_rule_without_a_fix_has_no_table_of_fixes(checkout: Path) -> None:
    made = new_rule(checkout, "TM218", "other-name", "--fix", "display")
    assert made.status == 0
    assert "Safety.DISPLAY" in (checkout / "flake8_torchmem/rules/tm218_other_name.py").read_text("utf-8")
    assert not (checkout / "tests/fixes/TM218.txt").exists()
