"""The libcst commands: one for each rule with a fix, through the real tool, in parallel and with every kind of line end."""

from __future__ import annotations

import sys
from pathlib import Path

import libcst as cst
import pytest
from libcst.codemod import CodemodContext, CodemodTest

from flake8_torchmem import codemods
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.codemods.command import FixCommand
from flake8_torchmem.model import Safety
from tests.fixes import load
from tests.running import Result, run
from tests.samples import BOTH

RETAINED = next(case for case in load() if case.code == "TM206" and case.title == "plain training loop")
OTHER = BOTH.replace("total += loss", "total += loss.item()")  # TM101 alone, whose fix is unsafe


def codemod(*arguments: str, cwd: Path, stdin: bytes = b"") -> Result:
    command = [sys.executable, "-m", "libcst.tool", "codemod", "-x", *arguments, "--no-format"]
    return run(command, cwd, stdin)


def test_there_is_a_command_for_each_rule_with_a_fix() -> None:
    fixable = [rule for rule in catalogue().values() if rule.safety is not Safety.DISPLAY]
    assert [command.SETTINGS.select for command in codemods.COMMANDS.values()] == [(rule.code,) for rule in fixable]
    assert codemods.COMMANDS["RetainGraph"] is codemods.RetainGraph  # type: ignore[attr-defined]
    commands: list[type[FixCommand]] = [*codemods.COMMANDS.values(), codemods.FixAll]
    for command in commands:
        assert command.DESCRIPTION != FixCommand.DESCRIPTION


class TestRetainGraph(CodemodTest):
    """With libcst's own harness for commands."""

    TRANSFORM = codemods.COMMANDS["RetainGraph"]

    def test_it_mends(self) -> None:
        self.assertCodemod(RETAINED.before, RETAINED.after)

    def test_it_leaves_the_rest_alone(self) -> None:
        self.assertCodemod(RETAINED.after, RETAINED.after)


def test_what_is_left_becomes_a_warning() -> None:
    context = CodemodContext(filename="train.py")
    command = codemods.FixAll(context, no_imports=True)
    tree = cst.parse_module(OTHER)
    assert command.transform_module(tree).code == OTHER
    (warning,) = context.warnings
    assert warning.startswith("line 8: TM101 [missing-zero-grad] left: ")
    assert "--unsafe-fixes" in warning


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_the_real_tool_mends_files(tmp_path: Path, jobs: str) -> None:
    ends = {"lf": "\n", "crlf": "\r\n"}
    for name, end in ends.items():
        for number in range(6):
            (tmp_path / f"{name}{number}.py").write_bytes(RETAINED.before.replace("\n", end).encode())
    (tmp_path / "marked.py").write_bytes(b"\xef\xbb\xbf" + RETAINED.before.encode())
    (tmp_path / "generated.py").write_text("# @" + "generated\n" + RETAINED.before)
    (tmp_path / "suppressed.py").write_text(RETAINED.before.replace("=True)", "=True)  # noqa: TM206"))
    (tmp_path / "broken.py").write_text("def train(:\n")
    result = codemod("flake8_torchmem.codemods.RetainGraph", ".", "-j", jobs, "--hide-progress", cwd=tmp_path)
    for name, end in ends.items():
        for number in range(6):
            assert (tmp_path / f"{name}{number}.py").read_bytes() == RETAINED.after.replace("\n", end).encode()
    assert (tmp_path / "marked.py").read_bytes() == b"\xef\xbb\xbf" + RETAINED.after.encode()
    assert "retain_graph=True" in (tmp_path / "generated.py").read_text()
    assert "retain_graph=True" in (tmp_path / "suppressed.py").read_text()
    assert result.status == 1  # the broken file, which the tool counts
    assert "Failed to codemod 1 files." in result.err


def test_the_real_tool_takes_standard_input_and_shows_differences(tmp_path: Path) -> None:
    result = codemod("flake8_torchmem.codemods.FixAll", "-", cwd=tmp_path, stdin=RETAINED.before.encode())
    assert result.out == RETAINED.after + "\n"  # the tool's own last line end
    (tmp_path / "train.py").write_text(RETAINED.before)
    shown = codemod("flake8_torchmem.codemods.RetainGraph", "train.py", "-u", "1", "--hide-progress", cwd=tmp_path)
    assert "-        loss.backward(retain_graph=True)" in shown.out
    assert (tmp_path / "train.py").read_text() == RETAINED.before


def test_unsafe_fixes_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(OTHER)
    name = "flake8_torchmem.codemods.MissingZeroGrad"
    left = codemod(name, "train.py", "--hide-progress", cwd=tmp_path)
    assert "its fix is unsafe" in left.err
    assert (tmp_path / "train.py").read_text() == OTHER
    codemod(name, "train.py", "--hide-progress", "--unsafe-fixes", cwd=tmp_path)
    assert "optimizer.zero_grad()" in (tmp_path / "train.py").read_text()
