"""The README shows what the tool really says. `UPDATE_README=1 python -m pytest tests/test_readme.py` rewrites it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.configuration import configure
from tests.running import REPOSITORY, flake8, torchmem

README = REPOSITORY / "README.md"
EXAMPLE = re.compile(r"```python\n(?P<source>.*?)```", re.DOTALL)


def between(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<=<!-- {name}:start -->\n).*?(?=<!-- {name}:end -->)", re.DOTALL)


def assert_shows(name: str, expected: str) -> None:
    """The part of the README between the named markers is as expected, or is made so."""
    text = README.read_text("utf-8")
    shown = between(name).search(text)
    assert shown is not None, f"README.md has no markers for {name!r}"
    if os.environ.get("UPDATE_README"):
        README.write_text(text[: shown.start()] + expected + text[shown.end() :], "utf-8")
    else:
        assert shown.group() == expected


def test_the_rule_table_is_the_catalogue() -> None:
    rows = [
        f"| {rule.code} | {rule.name} | {rule.summary} | {'on' if rule.default else 'off'} | {rule.safety.value} |"
        for rule in catalogue().values()
    ]
    head = ["| code | name | reports | default | fix |", "|---|---|---|---|---|"]
    assert_shows("rules", "\n".join([*head, *rows]) + "\n")


def test_the_example_gives_the_output_that_is_shown(tmp_path: Path) -> None:
    source = EXAMPLE.search(README.read_text("utf-8"))
    assert source is not None
    (tmp_path / "train.py").write_text(source["source"], "utf-8")
    output = torchmem("check", "train.py", cwd=tmp_path).out
    assert "TM105" in output
    assert_shows("example", f"```console\n$ torchmem check train.py\n{output}```\n")


def test_the_flake8_example_gives_the_output_that_is_shown(tmp_path: Path) -> None:
    source = EXAMPLE.search(README.read_text("utf-8"))
    assert source is not None
    (tmp_path / "train.py").write_text(source["source"], "utf-8")
    output = flake8("--select=TM", "train.py", cwd=tmp_path).out
    assert_shows("flake8", f"```console\n$ flake8 --select=TM train.py\n{output}```\n")


def test_the_configuration_that_is_shown_is_taken(tmp_path: Path) -> None:
    shown = between("configuration").search(README.read_text("utf-8"))
    assert shown is not None
    (tmp_path / "pyproject.toml").write_text(shown.group().removeprefix("```toml\n").removesuffix("```\n"), "utf-8")
    found = configure([str(tmp_path)])
    assert {key for key, origin in found.origins.items() if origin == "default"} == {"select", "exclude", "cache-dir"}
    assert found.settings.own.kinds("acme.cut") == ("detach",)
