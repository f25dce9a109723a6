"""Reports for other programs: each fits its schema whatever files are called and hold, and says what its readers ask for."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import junitparser
import pytest
from click.testing import CliRunner

from flake8_torchmem.cli import torchmem
from flake8_torchmem.output import FORMATS
from tests.reports import report, valid
from tests.samples import BOTH, BROKEN, BROKEN_LINE, CLEAN, LEAK_COLUMN, LEAK_LINE, LEAKY, UNCLEARED

MACHINE = [name for name in FORMATS if name not in {"text", "html"}]
NOT_SAFE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
HOSTILE_COMMENT = "  # \u202e ]]> </script> <b>&amp; {0} [x](http://example.org) %0A::error::no \x1b[31m \ufffe \udbff ::error::no"
HOSTILE_LEAK = LEAKY.replace("total += loss", "total += loss" + HOSTILE_COMMENT.replace("\udbff", ""))
HOSTILE_NAME = "a%2C,:=\n\r]]><script>\"'&\u202e\t\x1b.py"

EXACT = {"help", "insertedContent", "newlineSequences"}

formats = pytest.mark.parametrize("output_format", MACHINE)
linux = pytest.mark.skipif(sys.platform != "linux", reason="these names need a file system that takes any bytes")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    (tmp_path / HOSTILE_NAME).write_text(HOSTILE_LEAK, "utf-8")
    (tmp_path / os.fsdecode(b"\xff\xfe.py")).write_bytes(BOTH.encode())
    (tmp_path / "broken\n::error::no.py").write_text(BROKEN)
    return tmp_path


@linux
@formats
def test_a_hostile_report_is_one_document_of_plain_characters(monkeypatch: pytest.MonkeyPatch, hostile: Path, output_format: str) -> None:
    text = report(monkeypatch, hostile, output_format)
    assert text.isascii() or output_format == "github"
    assert not NOT_SAFE.search(text)
    if output_format == "github":
        assert [line[:8] for line in text.splitlines()][:-1] == ["::error "] * 4
    else:
        document = valid(output_format, text)
        strings = "\n".join(_strings(document)) if output_format != "junit" else "".join(_texts(text))
        # Our own JSON gives names as they are, so that programs can open the files.
        assert not (re.compile("[\ud800-\udfff]") if output_format == "json" else NOT_SAFE).search(strings)
    assert text.count("TM201") >= 2
    assert "TM901" in text


def _strings(value: Any) -> list[str]:  # noqa: ANN401
    """All strings of a document, but for the pages of rules and for what a fix puts in, which has to be as it is in the file."""
    if isinstance(value, dict):
        return [
            text for key, each in value.items() if key not in {"help", "insertedContent", "newlineSequences"} for text in _strings(each)
        ]
    if isinstance(value, list):
        return [text for each in value for text in _strings(each)]
    return [value] if isinstance(value, str) else []


def _texts(text: str) -> list[str]:
    suites = junitparser.JUnitXml.fromstring(text.encode())
    return [part or "" for suite in suites for case in suite for part in (case.name, case.classname, *(r.message for r in case.result))]


@formats
def test_what_could_not_be_checked_is_part_of_the_document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output_format: str) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    text = report(monkeypatch, tmp_path, output_format, "broken.py", "gone.py")
    if output_format != "github":
        valid(output_format, text)
    for said in (f"broken.py:{BROKEN_LINE}: ", "gone.py: ", "TM901", "no such file"):
        assert said in text


@formats
def test_a_clean_run_is_a_whole_document_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output_format: str) -> None:
    (tmp_path / "clean.py").write_text(CLEAN)
    text = report(monkeypatch, tmp_path, output_format)
    if output_format != "github":
        valid(output_format, text)
    assert "TM" not in text.replace("TM900", "").replace("TM901", "")


def test_github_gets_back_what_was_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a,b:100%.py").write_text(LEAKY)
    first, summary = report(monkeypatch, tmp_path, "github").splitlines()
    command = re.fullmatch(r"::(?P<level>\w+) (?P<properties>[^:]*)::(?P<message>.*)", first)
    assert command is not None
    properties = {key: _meant(value) for key, value in (pair.split("=", 1) for pair in command["properties"].split(","))}
    assert properties == {
        "file": "a,b:100%.py",
        "line": str(LEAK_LINE),
        "endLine": str(LEAK_LINE),
        "col": str(LEAK_COLUMN),
        "endColumn": str(LEAK_COLUMN + len("total += loss")),
        "title": "TM201 loss-accumulated",
    }
    message, help_line = _meant(command["message"]).split("\n")
    assert message.startswith(f"./a,b:100%.py:{LEAK_LINE}:{LEAK_COLUMN}: TM201 `total` keeps")
    assert help_line.startswith("help: add the number")
    assert summary == "1 finding in 1 file; 1 file checked"


def _meant(value: str) -> str:
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        value = value.replace(code, character)
    return value


def test_github_takes_columns_of_one_line_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY.replace("total += loss", "total = (\n            total + loss)"))
    command = report(monkeypatch, tmp_path, "github").splitlines()[0]
    assert f"line={LEAK_LINE},endLine={LEAK_LINE + 1},title=" in command


def _known_by(monkeypatch: pytest.MonkeyPatch, folder: Path, output_format: str) -> list[str]:
    """What the readers of a report know findings by."""
    text = report(monkeypatch, folder, output_format)
    document = valid(output_format, text)
    if output_format == "gitlab":
        return [entry["fingerprint"] for entry in document]
    if output_format == "sarif":
        return [value for result in document["runs"][0]["results"] for value in result["partialFingerprints"].values()]
    return [f"{case.classname} {case.name}" for suite in junitparser.JUnitXml.fromstring(text.encode()) for case in suite]


@pytest.mark.parametrize("output_format", ["gitlab", "sarif", "junit"])
def test_findings_are_known_again_when_lines_move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output_format: str) -> None:
    twice = LEAKY + LEAKY.partition("import torch")[2].replace("def train", "def train_again")
    (tmp_path / "a.py").write_text(twice)
    before = _known_by(monkeypatch, tmp_path, output_format)
    assert len(set(before)) == 2
    body = twice.partition("import torch\n")[2]
    moved = "import torch\n\nNAME = 1\n\n\nclass Trainer:\n" + "".join(f"    {line}\n" if line else "\n" for line in body.split("\n"))
    (tmp_path / "a.py").write_text(
        moved.replace("def train(", "@staticmethod\n    def train(").replace("def train_again(", "@staticmethod\n    def train_again(")
    )
    assert _known_by(monkeypatch, tmp_path, output_format) == before
    (tmp_path / "a.py").write_text(twice.replace("total", "summed"))
    assert not set(_known_by(monkeypatch, tmp_path, output_format)) & set(before)


def test_gitlab_tells_the_same_line_in_two_files_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(LEAKY)
    document = valid("gitlab", report(monkeypatch, tmp_path, "gitlab"))
    assert len({entry["fingerprint"] for entry in document}) == 2
    assert [entry["location"] for entry in document] == [
        {"path": name, "lines": {"begin": LEAK_LINE, "end": LEAK_LINE}} for name in ("a.py", "b.py")
    ]
    assert {entry["severity"] for entry in document} == {"major"}


def test_paths_are_given_from_the_folder_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    for name in ("here/a b.py", "other.py"):
        (tmp_path / name).write_text(LEAKY)
    arguments = (str(tmp_path / "here" / "a b.py"), "../other.py")
    results = valid("sarif", report(monkeypatch, tmp_path / "here", "sarif", *arguments))["runs"][0]["results"]
    inside, outside = (result["locations"][0]["physicalLocation"]["artifactLocation"] for result in results)
    assert inside == {"uri": "a%20b.py", "uriBaseId": "%SRCROOT%"}
    assert set(outside) == {"uri"}
    assert Path(unquote(urlsplit(outside["uri"]).path)) == (tmp_path / "other.py").absolute()


def test_junit_counts_and_names_what_pytest_and_others_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "both.py").write_text(BOTH)
    (tmp_path / "pkg" / "broken.py").write_text(BROKEN)
    text = report(monkeypatch, tmp_path, "junit")
    suites = junitparser.JUnitXml.fromstring(valid("junit", text).encode())
    assert (suites.tests, suites.failures, suites.errors) == (3, 2, 1)
    cases = [(suite.name, case.classname, case.name, type(case.result[0]).__name__) for suite in suites for case in suite]
    assert cases == [
        ("pkg/both.py", "pkg.both", "TM101 missing-zero-grad: loss.backward()", "Failure"),
        ("pkg/both.py", "pkg.both", "TM201 loss-accumulated: total += loss", "Failure"),
        ("pkg/broken.py", "pkg.broken", "TM901 unreadable-file", "Error"),
    ]
    assert "        total += loss\n        ^^^^^^^^^^^^^\nhelp: add the number" in text


@pytest.mark.parametrize(
    ("output_format", "counts"), [("text", "2  TM101  missing-zero-grad\n1  TM201  loss-accumulated\n\n3 findings"), ("json", "")]
)
def test_statistics_count_by_rule(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output_format: str, counts: str) -> None:
    (tmp_path / "a.py").write_text(BOTH)
    (tmp_path / "b.py").write_text(UNCLEARED)
    text = report(monkeypatch, tmp_path, output_format, ".", "--statistics")
    assert counts in text
    if output_format == "json":
        assert json.loads(text)["statistics"] == {"TM101": 2, "TM201": 1}
        assert "statistics" not in json.loads(report(monkeypatch, tmp_path, output_format))


def _run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(torchmem, ["check", "--no-cache", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_statistics_are_refused_where_there_is_no_place_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, said = _run(".", "--statistics", "--output-format", "gitlab")
    assert status == 2
    assert "--statistics has no place in the format gitlab" in said


@pytest.mark.parametrize("output_format", ["text", "json", "sarif"])
def test_a_report_in_a_file_is_the_one_that_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, output_format: str) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    printed = report(monkeypatch, tmp_path, output_format)
    (tmp_path / "real").write_text("old")
    (tmp_path / "real").chmod(0o604)
    (tmp_path / "link").symlink_to("real")
    _, out, said = _run(".", "--output-format", output_format, "--output-file", "link")
    assert (tmp_path / "real").read_text("utf-8") == printed
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o604
    assert (tmp_path / "link").is_symlink()
    assert out == ""
    assert said == "1 finding in 1 file; 1 file checked; the report is in link\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.py", "link", "real"]


def test_a_report_that_fails_midway_leaves_the_old_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.py").write_text(LEAKY)
    (tmp_path / "out").write_text("old")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    status, _, said = _run(".", "--output-file", "out")
    assert status != 0
    assert said == "Error: out: the report cannot be written: No space left on device\n"
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.py", "out"]


def test_a_file_in_no_folder_is_refused_before_the_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, said = _run(".", "--output-file", "gone/out.txt")
    assert status == 2
    assert "there is no folder 'gone'" in said
