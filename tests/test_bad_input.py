"""Files that no checker likes: each gets a clear line, none stops the run."""

from __future__ import annotations

import ast
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.running import Result, flake8, torchmem
from tests.samples import BROKEN, BROKEN_LINE, LEAK_COLUMN, LEAK_LINE, LEAKY

FOUND = (LEAK_LINE, LEAK_COLUMN)
IN_LOOP = "total += loss"
NEW_SYNTAX = sys.version_info >= (3, 14)


@dataclass(frozen=True)
class Case:
    """One file: its bytes, then either the line and column of its TM201, or its error's line and a part of its cause."""

    data: bytes
    found: tuple[int, int] | None = None
    line: int | None = None
    cause: str | None = None


def leaky(old: str, new: str) -> bytes:
    assert old in LEAKY
    return LEAKY.replace(old, new).encode()


def parses(text: str) -> bool:
    """Whether this interpreter can build the tree at all: up to 3.11, a sum of some 2,500 terms is too deep."""
    try:
        ast.parse(text)
    except RecursionError:
        return False
    return True


MANY_TERMS = LEAKY + "\n\ndef add(loss):\n    return loss" + " + loss" * 2999 + "\n"
CASES = {
    "syntax": Case(BROKEN.encode(), line=BROKEN_LINE, cause=""),
    "unclosed": Case(b"import torch\nloss = (\n", line=2, cause="never closed"),
    "indent": Case(b"import torch\nif loss:\nloss.backward()\n", line=3, cause="indent"),
    "nul": Case(b"import torch\nx = 1\0\n", line=2, cause="NUL"),
    "latin_1": Case(b"import torch\n# caf\xe9\n", line=2, cause="utf-8"),
    "wrong_cookie": Case(b"# coding: nonsense\nimport torch\n", cause="nonsense"),
    "utf_16": Case(LEAKY.encode("utf-16"), line=1, cause="NUL"),
    "parentheses": Case(b"import torch\nloss = " + b"(" * 2000 + b"1" + b")" * 2000 + b"\n", line=2, cause="nested"),
    "except_comma": Case(
        leaky(IN_LOOP, f"try:\n            pass\n        except A, B:\n            pass\n        {IN_LOOP}"),
        found=(LEAK_LINE + 4, LEAK_COLUMN) if NEW_SYNTAX else None,
        line=LEAK_LINE + 2,
        cause=None if NEW_SYNTAX else "",
    ),
    "t_string": Case(
        leaky(IN_LOOP, f't"{{x}}"\n        {IN_LOOP}'),
        found=(LEAK_LINE + 1, LEAK_COLUMN) if NEW_SYNTAX else None,
        line=LEAK_LINE,
        cause=None if NEW_SYNTAX else "",
    ),
    "latin_1_cookie": Case(leaky("import torch\n", "# coding: latin-1\nimport torch\n").replace(b"0.0", b"0.0  # \xe9"), found=(12, 9)),
    "bom": Case(b"\xef\xbb\xbf" + LEAKY.encode(), found=FOUND),
    "crlf": Case(LEAKY.replace("\n", "\r\n").encode(), found=FOUND),
    "cr": Case(LEAKY.replace("\n", "\r").encode(), found=FOUND),
    "mixed_line_ends": Case(leaky("    for", "    x = 1\r    y = 2\r\n    for"), found=(LEAK_LINE + 2, LEAK_COLUMN)),
    "tabs": Case(LEAKY.replace("    ", "\t").encode(), found=(LEAK_LINE, 3)),
    "form_feed": Case(leaky("\n\ndef", "\n\x0c\ndef"), found=FOUND),
    "form_feed_first": Case(b"\x0c" + LEAKY.encode(), found=FOUND),
    "line_separator": Case(leaky("total = 0.0", "total = 0.0  # \u2028 \x85 \x1c"), found=FOUND),
    "no_last_newline": Case(leaky("    return total\n", "    return total"), found=FOUND),
    "wide_characters": Case(leaky(IN_LOOP, f'"日本語🔥"; {IN_LOOP}'), found=(LEAK_LINE, LEAK_COLUMN + 8)),
    "continuation": Case(leaky(IN_LOOP, "total \\\n            += loss"), found=FOUND),
    "many_terms": Case(MANY_TERMS.encode(), **({"found": FOUND} if parses(MANY_TERMS) else {"cause": "nested too deeply"})),
    "empty": Case(b""),
    "bom_only": Case(b"\xef\xbb\xbf"),
    "blank": Case(b"\n\n\x0c\n"),
    "comment": Case(b"# import torch: total + loss"),
}
# flake8 reads undeclared bytes as latin-1 and checks them; pyflakes gives up on 3,000 terms before any plugin is asked; NUL bytes end
# in E902 or in a crash of flake8's own.
NOT_FOR_FLAKE8 = {"latin_1", "wrong_cookie", "many_terms", "nul", "utf_16"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad")
    (root / "bad").mkdir()
    for name, case in CASES.items():
        (root / "bad" / f"{name}.py").write_bytes(case.data)
    return root


@pytest.fixture(scope="module")
def text(folder: Path) -> Result:
    return torchmem("check", "bad", cwd=folder)


@pytest.fixture(scope="module")
def document(folder: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(torchmem("check", "--output-format=json", "bad", cwd=folder).out)
    return parsed


def test_the_run_goes_on(text: Result, document: dict[str, Any]) -> None:
    assert text.status == 1
    assert text.err == ""
    assert "Traceback" not in text.out
    assert "TM900" not in text.out
    assert document["files_checked"] + len(document["errors"]) == len(CASES)


@pytest.mark.parametrize("name", CASES)
def test_torchmem(document: dict[str, Any], name: str) -> None:
    path, case = f"bad/{name}.py", CASES[name]
    found = [(finding["line"], finding["column"]) for finding in document["findings"] if finding["path"] == path]
    messages = [error["message"] for error in document["errors"] if error["path"] == path]
    assert found == ([case.found] if case.found else [])
    assert len(messages) == (case.cause is not None)
    for message in messages:
        place = path if case.line is None else f"{path}:{case.line}"
        assert message.startswith(f"{place}: TM901 [unreadable-file] ")
        assert (case.cause or "") in message
        assert "\n" not in message


def test_flake8(folder: Path) -> None:
    names = sorted(CASES.keys() - NOT_FOR_FLAKE8)
    result = flake8("--select=TM,E9", *(f"bad/{name}.py" for name in names), cwd=folder)
    assert result.err == ""
    assert "TM900" not in result.out
    for name in names:
        case = CASES[name]
        lines = [line for line in result.out.splitlines() if line.startswith(f"bad/{name}.py:")]
        if case.found:
            assert [line.split(" ")[:2] for line in lines] == [[f"bad/{name}.py:{case.found[0]}:{case.found[1]}:", "TM201"]]
        else:
            assert not any("TM" in line for line in lines)


def test_a_table_of_two_megabytes(tmp_path: Path) -> None:
    (tmp_path / "table.py").write_text("TABLE = [\n" + "    0.125, 17, 'x',\n" * 110_000 + "]\n" + LEAKY)
    (tmp_path / "line.py").write_text("TABLE = [" + "0.125, " * 300_000 + "]\n" + LEAKY)
    result = torchmem("check", "table.py", "line.py", cwd=tmp_path)
    assert [line.split(" ")[0] for line in result.out.splitlines() if "TM201" in line] == [
        f"table.py:{110_002 + LEAK_LINE}:{LEAK_COLUMN}:",
        f"line.py:{1 + LEAK_LINE}:{LEAK_COLUMN}:",
    ]


def test_a_long_line_is_shown_in_part(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text(LEAKY.replace(IN_LOOP, f"x = '{'y' * 1_000}'; {IN_LOOP}; z = '{'y' * 1_000}'"))
    lines = torchmem("check", "long.py", cwd=tmp_path).out.splitlines()
    assert max(map(len, lines)) < 250
    assert "; total += loss; " in lines[1]
    assert lines[2].index("^") == lines[1].index("total")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX file system")
def test_paths_that_are_no_files(tmp_path: Path) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "folder.py" / "leaky.py").write_text(LEAKY)
    (tmp_path / "dangling.py").symlink_to("nowhere.py")
    (tmp_path / "self.py").symlink_to("self.py")
    os.mkfifo(tmp_path / "pipe.py")
    for arguments in (["."], ["folder.py", "dangling.py", "self.py", "pipe.py"]):
        result = torchmem("check", *arguments, cwd=tmp_path)
        assert (result.status, result.err) == (1, "")
        assert result.out.count("TM201") == 1
        assert result.out.count("TM901") == 3
        assert "dangling.py: TM901 [unreadable-file] broken symbolic link\n" in result.out
        assert "pipe.py: TM901 [unreadable-file] not a regular file" in result.out
    assert torchmem("check", "dangling.py", cwd=tmp_path).status == 2


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "closed.py").write_text(LEAKY)
    (tmp_path / "closed.py").chmod(0)
    result = torchmem("check", ".", cwd=tmp_path)
    assert (result.status, result.err) == (2, "")
    assert "closed.py: TM901 [unreadable-file] cannot be read: Permission denied\n" in result.out


def test_bad_standard_input(tmp_path: Path) -> None:
    result = torchmem("check", "-", cwd=tmp_path, stdin=BROKEN.encode())
    assert (result.status, result.err) == (2, "")
    assert result.out.startswith(f"stdin:{BROKEN_LINE}: TM901 [unreadable-file] ")
    assert torchmem("check", "-", cwd=tmp_path).status == 0
