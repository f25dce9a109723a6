"""Names, source and settings that try to be more than text: escape sequences, reordering, workflow commands, markup.

Every way out of the program is in one table. Each is asked to show the same hostile project.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from flake8_torchmem.output import FORMATS
from flake8_torchmem.output.text import COLOURS
from tests.commands import command
from tests.samples import BROKEN, LEAKY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="these names need a file system that takes any bytes")

# What a terminal or a reader of text would obey, but for the ends of lines.
OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
OWN_COLOURS = re.compile(r"\x1b\[(?:0|1|3[1-6]|1;3[13])m")
EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e\u2066\u200b\u2028\ufeff</pre><script>alert(1)</script><img src=x onerror=y>]]>%0A::error::no"
NAME = f"a\n::error file=x::no\r{EVIL.replace('/', '')}\udcff'\"&,:=.py"
BAD_NAME = f"b\n::set-output name=x::{EVIL.replace('/', '')}.py"
SOURCE = LEAKY.replace("total += loss", f"total += loss  # {EVIL}").replace("\ufeff", "").encode("utf-8", "surrogateescape")
KEY = json.dumps(EVIL)


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / NAME).write_bytes(SOURCE)
    (tmp_path / BAD_NAME).write_text(BROKEN)
    return tmp_path


def configured(text: str, *arguments: str) -> Callable[[], str]:
    def run() -> str:
        Path("pyproject.toml").write_text(f"[tool.flake8_torchmem]\n{text}\n", "utf-8")
        return said(*arguments)

    return run


def said(*arguments: str, stdin: str = "") -> str:
    """Both streams."""
    result = command(*arguments, stdin=stdin)
    return result.out + result.err


def unknown_revision() -> str:
    Path(".git").mkdir()
    return said("check", ".", "--diff-base", EVIL)


def damaged_baseline() -> str:
    Path("known.json").write_text(json.dumps({"version": 1, EVIL: 1}))
    return said("check", ".", "--baseline", "known.json")


def stale_baseline() -> str:
    Path("known.json").write_text(json.dumps({"version": 1, f"gone{EVIL}.py: TM201": 3}))
    return said("check", ".", "--baseline", "known.json")


def notebook() -> str:
    cell = {"cell_type": "code", "source": f"x = (  # {EVIL}", "metadata": {}, "outputs": []}
    Path(f"n{EVIL.replace('/', '')}.ipynb").write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4}))
    return said("check", ".")


PATTERNS = f'extend-exclude = [{KEY}]\n[tool.flake8_torchmem.per-file-ignores]\n{KEY} = ["TM2"]'
WAYS: dict[str, Callable[[], str]] = {
    **{f"check {name}": partial(said, "check", ".", "--output-format", name) for name in FORMATS},
    "statistics": lambda: said("check", ".", "--statistics"),
    "report in a file": lambda: said("check", NAME, "--output-file", f"r{EVIL.replace('/', '')}"),
    "no such folder for it": lambda: said("check", NAME, "--output-file", f"{EVIL}/x"),
    "fix": lambda: said("fix", "."),
    "fix as json": lambda: said("fix", ".", "--diff", "--output-format", "json"),
    "differences": lambda: said("fix", ".", "--diff"),
    "interactive": lambda: said("fix", ".", "--interactive", stdin="n\n" * 9),
    "baseline": lambda: said("baseline", "."),
    "a path that is not there": lambda: said("check", EVIL),
    "an option": lambda: said("check", ".", "--select", EVIL),
    "a pattern": lambda: said("check", ".", "--exclude", f"[{EVIL}"),
    "a configuration that is not there": lambda: said("check", ".", "--config", EVIL),
    "a name for standard input": lambda: said("check", "-", "--stdin-display-name", EVIL, stdin=LEAKY),
    "settings": configured(PATTERNS, "check", ".", "--show-settings"),
    "a key": configured(f"{KEY} = 1", "check", "."),
    "a value": configured(f"output-format = {KEY}", "check", "."),
    "a code": configured(f"select = [{KEY}]", "check", "."),
    "a name of its own": configured(f"api.step = [{KEY}]", "check", "."),
    "a revision": unknown_revision,
    "a damaged baseline": damaged_baseline,
    "a stale baseline": stale_baseline,
    "a notebook": notebook,
}


@pytest.mark.parametrize("way", WAYS)
def test_text_is_text(hostile: Path, way: str) -> None:
    text = WAYS[way]()
    assert text.strip()
    assert not OBEYED.search(text), OBEYED.findall(text)
    lines = text.split("\n")
    commands = [line for line in lines if line.lstrip().startswith("::")]
    assert len(commands) == (2 if way == "check github" else 0), commands
    assert not [line for line in commands if not re.match(r"::error file=[^:,\n]*,", line)]
    if way == "check html":
        assert "<script" not in text
        assert "<img" not in text
    if way == "check junit":
        assert "]]>" not in text


@pytest.mark.parametrize("way", ["check", "fix --diff", "fix"])
def test_text_is_text_in_colours(hostile: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    for module in ("reports", "fix"):
        monkeypatch.setattr(f"flake8_torchmem.cli.{module}.wants_colour", lambda *_: True)
    text = said(*way.split(), ".")
    assert text.count("\x1b[") > 2
    assert not OBEYED.search(OWN_COLOURS.sub("", text))
    assert all(OWN_COLOURS.fullmatch(f"\x1b[{style}m") for style in COLOURS.values())
