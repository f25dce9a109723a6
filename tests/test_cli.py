"""The `torchmem` command, end to end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from flake8_torchmem import __version__
from flake8_torchmem.catalogue import catalogue
from tests.commands import command
from tests.running import SCRIPTS, run, torchmem
from tests.samples import BOTH, BROKEN, BROKEN_LINE, CLEAN, LEAK_COLUMN, LEAK_LINE, LEAKY, UNCLEARED

TEXT = {"type": "string"}
POSITION = {"type": "integer", "minimum": 1}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["version", "findings", "files_checked", "errors"],
    "properties": {
        "version": {"const": 1},
        "files_checked": {"type": "integer", "minimum": 0},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "message"],
                "properties": {"path": TEXT, "message": TEXT, "cell": POSITION},
            },
        },
        "findings": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["code", "name", "path", "line", "column", "end_line", "end_column", "severity", "message", "help"],
                "properties": {
                    "code": {"pattern": "^TM[0-9]{3}$"},
                    "name": {"pattern": "^[a-z0-9-]+$"},
                    "path": TEXT,
                    "line": POSITION,
                    "column": POSITION,
                    "end_line": POSITION,
                    "end_column": POSITION,
                    "severity": {"enum": ["error", "warning"]},
                    "message": TEXT,
                    "help": TEXT,
                },
            },
        },
    },
}


def check_json(*arguments: str, cwd: Path, stdin: bytes = b"") -> dict[str, Any]:
    document: dict[str, Any] = json.loads(torchmem("check", "--output-format=json", *arguments, cwd=cwd, stdin=stdin).out)
    jsonschema.validate(document, SCHEMA)
    return document


def codes(*arguments: str, cwd: Path) -> list[str]:
    return [finding["code"] for finding in check_json(*arguments, cwd=cwd)["findings"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "leaky.py").write_text(LEAKY)
    (tmp_path / "pkg" / "clean.py").write_text(CLEAN)
    return tmp_path


def test_text_shows_place_line_caret_and_help(folder: Path) -> None:
    result = torchmem("check", "pkg", cwd=folder)
    lines = result.out.splitlines()
    assert lines[0].startswith(f"pkg/leaky.py:{LEAK_LINE}:{LEAK_COLUMN}: TM201 [loss-accumulated] ")
    assert lines[1] == f"{LEAK_LINE} |         total += loss"
    assert lines[2].rstrip("^") == "   |         "
    assert lines[2].endswith("^")
    assert lines[3].startswith("help: ")
    assert lines[-1] == "1 finding in 1 file; 2 files checked"
    assert (result.status, result.err) == (1, "")


def test_a_clean_run_says_so_and_exits_with_0(folder: Path) -> None:
    result = torchmem("check", "pkg/clean.py", cwd=folder)
    assert (result.status, result.out, result.err) == (0, "no findings; 1 file checked\n", "")


def test_json_has_the_keys_and_the_path_as_given(folder: Path) -> None:
    document = check_json("pkg", cwd=folder)
    (finding,) = document["findings"]
    assert (finding["code"], finding["name"], finding["path"]) == ("TM201", "loss-accumulated", "pkg/leaky.py")
    assert (finding["line"], finding["column"], finding["end_line"]) == (LEAK_LINE, LEAK_COLUMN, LEAK_LINE)
    assert finding["end_column"] > LEAK_COLUMN
    assert (document["files_checked"], document["errors"]) == (2, [])


def test_json_keeps_an_absolute_path_absolute(folder: Path) -> None:
    (finding,) = check_json(str(folder / "pkg"), cwd=folder)["findings"]
    assert finding["path"] == str(folder / "pkg" / "leaky.py")


def test_exit_zero_forgives_findings_alone(folder: Path) -> None:
    assert torchmem("check", "--exit-zero", "pkg", cwd=folder).status == 0
    (folder / "pkg" / "broken.py").write_text(BROKEN)
    assert torchmem("check", "--exit-zero", "pkg", cwd=folder).status == 2


def test_a_missing_path_is_an_error_and_the_rest_is_checked(folder: Path) -> None:
    result = torchmem("check", "pkg", "nowhere", cwd=folder)
    assert result.status == 2
    assert "nowhere: TM901 [unreadable-file] no such file or folder" in result.out
    assert "TM201" in result.out


def test_an_unchecked_file_makes_no_clean_run(folder: Path) -> None:
    (folder / "broken.py").write_text(BROKEN)
    alone = torchmem("check", "broken.py", cwd=folder)
    assert alone.status == 2
    assert alone.out.startswith(f"broken.py:{BROKEN_LINE}: TM901 [unreadable-file] ")
    assert torchmem("check", "broken.py", "pkg", cwd=folder).status == 1
    assert torchmem("check", "--ignore=TM901", "broken.py", cwd=folder).status == 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], ["TM101", "TM201"]),
        (["--select", "TM2"], ["TM201"]),
        (["--select", "TM101, TM201,"], ["TM101", "TM201"]),
        (["--select", "TM101", "--select", "TM201"], ["TM101", "TM201"]),
        (["--select", "TM101", "--extend-select", "TM2"], ["TM101", "TM201"]),
        (["--ignore", "TM2"], ["TM101"]),
        (["--select", "TM", "--ignore", "TM1"], ["TM201"]),
        (["--select", "TM101", "--ignore", "TM1"], ["TM101"]),
        (["--isolated"], ["TM101", "TM201"]),
    ],
)
def test_selection(tmp_path: Path, arguments: list[str], expected: list[str]) -> None:
    (tmp_path / "both.py").write_text(BOTH)
    assert codes(*arguments, "both.py", cwd=tmp_path) == expected


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--select", "TM1011"], "did you mean TM101?"),
        (["--select", "tm2"], "did you mean TM2?"),
        (["--select", "loss-accumulated"], "did you mean TM201?"),
        (["--ignore", "E501"], "no rule has a code that starts with 'E501'"),
        (["--select", ","], "it is empty"),
        (["--output-format", "yaml"], "'yaml' is not one of"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_a_bad_option_is_refused(tmp_path: Path, arguments: list[str], complaint: str) -> None:
    result = torchmem("check", *arguments, ".", cwd=tmp_path)
    assert result.status == 2
    assert complaint in result.err
    assert "Traceback" not in result.err


def test_standard_input(tmp_path: Path) -> None:
    (finding,) = check_json("-", cwd=tmp_path, stdin=LEAKY.encode())["findings"]
    assert (finding["path"], finding["line"]) == ("stdin", LEAK_LINE)
    named = torchmem("check", "--stdin-display-name", "src/a.py", "-", cwd=tmp_path, stdin=LEAKY.encode())
    assert named.out.startswith(f"src/a.py:{LEAK_LINE}:{LEAK_COLUMN}: TM201 ")
    assert named.status == 1


def test_noqa_is_obeyed(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(BOTH.replace("total += loss", "total += loss  # noqa: TM201"))
    (tmp_path / "b.py").write_text("# flake8: noqa\n" + BOTH)
    assert codes("a.py", "b.py", cwd=tmp_path) == ["TM101"]


def test_rules_lists_the_catalogue(tmp_path: Path) -> None:
    listed = torchmem("rules", cwd=tmp_path).out.splitlines()[1:]
    assert [line.split()[:2] for line in listed] == [[rule.code, rule.name] for rule in catalogue().values()]
    document = json.loads(torchmem("rules", "--output-format=json", cwd=tmp_path).out)
    assert [row["code"] for row in document["rules"]] == list(catalogue())


@pytest.mark.parametrize("word", ["TM201", "tm201", "loss-accumulated"])
def test_explain_prints_the_page(tmp_path: Path, word: str) -> None:
    result = torchmem("explain", word, cwd=tmp_path)
    assert result.out.startswith("TM201 loss-accumulated: ")
    assert "Why it matters" in result.out
    assert result.status == 0


def test_explain_has_a_page_for_every_rule(tmp_path: Path) -> None:
    assert "What to do" in torchmem("explain", "unreadable-file", cwd=tmp_path).out


def test_explain_names_the_nearest_rule(tmp_path: Path) -> None:
    result = torchmem("explain", "loss-acumulated", cwd=tmp_path)
    assert (result.status, "did you mean loss-accumulated?" in result.err) == (2, True)


def test_explain_takes_one_rule() -> None:
    for prefix in ("TM40", "tm40"):
        expected = f"no rule is called '{prefix}'; 3 codes begin so, TM401 to TM403: `torchmem rules` lists them"
        assert expected in command("explain", prefix).err


def test_the_list_of_commands_is_not_cut_short() -> None:
    listed = command("--help").out.split("Commands:")[1].strip().splitlines()
    assert {line.split()[0] for line in listed} == {"check", "fix", "baseline", "rules", "explain", "verify", "lsp"}
    assert not any(line.endswith("...") for line in listed)


def test_the_working_directory_is_checked_where_nothing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "both.py").write_text(BOTH)
    monkeypatch.chdir(tmp_path)
    named = command("check", ".")
    assert named.status == 1
    assert command("check") == named
    assert command("baseline").out.startswith("2 findings in 1 file written to torchmem-baseline.json\nuse: torchmem check . --baseline")
    assert (command("fix").status, (tmp_path / "both.py").read_text()) == (2, BOTH)


def test_version_by_console_script_and_module(tmp_path: Path) -> None:
    module = [sys.executable, "-m", "flake8_torchmem", "--version"]
    assert run(module, tmp_path).out == torchmem("--version", cwd=tmp_path).out == f"torchmem, version {__version__}\n"


def test_output_survives_an_encoding_that_lacks_the_characters(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY.replace("total += loss", 'name = "日本語"; total += loss'), "utf-8")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii:strict"}
    result = torchmem("check", "leaky.py", cwd=tmp_path, env=plain)
    assert result.status == 1
    assert r"\u65e5\u672c\u8a9e" in result.out


@pytest.mark.skipif(sys.platform in {"win32", "darwin"}, reason="file names are Unicode there")
def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9\x1b[31m.py")
    (tmp_path / name).write_text(LEAKY)
    shown = torchmem("check", ".", cwd=tmp_path).out
    assert shown.startswith(f"./caf\\udce9\\x1b[31m.py:{LEAK_LINE}:")
    (finding,) = check_json(".", cwd=tmp_path)["findings"]
    assert finding["path"] == "./caf\\udce9\x1b[31m.py"


def test_terminal_escapes_in_source_are_shown_not_obeyed(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY.replace("total += loss", "total += loss  # \x1b[2J \u202e"), "utf-8")
    out = torchmem("check", "leaky.py", cwd=tmp_path).out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert r"# \x1b[2J \u202e" in out


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_a_reader_that_leaves_early(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"leaky{number}.py").write_text(LEAKY)
    command = f"'{SCRIPTS / 'torchmem'}' check . | head -n 1"
    result = run(["bash", "-o", "pipefail", "-c", command], tmp_path)
    assert result.out.count("\n") == 1
    assert result.err == ""
    assert result.status == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    result = run(["bash", "-c", f"'{SCRIPTS / 'torchmem'}' check leaky.py > /dev/full"], tmp_path)
    assert result.status == 2
    assert "the report cannot be written: No space left on device" in result.err
    assert "Traceback" not in result.err


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_an_interrupted_run_does_not_look_like_findings(tmp_path: Path) -> None:
    command = [str(SCRIPTS / "torchmem"), "check", "-"]
    with subprocess.Popen(command, cwd=tmp_path, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in error


PATIENT = """\
import importlib
importlib.import_module("flake8_torchmem.cli.progress")._PATIENCE = {seconds}
importlib.import_module("flake8_torchmem.cli").main()
"""


def on_terminal(command: list[str], cwd: Path, env: dict[str, str]) -> str:
    """What a person sees on a terminal."""
    import pty

    leader, follower = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"} | env
    command = [sys.executable, *command]
    with subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, env=environment) as process:
        os.close(follower)
        seen = bytearray()
        while True:
            try:
                chunk = os.read(leader, 4096)
            except OSError:  # the other end is gone
                break
            if not chunk:
                break
            seen += chunk
        process.wait(timeout=30)
    os.close(leader)
    return seen.decode("utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminals")
def test_colours_on_a_terminal_unless_refused(folder: Path) -> None:
    command = ["-m", "flake8_torchmem", "check", "pkg"]
    assert "\x1b[1;31mTM201\x1b[0m" in on_terminal(command, folder, {})
    plain = on_terminal(command, folder, {"NO_COLOR": "1"})
    assert "TM201" in plain
    assert not re.search(r"\x1b\[[\d;]*3\dm", plain)  # a slow machine may show a progress bar, which moves the cursor


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminals")
def test_a_page_is_set_on_a_terminal(tmp_path: Path) -> None:
    page = on_terminal(["-m", "flake8_torchmem", "explain", "TM201"], tmp_path, {})
    assert "\x1b[1mTM201 loss-accumulated: " in page
    assert "## What it does" not in page


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX terminals")
def test_a_progress_bar_appears_after_a_while(folder: Path) -> None:
    for number in range(3):
        (folder / "pkg" / f"more{number}.py").write_text(CLEAN)
    assert "checking" in on_terminal(["-c", PATIENT.format(seconds=0), "check", "pkg"], folder, {})
    assert "checking" not in on_terminal(["-c", PATIENT.format(seconds=3600), "check", "pkg"], folder, {})


def test_findings_are_in_the_order_of_files_then_lines(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text(BOTH)
    (tmp_path / "a.py").write_text(UNCLEARED)
    places = [(finding["path"], finding["line"]) for finding in check_json(".", cwd=tmp_path)["findings"]]
    assert [path for path, _ in places] == ["./a.py", "./b.py", "./b.py"]
    assert places == sorted(places)
