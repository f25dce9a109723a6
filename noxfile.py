"""The tests under other versions of Python and of what the package stands on; docs/contributing.md tells what each session is for."""

from __future__ import annotations

from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
# What stands between the package and others: the doors, the syntax that libcst reads, what is found, and the edits.
QUICK = [
    *(f"tests/test_{name}.py" for name in ("plugin", "cli", "gates", "syntax", "bad_input", "fixtures", "cases")),
    "tests/test_fixes.py::test_case",
]
TOOLS = ("hypothesis", "jsonschema", "pytest", "pytest-xdist")
NEIGHBOURS = ("torchfix", "flake8-bugbear", "pandas-vet", "Flake8-pyproject")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite, with the newest releases of everything."""
    session.install("-e", ".[dev]")
    session.run("python", "-m", "pytest", *(session.posargs or ["-n", "auto", "--dist", "worksteal"]))


@nox.session(python=[PYTHONS[0], "3.13", "3.14"])
def oldest(session: nox.Session) -> None:
    """The oldest releases that the package admits."""
    constraints = Path(session.create_tmp()) / "oldest.txt"
    constraints.write_text("\n".join(each.replace(">=", "==", 1) for each in PROJECT["project"]["dependencies"]))
    session.install("-e", ".", *TOOLS, "-c", str(constraints))
    _quick(session)


@nox.session(python=["3.13", PYTHONS[-1]])
def newest(session: nox.Session) -> None:
    """The newest libcst and flake8, releases that are not final among them."""
    session.install("-e", ".", *TOOLS)
    session.install("--pre", "--upgrade", "libcst", "flake8", "pycodestyle", "pyflakes")
    _quick(session)


@nox.session(python=[PYTHONS[0], "3.13"])
def beside(session: nox.Session) -> None:
    """Together with other plugins of flake8. TorchFix asks for a libcst below 1.6, so this is a test of an old one, too."""
    session.install("-e", ".", *TOOLS, *NEIGHBOURS)
    session.run("python", "-m", "pytest", "tests/test_beside.py", env={"TORCHMEM_BESIDE": "1"})
    _quick(session)


@nox.session(python="3.11")
def torch(session: nox.Session) -> None:
    """The tests of `verify`; a release of PyTorch can be named: `nox -s torch -- torch==2.2.2`, which is older than NumPy 2."""
    session.install("-e", ".[verify]", "numpy<2", *TOOLS, *session.posargs)
    session.run(
        "python", "-m", "pytest", *(str(path) for path in sorted(Path("tests").glob("test_verify_*.py"))), "tests/test_fixtures_run.py"
    )


def _quick(session: nox.Session) -> None:
    session.run("python", "-m", "pip", "list")
    session.run("python", "-m", "pytest", "-n", "auto", *(session.posargs or QUICK))
