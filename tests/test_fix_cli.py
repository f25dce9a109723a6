"""`torchmem fix` from end to end: what it writes, says and returns, and that no file is ever torn."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flake8_torchmem.fixes.write import ChangedError, replace_file
from tests.running import SCRIPTS, torchmem
from tests.samples import BOTH, BROKEN, CLEAN, LEAKY


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "leaky.py").write_text(LEAKY)
    (tmp_path / "clean.py").write_text(CLEAN)
    return tmp_path


def is_mended(text: str) -> bool:
    return "loss.detach()" in text or "loss.item()" in text


def test_files_are_mended_in_place_and_the_rest_is_left_alone(folder: Path) -> None:
    before = (folder / "clean.py").stat()
    result = torchmem("fix", ".", cwd=folder)
    assert result.status == 0
    assert is_mended((folder / "leaky.py").read_text())
    assert (folder / "clean.py").stat().st_mtime_ns == before.st_mtime_ns
    first, summary = result.out.splitlines()
    assert first == "./leaky.py:11:9: TM201 [loss-accumulated] fixed (safe)"
    assert summary == "1 finding fixed in 1 file (1 safe); 0 left; 2 files checked"
    again = torchmem("fix", ".", cwd=folder)
    assert again.out == "nothing fixed; 0 left; 2 files checked\n"


def test_unsafe_fixes_are_asked_for_and_said(tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(BOTH)
    safe = torchmem("fix", "both.py", cwd=tmp_path)
    assert "TM101 [missing-zero-grad] left: its fix is unsafe: --unsafe-fixes makes it" in safe.out
    assert "TM201 [loss-accumulated] fixed (safe)" in safe.out
    unsafe = torchmem("fix", "both.py", "--unsafe-fixes", cwd=tmp_path)
    assert "TM101 [missing-zero-grad] fixed (unsafe)" in unsafe.out
    assert torchmem("check", "both.py", cwd=tmp_path).status == 0


def test_a_difference_is_shown_and_nothing_written(folder: Path) -> None:
    result = torchmem("fix", ".", "--diff", cwd=folder)
    assert result.status == 0
    assert result.out.startswith("--- ./leaky.py\n+++ ./leaky.py\n@@")
    assert "-        total += loss\n" in result.out
    assert result.err.endswith("1 finding would be fixed in 1 file (1 safe); 0 left; 2 files checked\n")
    assert (folder / "leaky.py").read_text() == LEAKY
    patch = subprocess.run(["patch", "-p0", "--dry-run"], cwd=folder, input=result.out.encode(), capture_output=True, check=False)
    assert patch.returncode == 0, patch.stderr


def test_the_exit_code_can_tell_of_changes(folder: Path) -> None:
    assert torchmem("fix", ".", "--diff", "--exit-non-zero-on-fix", cwd=folder).status == 1
    assert torchmem("fix", ".", "--exit-non-zero-on-fix", cwd=folder).status == 1
    assert torchmem("fix", ".", "--exit-non-zero-on-fix", cwd=folder).status == 0


def test_standard_input_goes_to_standard_output(tmp_path: Path) -> None:
    result = torchmem("fix", "-", cwd=tmp_path, stdin=LEAKY.replace("\n", "\r\n").encode())
    assert result.status == 0
    assert is_mended(result.out)
    assert result.out.count("\r\n") == LEAKY.count("\n")
    assert "TM201 [loss-accumulated] fixed (safe)" in result.err
    assert torchmem("fix", "-", cwd=tmp_path, stdin=b"").out == ""
    assert torchmem("fix", "-", "x.py", cwd=tmp_path).status == 2


def test_json_says_what_was_fixed_and_left(tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(BOTH)
    (tmp_path / "broken.py").write_text(BROKEN)
    result = torchmem("fix", ".", "--diff", "--output-format", "json", cwd=tmp_path)
    report = json.loads(result.out)
    assert report["version"] == 1
    assert not report["written"]
    assert [(entry["code"], entry["safety"]) for entry in report["fixed"]] == [("TM201", "safe")]
    assert [(entry["code"], entry["reason"]) for entry in report["left"]] == [
        ("TM101", "its fix is unsafe: --unsafe-fixes makes it"),
    ]
    assert report["files_changed"] == ["./both.py"]
    assert report["files_checked"] == 1
    assert "-        total += loss" in report["diff"]
    assert result.status == 2
    assert "broken.py:4: TM901" in report["errors"][0]["message"]


def test_only_what_is_selected_is_mended(tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(BOTH)
    torchmem("fix", "both.py", "--unsafe-fixes", "--select", "TM101", cwd=tmp_path)
    cleared = "        optimizer.zero_grad()\n        loss.backward()\n"
    assert (tmp_path / "both.py").read_text() == BOTH.replace("        loss.backward()\n", cleared)
    unknown = torchmem("fix", "both.py", "--select", "TM999", cwd=tmp_path)
    assert unknown.status == 2
    assert "TM999" in unknown.err


def test_people_are_asked(tmp_path: Path) -> None:
    source = LEAKY + LEAKY.replace("def train", "\n\ndef again").partition("import torch\n")[2]
    (tmp_path / "two.py").write_text(source)
    result = torchmem("fix", "two.py", "--interactive", cwd=tmp_path, stdin=b"n\ny\n")
    assert result.err.count("Make this fix?") == 2
    assert "left: you did not want it" in result.out
    text = (tmp_path / "two.py").read_text()
    assert text.count("total += loss\n") == 1
    assert text.index("total += loss\n") < text.index("def again")
    torchmem("fix", "two.py", "--interactive", cwd=tmp_path, stdin=b"q\n")
    assert (tmp_path / "two.py").read_text() == text
    torchmem("fix", "two.py", "--interactive", cwd=tmp_path, stdin=b"a\n")
    assert "total += loss\n" not in (tmp_path / "two.py").read_text()


def test_whoever_quits_is_done(tmp_path: Path) -> None:
    """Later files are not even read: one that cannot be would be named."""
    for name in ("a.py", "b.py", "d.py"):
        (tmp_path / name).write_text(LEAKY)
    (tmp_path / "c.py").write_text(BROKEN)
    command = ("fix", ".", "--interactive")
    result = torchmem(*command, cwd=tmp_path, stdin=b"y\nq\n")
    assert (result.status, result.err.count("Make this fix?")) == (0, 2)
    assert result.err.endswith("torchmem: 2 files not looked at\n")
    assert "c.py" not in result.out
    assert result.out.endswith("1 finding fixed in 1 file (1 safe); 1 left; 2 files checked\n")
    assert [is_mended((tmp_path / name).read_text()) for name in ("a.py", "b.py", "d.py")] == [True, False, False]
    report = json.loads(torchmem(*command, "--output-format=json", cwd=tmp_path, stdin=b"q\n").out)
    assert (report["files_checked"], report["errors"], len(report["left"])) == (2, [], 1)
    assert "not looked at" not in torchmem("fix", "d.py", "--interactive", cwd=tmp_path, stdin=b"q\n").err


def test_questions_stay_out_of_the_report(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    asked = torchmem("fix", "a.py", "--interactive", "--diff", cwd=tmp_path, stdin=b"perhaps\nY\n")
    assert asked.out == torchmem("fix", "a.py", "--diff", cwd=tmp_path).out
    assert asked.err.count("Make this fix?") == 2
    report = torchmem("fix", "a.py", "--interactive", "--output-format", "json", cwd=tmp_path, stdin=b"n\n").out
    assert [left["reason"] for left in json.loads(report)["left"]] == ["you did not want it"]
    assert torchmem("fix", "a.py", "--interactive", cwd=tmp_path).status == 130
    assert (tmp_path / "a.py").read_text() == LEAKY


def test_people_are_asked_once(tmp_path: Path) -> None:
    again = LEAKY.replace("def train", "\n\ndef again").partition("import torch\n")[2]
    third = again.replace("again", "third").replace("        optimizer.zero_grad()\n", "")
    (tmp_path / "many.py").write_text(LEAKY + again + third)
    command = ("fix", "many.py", "--interactive", "--unsafe-fixes")
    result = torchmem(*command, cwd=tmp_path, stdin=b"y\nn\ny\nn\n")  # after the first, the second is the first of its kind
    assert result.err.count("Make this fix?") == 4
    assert result.out.count("left: you did not want it") == 2
    text = (tmp_path / "many.py").read_text()
    assert [part.count("total += loss\n") for part in text.split("def ")[1:]] == [0, 1, 1]
    assert text.count("optimizer.zero_grad()\n") == 3


@pytest.mark.parametrize("line", ["# @" + "generated by a tool", '"""@' + 'generated"""'])
def test_generated_files_are_left(tmp_path: Path, line: str) -> None:
    (tmp_path / "made.py").write_text(f"{line}\n{LEAKY}")
    result = torchmem("fix", "made.py", cwd=tmp_path)
    assert "left: the file is generated" in result.out
    assert (tmp_path / "made.py").read_text() == f"{line}\n{LEAKY}"


def test_huge_files_are_left(tmp_path: Path) -> None:
    source = LEAKY + "# ".ljust(99, "x") * 10_500 + "\n"
    (tmp_path / "huge.py").write_text(source)
    result = torchmem("fix", "huge.py", cwd=tmp_path)
    assert "left: the file is larger than a megabyte" in result.out
    assert (tmp_path / "huge.py").read_text() == source


def test_suppressed_findings_are_left_in_silence(tmp_path: Path) -> None:
    source = LEAKY.replace("total += loss", "total += loss  # noqa: TM201")
    (tmp_path / "kept.py").write_text(source)
    assert torchmem("fix", "kept.py", cwd=tmp_path).out == "nothing fixed; 0 left; 1 file checked\n"
    assert (tmp_path / "kept.py").read_text() == source


ENCODED = {
    "a byte order mark": b"\xef\xbb\xbf" + LEAKY.encode(),
    "carriage returns": LEAKY.replace("\n", "\r\n").encode(),
    "mixed line ends": LEAKY.replace("\n", "\r\n", 5).encode(),
    "old line ends": LEAKY.replace("\n", "\r").encode(),
    "latin-1": ("# -*- coding: latin-1 -*-\n# gr\xfc\xdfe\n" + LEAKY).encode("latin-1"),
    "no last line end": LEAKY.rstrip("\n").encode(),
    "a form feed": LEAKY.replace("\n\n\ndef", "\n\n\x0c\ndef").encode(),
    "tabs": LEAKY.replace("    ", "\t").encode(),
}


@pytest.mark.parametrize("name", ENCODED)
def test_bytes_around_an_edit_are_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(ENCODED[name])
    path.chmod(0o640)
    assert torchmem("fix", "file.py", cwd=tmp_path).status == 0
    added = b".item()" if b".item()" in path.read_bytes() else b".detach()"
    assert path.read_bytes() == ENCODED[name].replace(b"total += loss", b"total += loss" + added)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.py"]


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.py").write_text(LEAKY)
    (tmp_path / "link.py").symlink_to("real.py")
    torchmem("fix", "link.py", cwd=tmp_path)
    assert (tmp_path / "link.py").is_symlink()
    assert is_mended((tmp_path / "real.py").read_text())


def test_a_file_that_changes_meanwhile_is_left(tmp_path: Path) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(b"new")
    with pytest.raises(ChangedError):
        replace_file(str(path), b"old", b"mended")
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.py"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everything")
def test_a_file_that_may_not_be_written_is_named(folder: Path) -> None:
    (folder / "leaky.py").chmod(0o444)
    result = torchmem("fix", ".", cwd=folder)
    assert result.status == 2
    assert "leaky.py: TM901 [unreadable-file] cannot be written: Permission denied" in result.out
    assert (folder / "leaky.py").read_text() == LEAKY


def test_a_full_disk_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.py"
    path.write_bytes(b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        replace_file(str(path), b"old", b"mended")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.py"]


WRITER = """\
import sys
from flake8_torchmem.fixes.write import replace_file
path, size = sys.argv[1], int(sys.argv[2])
old, new = b"a" * size, b"b" * size
print("ready", flush=True)
while True:
    replace_file(path, old, new)
    old, new = new, old
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_kill_leaves_the_old_or_the_new_file(tmp_path: Path) -> None:
    path, size = tmp_path / "file.py", 1 << 20
    wait = random.Random(0)
    for _ in range(12):
        path.write_bytes(b"a" * size)
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(size)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(wait.uniform(0.0, 0.03))
            process.send_signal(signal.SIGKILL)
        assert path.read_bytes() in (b"a" * size, b"b" * size)


def test_two_runs_on_one_tree_do_no_harm(tmp_path: Path) -> None:
    for number in range(12):
        (tmp_path / f"file{number:02}.py").write_text(LEAKY)
    command = [str(SCRIPTS / "torchmem"), "fix", "."]
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {0, 2}
    texts = {path.read_text() for path in tmp_path.glob("*.py")}
    assert len(texts) == 1
    assert is_mended(texts.pop())
