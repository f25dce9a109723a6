"""The documentation builds without a warning, its links lead somewhere, and its examples show what the tool says.

`UPDATE_DOCS=1 python -m pytest tests/test_docs.py` rewrites the output of the examples.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.cli import torchmem as command_line
from flake8_torchmem.rules import rule_modules
from tests.cases import expected
from tests.running import REPOSITORY, SCRIPTS, run

DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(
    r"^```(?:\{code-block\} )?(?P<language>\w+)\n(?::caption: (?P<file>\S+)\n\n)?(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
PROGRAMS = {"flake8", "python", "torchmem"}


@dataclass
class Page:
    """What a page links to, what can be linked to, and what it marks."""

    links: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    emphasised: int = 0
    drawings: int = 0


class Reader(HTMLParser):
    """Collects a page's links and anchors."""

    def __init__(self) -> None:
        super().__init__()
        self.page = Page()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.page.links += [values[name] for name in ("href", "src") if name in values]
        self.page.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.page.emphasised += values.get("class") == "hll"
        self.page.drawings += tag == "svg" and values.get("role") == "img"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The pages of the documentation, built with every warning an error."""
    out = tmp_path_factory.mktemp("docs").resolve()
    command = [
        str(SCRIPTS / "sphinx-build"),
        "-q",
        "-W",
        "--keep-going",
        "-n",
        "-b",
        "html",
        "-d",
        str(out / "trees"),
        "docs",
        str(out / "html"),
    ]
    result = run(command, REPOSITORY)
    assert result.status == 0, result.out + result.err
    pages = {}
    for path in sorted((out / "html").rglob("*.html")):
        reader = Reader()
        reader.feed(path.read_text("utf-8"))
        pages[path] = reader.page
    return pages


def test_every_link_within_the_documentation_leads_somewhere(site: dict[Path, Page]) -> None:
    assert not [f"{path.name}: {link}" for path, page in site.items() for link in page.links if _is_broken(path, link, site)]


def _is_broken(path: Path, link: str, site: dict[Path, Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc or not (parts.path or parts.fragment):
        return bool(parts.scheme and parts.scheme not in {"http", "https", "data", "mailto"})
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if parts.fragment and target in site:
        return unquote(parts.fragment) not in site[target].anchors
    return not target.exists()


@pytest.mark.parametrize("code", catalogue())
def test_every_rule_has_its_page(code: str, site: dict[Path, Page]) -> None:
    (page,) = (page for path, page in site.items() if path.parts[-2:] == ("rules", f"{code}.html"))
    assert {"what-it-does", "what-it-stays-silent-on"} <= page.anchors or code not in rule_modules()


@pytest.mark.parametrize("code", rule_modules())
def test_the_reported_lines_are_marked(code: str, site: dict[Path, Page]) -> None:
    (page,) = (page for path, page in site.items() if path.parts[-2:] == ("rules", f"{code}.html"))
    marks = expected((REPOSITORY / "fixtures" / f"{code}-{catalogue()[code].name}" / "bad.py").read_text("utf-8"))
    assert page.emphasised > len({line for line, _ in marks})  # those of the fixture, and at least one of the example


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_examples_show_what_is_said(path: Path, tmp_path: Path) -> None:
    """Captioned code is a file; then every command that is shown with output is run there, in order."""
    text = path.read_text("utf-8")
    shown = BLOCK.sub(lambda block: _as_it_is(block, tmp_path), text)
    if os.environ.get("UPDATE_DOCS"):
        path.write_text(shown, "utf-8")
    assert text == shown or os.environ.get("UPDATE_DOCS")


def _as_it_is(block: re.Match[str], folder: Path) -> str:
    if block["file"]:
        (folder / block["file"]).parent.mkdir(parents=True, exist_ok=True)
        (folder / block["file"]).write_text(block["text"], "utf-8")
    if block["language"] != "console":
        return block[0]
    parts = re.split(r"^(?=\$ )", block["text"], flags=re.MULTILINE)
    return block[0].replace(block["text"], "".join(_with_output(part, folder) for part in parts))


def _with_output(part: str, folder: Path) -> str:
    """The command with what it writes now, if it was shown with something and is one of ours."""
    line, _, output = part.partition("\n")
    words = shlex.split(line.removeprefix("$ "), comments=True)
    if not output.strip() or words[0] not in PROGRAMS:
        return part
    program, *arguments = [*words[:1], *(["--isolated"] if words[0] == "flake8" else []), *words[1:]]
    result = run([sys.executable if program == "python" else str(SCRIPTS / program), *arguments], folder)
    assert "Traceback" not in result.err
    ending = output[len(output.rstrip("\n")) :]
    return f"{line}\n{(result.out + result.err).rstrip()}{ending}"


def _commands() -> Iterator[tuple[str, str]]:
    """Every command of ours that the README or a page shows, with the file that shows it."""
    for path in [REPOSITORY / "README.md", *PAGES]:
        for line in re.findall(r"^\$ (?:\S*/)?(torchmem .*)$", path.read_text("utf-8"), re.MULTILINE):
            yield path.name, line


@pytest.mark.parametrize(("page", "line"), sorted(set(_commands())))
def test_the_commands_that_are_shown_exist(page: str, line: str) -> None:
    words = shlex.split(re.split(r" [|<>] ", line)[0], comments=True)
    words = words[: words.index("--")] if "--" in words else words
    context = click.Context(command_line)
    options = {option for parameter in command_line.get_params(context) for option in parameter.opts}
    if len(words) > 1 and not words[1].startswith("-"):
        command = command_line.get_command(context, words[1])
        assert command is not None, f"{page}: {line}"
        options = {option for parameter in command.get_params(context) for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= options, f"{page}: {line}"
