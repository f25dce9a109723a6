"""What every rule must bring along, and how large things may grow."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flake8_torchmem.catalogue import catalogue, page, written_page
from flake8_torchmem.rules import rule_modules
from flake8_torchmem.rules.internal import INTERNAL_RULES
from tests.running import REPOSITORY

SECTIONS = ["What it does", "Why it matters", "Example", "What it stays silent on", "Fix safety", "References"]
FIXTURE_FILES = {"bad.py", "fixed.py", "fixture.toml", "good.py"}
CASES_AT_LEAST = {"fire": 15, "silent": 25}
SHAPES = {"catch": 12, "silent": 22}  # of real code, ranked by how often they occur: what must be reported, what must not
SHAPES_AT_LEAST = 3
RULE_LINES, MODULE_LINES, FUNCTION_LINES = 150, 400, 40
HOLE = "FILL IN"
FILLED_IN = ("flake8_torchmem", "fixtures", "tests/cases", "tests/fixes")
PACKAGE_FILES = sorted((REPOSITORY / "flake8_torchmem").rglob("*.py"))
TEXT_SUFFIXES = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".cfg", ".json", ""}
NOT_OF_THE_PROJECT = re.compile(r"^\.(?!ci\b|github\b|gitignore\b|pre-commit)|^(build|dist)$|__pycache__|\.egg-info$")
PATH_OF_A_MACHINE = re.compile(r"(?<![\w.*/-])/(?:home|root|work|mnt|Users)/\w")

rules = pytest.mark.parametrize("code", rule_modules())
modules = pytest.mark.parametrize("path", PACKAGE_FILES, ids=lambda path: str(path.relative_to(REPOSITORY)))


@pytest.mark.parametrize("code", catalogue())
def test_the_row_is_complete(code: str) -> None:
    rule = catalogue()[code]
    assert rule.code == code
    assert re.fullmatch(r"TM\d{3}", code)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", rule.name)
    for text in (rule.summary, rule.since, rule.safety_reason, rule.effect):
        assert text
        assert "\n" not in text
    assert page(code).startswith(f"{code} {rule.name}: ")


def test_names_are_unique() -> None:
    names = [rule.name for rule in catalogue().values()]
    assert len(names) == len(set(names))


@rules
def test_the_file_is_named_after_the_rule(code: str) -> None:
    module = Path(str(rule_modules()[code].__file__)).stem  # type: ignore[attr-defined]
    assert module == f"{code.lower()}_{catalogue()[code].name.replace('-', '_')}"


@rules
def test_the_page_has_its_sections(code: str) -> None:
    assert re.findall(r"^## (.+)$", written_page(code), re.MULTILINE) == SECTIONS


@rules
def test_the_fixture_is_complete(code: str) -> None:
    folder = REPOSITORY / "fixtures" / f"{code}-{catalogue()[code].name}"
    assert {path.name for path in folder.iterdir() if path.is_file()} >= FIXTURE_FILES
    assert f"# expect: {code}" in (folder / "bad.py").read_text("utf-8")
    settings = (folder / "fixture.toml").read_text("utf-8")
    assert f'code = "{code}"' in settings
    assert f'name = "{catalogue()[code].name}"' in settings


def test_each_fixture_belongs_to_a_rule() -> None:
    folders = {path.name for path in (REPOSITORY / "fixtures").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == {f"{code}-{catalogue()[code].name}" for code in rule_modules()}


@rules
def test_there_are_cases_enough(code: str) -> None:
    text = (REPOSITORY / "tests" / "cases" / f"{code}.txt").read_text("utf-8")
    for kind, least in CASES_AT_LEAST.items():
        assert len(re.findall(rf"^### {kind}: ", text, re.MULTILINE)) >= least, kind


@pytest.mark.parametrize("shape", [f"{kind} {number}" for kind, count in SHAPES.items() for number in range(1, count + 1)])
def test_there_are_cases_of_each_shape_of_real_code(shape: str) -> None:
    tables = (REPOSITORY / "tests" / folder / "SHAPES.txt" for folder in ("cases", "projects"))
    kind = "fire" if shape.startswith("catch") else "silent"
    titles = re.findall(rf"^### {kind}: {shape}: (.+)$", "".join(table.read_text("utf-8") for table in tables), re.MULTILINE)
    assert len(set(titles)) >= SHAPES_AT_LEAST


def test_nothing_is_left_to_be_filled_in() -> None:
    """`torchmem-dev new-rule` leaves holes: a rule is done when there is none."""
    paths = [path for folder in FILLED_IN for path in _project_files(REPOSITORY / folder)]
    texts = ((path, path.read_text("utf-8")) for path in [*paths, REPOSITORY / "CHANGELOG.md", REPOSITORY / "README.md"])
    assert not [str(path.relative_to(REPOSITORY)) for path, text in texts if HOLE in text]


@pytest.mark.parametrize("code", catalogue())
def test_the_changelog_names_the_rule(code: str) -> None:
    assert f"{code} {catalogue()[code].name}" in " ".join((REPOSITORY / "CHANGELOG.md").read_text("utf-8").split())


def test_rules_of_the_tool_itself_are_apart() -> None:
    assert not rule_modules().keys() & INTERNAL_RULES.keys()


@modules
def test_files_stay_small(path: Path) -> None:
    limit = RULE_LINES if path.name.startswith("tm") else MODULE_LINES
    assert len(path.read_text("utf-8").splitlines()) <= limit


@modules
def test_functions_stay_small(path: Path) -> None:
    assert not [f"{name}: {length}" for name, length in _function_lengths(path) if length > FUNCTION_LINES]


def _function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """Each function with the number of lines from its first statement to its last, the docstring not counted."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            yield node.name, (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def _project_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if NOT_OF_THE_PROJECT.search(path.name):
            continue
        if path.is_dir():
            yield from _project_files(path)
        elif path.suffix in TEXT_SUFFIXES:
            yield path


def test_nothing_names_a_path_of_one_machine() -> None:
    named = {
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in _project_files(REPOSITORY)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if PATH_OF_A_MACHINE.search(line) or str(REPOSITORY) in line
    }
    assert not named
