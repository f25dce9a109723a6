"""What the README offers to CI services holds to their schemas, and its steps do what they say."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import REPOSITORY, SCRIPTS, Result, run
from tests.samples import CLEAN, LEAKY
from tests.test_readme import README, between

ACTION = REPOSITORY / ".github" / "action" / "action.yml"
GITLAB = REPOSITORY / ".ci" / "gitlab-ci.yml"
CONTRIBUTING = REPOSITORY / "docs" / "contributing.md"
NOXFILE = REPOSITORY / "noxfile.py"
INPUTS = yaml.safe_load(ACTION.read_text("utf-8"))["inputs"]
STEPS = {step["name"]: step for step in yaml.safe_load(ACTION.read_text("utf-8"))["runs"]["steps"]}


def snippet(name: str) -> str:
    """A piece of the README without its fence."""
    shown = between(name).search(README.read_text("utf-8"))
    assert shown is not None
    return shown.group().partition("\n")[2].rpartition("```")[0]


def holds_to(schema: str, path: Path, *more: str) -> Result:
    return run([str(SCRIPTS / "check-jsonschema"), "--builtin-schema", schema, *more, str(path)], path.parent)


def test_the_action_holds_to_its_schema() -> None:
    result = holds_to("vendor.github-actions", ACTION)
    assert result.status == 0, result.out + result.err


def test_the_workflow_holds_to_its_schema(tmp_path: Path) -> None:
    path = tmp_path / "workflow.yml"
    path.write_text(snippet("github").replace("<this repository>", "owner/name").replace("<a commit or tag>", "v1"), "utf-8")
    result = holds_to("vendor.github-workflows", path)
    assert result.status == 0, result.out + result.err
    *_, step = yaml.safe_load(path.read_text("utf-8"))["jobs"]["torchmem"]["steps"]
    assert step["with"].keys() <= INPUTS.keys()


def test_the_jobs_for_gitlab_hold_to_their_schema(tmp_path: Path) -> None:
    path = tmp_path / "gitlab-ci.yml"
    path.write_text(snippet("gitlab"), "utf-8")
    for one in (path, GITLAB):
        result = holds_to("vendor.gitlab-ci", one, "--data-transform", "gitlab-ci")
        assert result.status == 0, result.out + result.err
    shown, file = (yaml.safe_load(one.read_text("utf-8"))["torchmem"] for one in (path, GITLAB))
    assert {key: file[key] for key in shown} == shown


def test_the_job_for_gitlab_writes_its_report(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(LEAKY)
    *_, command = yaml.safe_load(snippet("gitlab"))["torchmem"]["script"]
    assert run([str(SCRIPTS / command.split()[0]), *command.split()[1:]], tmp_path).status == 1
    assert len(json.loads((tmp_path / "gl-code-quality-report.json").read_text("utf-8"))) == 1


def test_inputs_of_the_action_are_documented_and_used() -> None:
    table = README.read_text("utf-8").partition("| input | default | meaning |")[2].partition("\n\n")[0]
    text = ACTION.read_text("utf-8")
    for name in INPUTS:
        assert f"`{name}`" in table
        assert f"inputs.{name} " in text


Step = Callable[..., Result]


@pytest.fixture
def step(tmp_path: Path) -> Step:
    """Runs a step of the action as a runner does, in a repository with findings."""
    if shutil.which("bash") is None or sys.platform == "win32":
        pytest.skip("there is no bash here")
    (tmp_path / "repository").mkdir()
    (tmp_path / "repository" / "train.py").write_text(LEAKY)
    files = {"RUNNER_TEMP": tmp_path, "GITHUB_OUTPUT": tmp_path / "output", "GITHUB_ENV": tmp_path / "env"}

    def run_step(name: str, **environment: str) -> Result:
        script = tmp_path / "script.sh"
        script.write_text(STEPS[name]["run"])
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
        known = {"TORCHMEM": str(SCRIPTS / "torchmem"), **{key: str(path) for key, path in files.items()}}
        return run(command, tmp_path / "repository", env={**known, **environment})

    return run_step


def inputs(**given: str) -> dict[str, str]:
    """The environment of the step that checks."""
    names = {"PATHS": "paths", "ARGUMENTS": "arguments", "BASELINE": "baseline", "DIFF_BASE": "diff-base", "ANNOTATE": "annotate"}
    assert STEPS["Check"]["env"] == {key: f"${{{{ inputs.{name} }}}}" for key, name in names.items()}
    return {key: INPUTS[name]["default"] for key, name in names.items()} | given


def output(folder: Path) -> dict[str, str]:
    return dict(line.split("=", 1) for line in (folder / "output").read_text("utf-8").splitlines())


def test_the_action_checks_annotates_and_writes_a_report(tmp_path: Path, step: Step) -> None:
    result = step("Check", **inputs())
    assert result.status == 0, result.err
    assert result.out.startswith("::error file=train.py,line=11,")
    found = output(tmp_path)
    assert found.keys() == {"status", "sarif-file"}
    assert found["status"] == "1"
    assert len(json.loads(Path(found["sarif-file"]).read_text("utf-8"))["runs"][0]["results"]) == 1


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"PATHS": "other.py  train.py"}, "1"),
        ({"PATHS": "other.py"}, "0"),
        ({"ARGUMENTS": "--select TM1"}, "0"),
        ({"BASELINE": "no such.json"}, "2"),
        ({"DIFF_BASE": "$(touch sprung)"}, "2"),
        ({"PATHS": "--help"}, "2"),
    ],
)
def test_inputs_reach_the_tool(tmp_path: Path, step: Step, given: dict[str, str], status: str) -> None:
    (tmp_path / "repository" / "other.py").write_text(CLEAN)
    result = step("Check", **inputs(ANNOTATE="false", **given))
    assert (result.status, result.out) == (0, "")
    assert output(tmp_path)["status"] == status
    assert not (tmp_path / "repository" / "sprung").exists()


@pytest.mark.parametrize(
    ("status", "fail", "expected"), [("0", "true", 0), ("1", "true", 1), ("1", "false", 0), ("2", "false", 2), ("", "false", 2)]
)
def test_the_job_fails_as_it_is_asked_to(step: Step, status: str, fail: str, expected: int) -> None:
    assert step("Result", STATUS=status, FAIL=fail).status == expected


def test_the_environment_of_tox(tmp_path: Path) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(snippet("tox"))
    (section,) = parser.sections()
    assert parser[section]["deps"] == "flake8-torchmem"
    program, *arguments = parser[section]["commands"].replace("{posargs:src}", "src").split()
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "train.py").write_text(LEAKY)
    assert run([str(SCRIPTS / program), *arguments], tmp_path).status == 1


def test_the_session_of_nox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, ...]] = []
    nox = types.ModuleType("nox")
    nox.Session = object  # type: ignore[attr-defined]
    nox.session = lambda function: function  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "nox", nox)
    space: dict[str, Any] = {}
    exec(snippet("nox"), space)
    session = types.SimpleNamespace(posargs=[], install=lambda *names: calls.append(names), run=lambda *words: calls.append(words))
    space["torchmem"](session)
    assert calls == [("flake8-torchmem",), ("torchmem", "check", "src")]
    assert run([str(SCRIPTS / "torchmem"), *calls[1][1:]], tmp_path, env={**os.environ}).status == 2  # there is no src


def sessions() -> set[str]:
    """What the noxfile calls its sessions; nox itself need not be installed."""
    functions = [node for node in ast.parse(NOXFILE.read_text("utf-8")).body if isinstance(node, ast.FunctionDef)]
    return {function.name for function in functions if function.decorator_list}


def test_the_sessions_are_documented() -> None:
    section = CONTRIBUTING.read_text("utf-8").partition("## Under other versions\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sessions()


def test_the_workflow_of_versions_runs_sessions(tmp_path: Path) -> None:
    shown = between("matrix").search(CONTRIBUTING.read_text("utf-8"))
    assert shown is not None
    path = tmp_path / "versions.yml"
    path.write_text(shown.group().partition("```yaml\n")[2].rpartition("```")[0], "utf-8")
    result = holds_to("vendor.github-workflows", path)
    assert result.status == 0, result.out + result.err
    jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
    classified = re.findall(r"Python :: (3\.\d+)\"", (REPOSITORY / "pyproject.toml").read_text("utf-8"))
    assert jobs["tests"]["strategy"]["matrix"]["python"] == classified
    assert {"tests", "torch", *jobs["others"]["strategy"]["matrix"]["session"]} == sessions()
