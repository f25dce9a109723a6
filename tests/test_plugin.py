"""The flake8 plugin, through flake8's own option parser and through real flake8 processes."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import pytest
from flake8 import style_guide
from flake8.options.parse_args import parse_args

from flake8_torchmem import plugin
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.plugin import TorchMemPlugin
from flake8_torchmem.rules import rule_codes
from flake8_torchmem.rules.internal import INTERNAL_RULES
from flake8_torchmem.words import DEFAULT_OFF
from tests.running import REPOSITORY, SCRIPTS, Result, flake8, run, torchmem
from tests.samples import BOTH, CLEAN, LEAK_COLUMN, LEAK_LINE, LEAKY

PLACE = f"{LEAK_LINE}:{LEAK_COLUMN}: TM201 [loss-accumulated] "
CALL_FLAKE8 = "from flake8.main.cli import main; raise SystemExit(main())"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, source in (("leaky", LEAKY), ("both", BOTH), ("clean", CLEAN)):
        (tmp_path / f"{name}.py").write_text(source)
    return tmp_path


def patched_flake8(patch: str, *arguments: str, cwd: Path) -> Result:
    """A flake8 process in which something of ours is changed first."""
    return run([sys.executable, "-c", f"{patch}\n{CALL_FLAKE8}", "--isolated", *arguments], cwd)


def reported(output: str) -> list[str]:
    return re.findall(r"^\S+:\d+:\d+: TM\d+", output, re.MULTILINE)


def test_place_code_name_and_message(folder: Path) -> None:
    result = flake8("--select=TM", "leaky.py", cwd=folder)
    assert result.out.startswith(f"leaky.py:{PLACE}")
    assert (result.status, result.out.count("\n"), result.err) == (1, 1, "")


def test_on_by_default_beside_flake8s_own_checks(folder: Path) -> None:
    out = flake8("leaky.py", cwd=folder).out
    assert PLACE in out
    assert "F401 'torch' imported but unused" in out


def test_both_doors_report_the_same_places() -> None:
    paths = sorted(path.relative_to(REPOSITORY) for path in (REPOSITORY / "fixtures").glob("TM*/*.py"))
    bad, others = [str(path) for path in paths if path.name == "bad.py"], [str(path) for path in paths if path.name != "bad.py"]
    by_flake8 = reported(flake8("--select=TM", *bad, *others[::7], cwd=REPOSITORY).out)
    by_torchmem = reported(torchmem("check", "--select=TM", *bad, *others[::7], cwd=REPOSITORY).out)
    assert sorted(by_flake8) == sorted(by_torchmem)
    assert len(by_flake8) >= len(bad) > 30


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_worker_processes_obey_the_options(folder: Path, method: str) -> None:
    if sys.platform == "win32" and method == "fork":
        pytest.skip("no fork on Windows")
    start = f"import multiprocessing; multiprocessing.set_start_method({method!r})"
    result = patched_flake8(start, "-j2", "--select=TM2", "leaky.py", "both.py", "clean.py", cwd=folder)
    assert reported(result.out) == ["both.py:10:9: TM201", "leaky.py:11:9: TM201"]
    assert result.err == ""


def test_standard_input(tmp_path: Path) -> None:
    result = flake8("--select=TM", "--stdin-display-name=src/a.py", "-", cwd=tmp_path, stdin=LEAKY.encode())
    assert result.out.startswith(f"src/a.py:{PLACE}")


def test_per_file_ignores(folder: Path) -> None:
    out = flake8("--select=TM", "--per-file-ignores=both.py:TM1", ".", cwd=folder).out
    assert reported(out) == ["./both.py:10:9: TM201", "./leaky.py:11:9: TM201"]


def test_a_failure_is_a_finding_of_its_file(folder: Path) -> None:
    patch = """if True:
    from flake8_torchmem.analysis import engine
    check = engine.check_selection
    def fail(text, path, *rest, **named):
        return check(text, path, *rest, **named) if "both" not in path else [][0]
    engine.check_selection = fail
    """
    result = patched_flake8(patch, "-j1", "--select=TM", ".", cwd=folder)
    first, second = result.out.splitlines()
    assert first == "./both.py:1:1: TM900 [internal-error] could not be checked: IndexError: list index out of range"
    assert second.startswith(f"./leaky.py:{PLACE}")
    assert (result.status, result.err) == (1, "")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], rule_codes()),
        (["--select=E,W"], frozenset()),
        (["--ignore=TM"], frozenset()),
        (["--extend-ignore=TM"], frozenset()),
        (["--select=TM201"], {"TM201"}),
        (["--select=E", "--extend-select=TM201"], {"TM201"}),
        (["--ignore=TM", "--extend-select=TM201"], {"TM201"}),
        (["--ignore=E501"], rule_codes()),
        (["--extend-ignore=TM2"], {code for code in rule_codes() if not code.startswith("TM2")}),
    ],
)
def test_only_what_flake8_would_report_runs(monkeypatch: pytest.MonkeyPatch, arguments: list[str], expected: frozenset[str]) -> None:
    monkeypatch.setattr(plugin, "DEFAULT_OFF", ())
    parse_args(["--isolated", *arguments])
    assert TorchMemPlugin.codes() - INTERNAL_RULES.keys() == expected


@pytest.mark.parametrize(
    ("arguments", "is_on"),
    [([], False), (["--extend-select=TM201"], True), (["--select=TM"], True), (["--ignore=E501"], True), (["--extend-ignore=E501"], False)],
)
def test_default_off_codes_wait_to_be_selected(monkeypatch: pytest.MonkeyPatch, arguments: list[str], is_on: bool) -> None:
    """`--ignore` replaces flake8's whole default list, and with it the default-off codes: that is flake8's own rule."""
    monkeypatch.setattr(plugin, "DEFAULT_OFF", ("TM201",))
    parse_args(["--isolated", *arguments])
    assert ("TM201" in TorchMemPlugin.codes()) is is_on


def test_default_off_codes_stay_off_in_a_run(folder: Path) -> None:
    patch = "from flake8_torchmem import plugin; plugin.DEFAULT_OFF = ('TM201',)"
    assert reported(patched_flake8(patch, "both.py", cwd=folder).out) == ["both.py:8:9: TM101"]
    selected = patched_flake8(patch, "--extend-select=TM201", "both.py", cwd=folder).out
    assert reported(selected) == ["both.py:8:9: TM101", "both.py:10:9: TM201"]


def test_the_default_off_list_is_in_step_with_the_rules() -> None:
    assert set(DEFAULT_OFF) == {rule.code for rule in catalogue().values() if not rule.default}


def test_codes_read_off_file_names_are_the_rules() -> None:
    assert rule_codes() == catalogue().keys() - INTERNAL_RULES.keys()


def test_should_flake8_change_inside_all_rules_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(style_guide, "DecisionEngine")
    TorchMemPlugin.parse_options(argparse.Namespace())
    assert TorchMemPlugin.codes() >= rule_codes()


def test_flake8_lists_the_plugin(tmp_path: Path) -> None:
    assert "flake8-torchmem: " in " ".join(run([str(SCRIPTS / "flake8"), "--version"], tmp_path).out.split())
