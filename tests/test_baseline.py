"""Findings that are known are not reported, and what a count cannot tell is said."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from flake8_torchmem import baseline
from flake8_torchmem.baseline import Baseline, BaselineError
from tests.commands import command, reported
from tests.samples import BOTH, BROKEN, CLEAN, LEAKY

MORE = """

def again(loader, model):
    total = 0
    for x in loader:
        loss = model(x).sum()
        loss.backward()
        total += loss
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "src").mkdir()
    for name, source in (("src/leaky", LEAKY), ("both", BOTH), ("clean", CLEAN)):
        (tmp_path / f"{name}.py").write_text(source)
    assert command("baseline", ".", "--baseline", "known.json").status == 0
    return tmp_path


def check(*arguments: str) -> tuple[int, list[str], str]:
    result = command("check", ".", "--baseline", "known.json", *arguments)
    return result.status, reported(result), result.err


KNOWN = '{\n"both.py: TM101": 1,\n"both.py: TM201": 1,\n"src/leaky.py: TM201": 1,\n"version": 1\n}\n'


def test_the_file_has_one_entry_per_line_and_no_line_numbers(folder: Path) -> None:
    assert (folder / "known.json").read_text() == KNOWN
    assert json.loads(KNOWN)["both.py: TM101"] == 1


def test_what_is_known_is_not_reported(folder: Path) -> None:
    assert check() == (0, [], "torchmem: known.json knows 3 of the findings\n")
    (folder / "both.py").write_text("import os\n\n" + BOTH)  # code moves
    assert check()[:2] == (0, [])


def test_more_than_is_known_is_reported_as_a_whole(folder: Path) -> None:
    (folder / "src" / "leaky.py").write_text(LEAKY + MORE)
    status, found, said = check()
    assert (status, len(found), {line.split(":")[0] for line in found}) == (1, 2, {"./src/leaky.py"})
    assert "torchmem: src/leaky.py: 2 findings of TM201, of which known.json knows 1: a count cannot tell which are new\n" in said


def test_other_rules_and_files_are_new(folder: Path) -> None:
    (folder / "new.py").write_text(LEAKY)
    (folder / "clean.py").write_text(LEAKY)
    assert check()[:2] == (1, ["./clean.py:11:9: TM201", "./new.py:11:9: TM201"])


def test_stale_entries_are_said_and_pruned(folder: Path) -> None:
    (folder / "both.py").write_text(CLEAN)
    (folder / "src" / "leaky.py").unlink()
    status, found, said = check()
    assert (status, found) == (0, [])
    assert "torchmem: both.py: known.json knows 1 of TM101, found 0: --prune takes it out\n" in said
    assert "torchmem: src/leaky.py: known.json knows 1 of TM201, found 0: --prune takes it out\n" in said
    assert (folder / "known.json").read_text() == KNOWN
    status, found, said = check("--prune")
    assert (status, found) == (0, [])
    assert said.splitlines() == [
        "torchmem: both.py: known.json knew 1 of TM101: taken out",
        "torchmem: both.py: known.json knew 1 of TM201: taken out",
        "torchmem: src/leaky.py: known.json knew 1 of TM201: taken out",
    ]
    assert (folder / "known.json").read_text() == '{\n"version": 1\n}\n'
    assert check() == (0, [], "")


def test_what_is_found_less_often_is_lowered(folder: Path) -> None:
    (folder / "both.py").write_text(BOTH + MORE)
    assert command("baseline", ".", "--baseline", "known.json").status == 0
    (folder / "both.py").write_text(BOTH)
    assert "torchmem: both.py: known.json knows 2 of TM201, found 1: --prune lowers it\n" in check()[2]
    assert "torchmem: both.py: known.json knew 2 of TM201: lowered to 1\n" in check("--prune")[2]
    assert (folder / "known.json").read_text() == KNOWN


def test_what_could_not_be_written_is_not_said_to_be_taken_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    (folder / "both.py").write_text(CLEAN)
    monkeypatch.setattr("flake8_torchmem.writing.write_whole", full)
    status, _, said = check("--prune")
    assert (status, said) == (2, "Error: known.json: cannot be written: No space left on device\n")


@pytest.mark.parametrize(("arguments", "left"), [(["src"], 3), (["--select", "TM2", "."], 3), (["both.py", "--ignore", "TM101"], 3)])
def test_what_a_run_did_not_look_at_is_not_stale(folder: Path, arguments: list[str], left: int) -> None:
    for verb in ("check", "baseline"):
        more = ["--prune"] if verb == "check" else []
        result = command(verb, *arguments, "--baseline", "known.json", *more)
        assert result.status == 0, result.err
        assert len(baseline.read("known.json").counts) == left
        assert "found 0" not in result.err


def test_files_that_cannot_be_read_keep_their_entries(folder: Path) -> None:
    (folder / "both.py").write_text(BROKEN)
    assert check("--prune")[0] == 2
    result = command("baseline", ".", "--baseline", "known.json")
    assert (result.status, "both.py:" in result.err, "TM901" in result.err) == (2, True, True)
    assert (folder / "known.json").read_text() == KNOWN


def test_what_the_checker_could_not_do_is_never_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flake8_torchmem.analysis.gate.select", None)
    assert command("baseline", "both.py", "--baseline", "other.json", "--no-cache").status == 0
    assert baseline.read("other.json").counts == {}
    result = command("check", "both.py", "--baseline", "other.json", "--no-cache")
    assert (result.status, reported(result)) == (1, ["both.py:1:1: TM900"])


def test_paths_are_relative_to_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder / "src")
    result = command("check", "..", "--baseline", "../known.json")
    assert (result.status, result.err) == (0, "torchmem: " + str(folder / "known.json") + " knows 3 of the findings\n")


def test_the_configuration_may_name_it(folder: Path) -> None:
    (folder / "pyproject.toml").write_text('[tool.flake8_torchmem]\nbaseline = "known.json"\n')
    assert command("check", ".").status == 0
    assert command("check", ".", "--isolated").status == 1
    (folder / "new.py").write_text(LEAKY)
    result = command("baseline", ".")
    assert (result.status, result.out) == (0, "4 findings in 3 files written to known.json\n")
    assert command("check", ".").status == 0


def test_without_a_name_it_is_beside_the_configuration(folder: Path) -> None:
    result = command("baseline", "src")
    assert (
        result.out == "1 finding in 1 file written to torchmem-baseline.json\nuse: torchmem check src --baseline torchmem-baseline.json\n"
    )
    (folder / "pyproject.toml").write_text("[tool.flake8_torchmem]\n")
    (folder / "torchmem-baseline.json").unlink()
    command("baseline", "src")
    assert (folder / "torchmem-baseline.json").exists()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    odd = ["a\udcff.py", 'q"uote.py', "new\nline.py", "colon: TM101.py", "\u202e\u00fc.py", "-dash.py"]
    known = Baseline(str(tmp_path / "known.json"), {(name, "TM101"): number for number, name in enumerate(odd, 1)})
    (tmp_path / "known.json").write_bytes(known.data)
    assert known.data.isascii()
    assert baseline.read(known.path) == known


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", ":1: not valid JSON"),
        ("[]", ":1: no baseline of version 1"),
        ('{"version": 2}', ":1: no baseline of version 1"),
        (KNOWN.replace("1,", "1", 1), ":3: not valid JSON"),
        (KNOWN.replace('"version"', '<<<<<<< HEAD\n"a.py: TM101": 1,\n=======\n>>>>>>> x\n"version"'), ":5: a conflict of a merge is left"),
        (KNOWN.replace(": 1", ": 0", 1), ':2: "both.py: TM101" has no count from 1 on'),
        (KNOWN.replace(": 1", ': "1"', 1), ':2: "both.py: TM101" has no count from 1 on'),
        (KNOWN.replace(": 1", ": {}", 1), ':2: "both.py: TM101" has no count from 1 on'),
        (KNOWN.replace("TM201", "TM101", 1), ':3: "both.py: TM101" is there twice'),
        (KNOWN.replace(": TM101", "", 1), ":2: \"both.py\" is no entry like 'src/train.py: TM101'"),
    ],
)
def test_a_damaged_file_is_refused(folder: Path, text: str, cause: str) -> None:
    (folder / "known.json").write_text(text)
    with pytest.raises(BaselineError) as raised:
        baseline.read("known.json")
    assert str(raised.value) == f"known.json{cause}"
    for verb in ("check", "baseline"):
        result = command(verb, ".", "--baseline", "known.json")
        assert (result.status, result.out, result.err) == (2, "", f"Error: known.json{cause}\n")
    assert (folder / "known.json").read_text() == text


def test_a_file_that_is_not_there_or_no_text(folder: Path) -> None:
    assert command("check", ".", "--baseline", "none.json").err == "Error: none.json: no such file; `torchmem baseline` writes it\n"
    assert command("check", ".", "--baseline", "src").err == "Error: src: cannot be read: Is a directory\n"
    (folder / "known.json").write_bytes(b"{\n\xff")
    assert command("check", ".", "--baseline", "known.json").err == "Error: known.json:2: not valid UTF-8\n"
    assert command("check", ".", "--prune").status == 2
    assert command("baseline", "nowhere", "--baseline", "x.json").status == 2
    assert not (folder / "x.json").exists()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_git_merges_what_branches_add_in_different_places(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], cwd=tmp_path, check=True, capture_output=True)

    path = tmp_path / "known.json"
    counts = {(f"{letter}.py", "TM101"): 1 for letter in "bdfhj"}

    def write(**more: int) -> None:
        path.write_bytes(Baseline(str(path), {**counts, **{(f"{name}.py", "TM101"): count for name, count in more.items()}}).data)
        git("commit", "-q", "-a", "-m", "x")

    git("init", "-q", "-b", "main")
    path.touch()
    git("add", ".")
    write()
    git("checkout", "-q", "-b", "other")
    write(z=1, b=2)
    git("checkout", "-q", "main")
    write(e=1)
    git("merge", "-q", "other")
    assert baseline.read(str(path)).counts == {**counts, ("z.py", "TM101"): 1, ("b.py", "TM101"): 2, ("e.py", "TM101"): 1}
