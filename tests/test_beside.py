"""flake8 with other plugins: nobody's findings change, and its configuration means for ours what it means for theirs."""

from __future__ import annotations

import os
import sys
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

from tests.running import REPOSITORY, Result, run
from tests.samples import BOTH, LEAKY

OURS = "flake8-torchmem"
NEIGHBOURS = ("flake8-bugbear", "flake8-pyproject", "pandas-vet", "torchfix")
# flake8 sees all of the environment but what is named.
MAIN = """
import importlib.metadata, sys
everything, hidden = importlib.metadata.distributions, sys.argv.pop(1).split(",")
importlib.metadata.distributions = lambda: (each for each in everything() if each.metadata["Name"].lower() not in hidden)
from flake8.main.cli import main
raise SystemExit(main())
"""
MIXED = f"""\
import pandas as pd
{LEAKY}

def keep(item, items=[]):
    items.append(item)


def load(path):
    frame = pd.DataFrame(path).isnull()
    return frame.values, torch.load(path)
"""
LEAK = "mixed.py:12:9: TM201"
THEIRS = {"flake8-bugbear": "B006", "pandas-vet": "PD003", "torchfix": "TOR102"}


MISSING = sorted({*NEIGHBOURS} - {each.metadata["Name"].lower() for each in distributions()})

pytestmark = pytest.mark.skipif(
    bool(MISSING) and "TORCHMEM_BESIDE" not in os.environ, reason=f"not installed: {', '.join(MISSING)} (nox -s beside)"
)


def flake8(*arguments: str, cwd: Path, hidden: tuple[str, ...] = ()) -> Result:
    """A flake8 process that does not see some distributions."""
    return run([sys.executable, "-c", MAIN, ",".join(hidden), *arguments], cwd)


def places(result: Result) -> list[str]:
    assert result.err == ""
    return [" ".join(line.removeprefix("./").split(" ")[:2]) for line in result.out.splitlines()]


def is_ours(place: str) -> bool:
    return place.rpartition(" ")[2].startswith("TM")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mixed.py").write_text(MIXED)
    (tmp_path / "both.py").write_text(BOTH)
    return tmp_path


def test_all_are_loaded(tmp_path: Path) -> None:
    said = flake8("--version", cwd=tmp_path).out.replace("\n", " ").lower()
    assert all(f"{name}: {version(name)}" in said for name in (OURS, *NEIGHBOURS))
    assert "torchfix" not in flake8("--version", cwd=tmp_path, hidden=NEIGHBOURS).out.lower()


def test_nobody_changes_what_another_finds(folder: Path) -> None:
    together = places(flake8("--isolated", ".", cwd=folder))
    assert LEAK in together
    assert {place.rpartition(" ")[2] for place in together} >= {"TM101", *THEIRS.values()}
    assert places(flake8("--isolated", ".", cwd=folder, hidden=NEIGHBOURS)) == [
        place for place in together if is_ours(place) or place.rpartition(" ")[2][0] in "EFW"
    ]
    assert places(flake8("--isolated", ".", cwd=folder, hidden=(OURS,))) == [place for place in together if not is_ours(place)]


def test_fixtures_together_and_alone() -> None:
    chosen = ("--isolated", "--select=TM", *(str(path) for path in sorted(REPOSITORY.glob("fixtures/TM*1-*/bad.py"))))
    together = places(flake8(*chosen, cwd=REPOSITORY))
    assert len(together) > 10
    assert places(flake8(*chosen, cwd=REPOSITORY, hidden=NEIGHBOURS)) == together


def test_configuration_in_pyproject(folder: Path) -> None:
    (folder / "pyproject.toml").write_text(
        '[tool.flake8]\nselect = ["TM", "B", "TOR"]\nignore = ["TM205", "B006"]\nper-file-ignores = ["both.py:TM101"]\n'
        'torchmem-backward = ["go_back"]\ntorchmem-step = ["advance"]\n'
    )
    (folder / "own.py").write_text(BOTH.replace("optimizer.step()", "advance(optimizer)").replace("loss.backward()", "go_back(loss)"))
    found = places(flake8(".", cwd=folder))
    assert {"both.py:10:9: TM201", LEAK} <= set(found)
    assert any(place.startswith("own.py") and place.endswith("TM101") for place in found)
    assert not any("B006" in place or (place.startswith("both.py") and place.endswith("TM101")) for place in found)
    unread = places(flake8(".", cwd=folder, hidden=("flake8-pyproject",)))  # which reads the file with --isolated as well
    assert not any(place.startswith("own.py") and place.endswith("TM101") for place in unread)


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        (["--select=TM2"], {"TM201"}),
        (["--select=TM2,PD"], {"TM201", "PD003", "PD011"}),
        (["--select=TM", "--ignore=TM201"], {"TM101"}),
        (["--select=TM", "--per-file-ignores=mixed.py:TM,both.py:TM1"], {"TM201"}),
        (["--select=TOR,TM1", "--extend-ignore=TOR102"], {"TM101"}),
        (["--extend-select=TM107", "--ignore=E,F,W,B,PD,TOR"], {"TM101", "TM201"}),
    ],
)
def test_choices_of_the_command_line(folder: Path, options: list[str], codes: set[str]) -> None:
    assert {place.rpartition(" ")[2] for place in places(flake8("--isolated", *options, ".", cwd=folder))} == codes


def test_noqa_silences_who_is_named(folder: Path) -> None:
    text = MIXED.replace("total += loss", "total += loss  # noqa: TM201").replace("items=[]):", "items=[]):  # noqa: TM201")
    (folder / "mixed.py").write_text(text)
    found = places(flake8("--isolated", "mixed.py", cwd=folder))
    assert LEAK not in found
    assert any(place.endswith("B006") for place in found)
