"""What may import what: start-up stays cheap, and linting never touches torch."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import REPOSITORY, run, torchmem
from tests.samples import LEAKY

PACKAGE = REPOSITORY / "flake8_torchmem"
HEAVY = {"libcst", "click", "rich", "pathspec", "torch"}
STANDARD_LIBRARY_ALONE = ("model", "analysis/ir", "analysis/flow", "analysis/values", "analysis/gradients", "analysis/retention/lifetime")
WRITERS_OF_SYNTAX = ("fixes", "codemods")
PLAIN = "import os\n\n\ndef loss(step):\n    return os.getcwd(), step\n"
CALL_FLAKE8 = "from flake8.main.cli import main; main(['--isolated', '-j1', 'a.py'])"
CALL_TORCHMEM = "from flake8_torchmem.cli import torchmem; torchmem.main(['check', 'a.py'], standalone_mode=False)"


def loaded(code: str, cwd: Path) -> set[str]:
    """The modules that are there after running the code."""
    result = run([sys.executable, "-c", f"{code}\nimport sys\nprint('loaded', *sys.modules)"], cwd)
    assert result.status == 0, result.err
    return set(result.out.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module", ["flake8_torchmem", "flake8_torchmem.plugin", "flake8_torchmem.settings", "flake8_torchmem.analysis.engine"]
)
def test_importing_is_cheap(tmp_path: Path, module: str) -> None:
    assert not loaded(f"import {module}", tmp_path) & HEAVY


def test_flake8s_start_up_imports_no_rule(tmp_path: Path) -> None:
    assert not [name for name in loaded("import flake8_torchmem.plugin", tmp_path) if name.startswith("flake8_torchmem.rules.tm")]


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.partition(".")[0] == "flake8_torchmem"}


def test_flake8_on_code_without_torch(tmp_path: Path) -> None:
    """What every run of flake8 pays for: no more than the look at the text."""
    (tmp_path / "a.py").write_text(PLAIN)
    names = loaded(CALL_FLAKE8, tmp_path)
    assert ours(names) == {"flake8_torchmem", "flake8_torchmem.plugin", "flake8_torchmem.words"}
    assert not names & {*HEAVY, "dataclasses", "pkgutil"}


def test_flake8_on_code_with_torch_that_trains_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(f"import torch\n{PLAIN}")
    names = loaded(CALL_FLAKE8, tmp_path)
    assert "flake8_torchmem.analysis.gate" in names
    assert not names & {*HEAVY, "flake8_torchmem.analysis.engine", "flake8_torchmem.analysis.ir", "flake8_torchmem.model"}


def test_flake8_with_all_our_codes_off(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    off = CALL_FLAKE8.replace("'a.py'", "'--extend-ignore=TM', 'a.py'")
    assert not loaded(off, tmp_path) & {"libcst", "flake8_torchmem.analysis.engine"}
    assert loaded(CALL_FLAKE8, tmp_path) >= {"flake8_torchmem.analysis.engine"}


def test_torchmem_on_code_that_trains_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(PLAIN)
    assert not loaded(CALL_TORCHMEM, tmp_path) & {"libcst", "rich", "torch"}


def test_a_second_run_over_the_same_files_imports_no_analysis(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    call = CALL_TORCHMEM.replace("'a.py'", "'a.py', '--jobs=1', '--cache-dir=kept'")
    analysis = {"flake8_torchmem.analysis.gate", "flake8_torchmem.analysis.engine"}
    assert loaded(call, tmp_path) >= analysis
    names = loaded(call, tmp_path)
    assert not names & {*analysis, "flake8_torchmem.catalogue", "importlib.metadata", "libcst", "rich", "torch"}
    assert not [name for name in names if name.startswith("flake8_torchmem.rules.tm")]


def test_linting_imports_nothing_that_mends(tmp_path: Path) -> None:
    bad = {path.parent.name[:5]: str(path) for path in (REPOSITORY / "fixtures").glob("*/bad.py")}
    lint = f"""
from flake8_torchmem import check_source
from flake8_torchmem.settings import Settings
for code, path in {bad}.items():
    with open(path, "rb") as file:
        assert code in {{finding.code for finding in check_source(file.read(), path, Settings(select=("TM",)))}}
"""
    mending = {"libcst", "flake8_torchmem.remedies", "flake8_torchmem.analysis.mended"}
    assert not loaded(lint, tmp_path) & mending
    assert loaded(f"{lint}from flake8_torchmem import fix_source\nfix_source({LEAKY!r})", tmp_path) >= mending


@pytest.mark.parametrize("output_format", ["text", "json", "github", "gitlab", "junit"])
def test_reports_without_fixes_import_nothing_that_plans_them(tmp_path: Path, output_format: str) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    call = CALL_TORCHMEM.replace("'a.py'", f"'a.py', '--output-format={output_format}', '--output-file={os.devnull}'")
    names = loaded(call, tmp_path)
    assert "flake8_torchmem.output" in names
    assert not [name for name in names if name.startswith(("flake8_torchmem.fixes", "flake8_torchmem.measured"))]


def test_linting_never_imports_torch(tmp_path: Path) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    (tmp_path / "a.py").write_text(LEAKY)
    result = torchmem("check", "a.py", cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), str(REPOSITORY)])})
    assert "TM201" in result.out
    assert "torch was imported" not in result.out + result.err


def modules_of(parts: tuple[str, ...]) -> Iterator[Path]:
    """The files of these modules and packages, as far as they exist."""
    for part in parts:
        yield from (PACKAGE / part).rglob("*.py")
        if (PACKAGE / f"{part}.py").exists():
            yield PACKAGE / f"{part}.py"


def imported(path: Path) -> set[str]:
    """The top-level names that a file imports, wherever the statement stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0] if not node.level else "flake8_torchmem")
    return names


@pytest.mark.parametrize("path", [*modules_of(STANDARD_LIBRARY_ALONE)], ids=lambda path: path.stem)
def test_analysis_stands_on_the_standard_library(path: Path) -> None:
    assert imported(path) <= {*sys.stdlib_module_names, "flake8_torchmem"}


def test_only_writers_of_syntax_import_libcst() -> None:
    writers = set(modules_of(WRITERS_OF_SYNTAX))
    assert not [path for path in PACKAGE.rglob("*.py") if "libcst" in imported(path) and path not in writers]


def test_fixtures_never_import_the_package() -> None:
    assert not [path for path in (REPOSITORY / "fixtures").rglob("*.py") if "flake8_torchmem" in imported(path)]
