"""`torchmem-dev new-rule TM216 some-name`: the files of a new rule, in the shape that the tests demand, with holes to be filled in.

Each hole says `FILL IN`; the tests fail until none is left, the fixture is reported where it is marked, and there are cases enough.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

import click

TEMPLATES = Path(__file__).with_name("templates")
CODE = re.compile(r"TM[1-8]\d\d")
NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)+")
UNRELEASED = re.compile(r"^## Unreleased.*?\n### Added\n\n", re.MULTILINE | re.DOTALL)
NEXT = """\
Next:
1. fill in what says FILL IN: {holes}
2. {triggers}: which words make a definition worth a look for {code}
3. tests/test_cases.py: in SPOTS, the syntax that {code} underlines
4. if it is to be off by default: `default=False`, and {code} in DEFAULT_OFF of flake8_torchmem/words.py
5. UPDATE_README=1 python -m pytest tests/test_readme.py
6. python -m pytest -k {code}, then all of the tests
"""


class Mistake(click.ClickException):
    """What was asked for cannot be made; nothing was written."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def torchmem_dev() -> None:
    """Work on flake8-torchmem itself, from within its checkout."""


@torchmem_dev.command("new-rule")
@click.argument("code")
@click.argument("name")
@click.option(
    "--fix",
    "safety",
    type=click.Choice(["safe", "unsafe", "display"]),
    default="unsafe",
    show_default=True,
    help="The class of its fix; display: there is none, and so no table of fixes.",
)
def new_rule(code: str, name: str, safety: str) -> None:
    """Make the files of a rule: its module, fixture, cases and fixes, and its line in the changelog.

    CODE is TM and three digits, of which the first says the family. NAME says what is wrong, in words with hyphens.
    """
    root = checkout(Path.cwd())
    texts = dict(files(root, code, name, safety))
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
        click.echo(path.relative_to(root))
    holes = sum(text.count("FILL IN") for text in texts.values())
    click.echo(NEXT.format(code=code, holes=holes, triggers="flake8_torchmem/analysis/triggers.py"))


def checkout(folder: Path) -> Path:
    """The checkout around a folder.

    Raises:
        Mistake: there is none.
    """
    for root in (folder, *folder.parents):
        if (root / "flake8_torchmem" / "rules").is_dir() and (root / "fixtures").is_dir():
            return root
    raise Mistake(f"{folder}: no checkout of flake8-torchmem is around this folder")


def files(root: Path, code: str, name: str, safety: str) -> Iterator[tuple[Path, str]]:
    """What is to be written, and the changelog with a line more.

    Raises:
        Mistake: the code or the name is not of the right form or taken, or the changelog has no place for it.
    """
    if not CODE.fullmatch(code):
        raise Mistake(f"{code}: a rule's code is TM and three digits, TM1xx to TM8xx")
    if not NAME.fullmatch(name):
        raise Mistake(f"{name}: a rule's name is two words or more in lower case, joined by hyphens")
    module = root / "flake8_torchmem" / "rules" / f"{code.lower()}_{name.replace('-', '_')}.py"
    for other in module.parent.glob("tm*.py"):
        if other.name.startswith(code.lower()) or other.stem[6:] == module.stem[6:]:
            raise Mistake(f"{other.relative_to(root)}: this code or name is taken")
    fixture = root / "fixtures" / f"{code}-{name}"
    places = {
        "rule.py": module,
        **{file: fixture / file for file in ("bad.py", "good.py", "fixed.py", "fixture.toml")},
        "cases.txt": root / "tests" / "cases" / f"{code}.txt",
        "fixes.txt": root / "tests" / "fixes" / f"{code}.txt",
    }
    for template, path in places.items():
        if template == "fixes.txt" and safety == "display":
            continue
        if path.exists():
            raise Mistake(f"{path.relative_to(root)}: is there already")
        text = (TEMPLATES / f"{template}.txt").read_text("utf-8")
        yield path, Template(text).substitute(code=code, name=name, safety=safety.upper(), version=_version(root))
    yield _with_a_line_more(root / "CHANGELOG.md", f"- {code} {name}: FILL IN.\n")


def _version(root: Path) -> str:
    """The version that will be the first to have the rule."""
    found = re.search(r'^__version__ = "([^"]+)"$', (root / "flake8_torchmem" / "__init__.py").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise Mistake("flake8_torchmem/__init__.py: no __version__ is there")
    return found[1]


def _with_a_line_more(changelog: Path, line: str) -> tuple[Path, str]:
    text = changelog.read_text("utf-8")
    found = UNRELEASED.search(text)
    if found is None:
        raise Mistake("CHANGELOG.md: no `### Added` under `## Unreleased` is there")
    return changelog, text[: found.end()] + line + text[found.end() :]


def main() -> None:
    """The command of this process."""
    sys.exit(torchmem_dev(prog_name="torchmem-dev"))
