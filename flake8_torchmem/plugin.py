"""The flake8 plugin: the only module that knows flake8. flake8 itself does noqa, per-file ignores and the output."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from flake8_torchmem.words import DEFAULT_OFF, SPELLINGS, candidate

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
    from typing import ClassVar

    from flake8.options.manager import OptionManager

    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.model import Finding
    from flake8_torchmem.ownnames import OwnNames

_INTERNAL = frozenset({"TM900"})


class TorchMemPlugin:
    """Checks one file that flake8 has parsed. What only files that may train need is imported with the first of them."""

    options: ClassVar[argparse.Namespace | None] = None
    root: ClassVar[str] = ""
    own: ClassVar[OwnNames | None] = None
    _codes: ClassVar[frozenset[str] | None] = None
    _project: ClassVar[Project | None] = None

    def __init__(self, tree: ast.Module, filename: str, lines: list[str]) -> None:
        self.tree = tree
        self.filename = filename
        self.lines = lines

    @classmethod
    def add_options(cls, manager: OptionManager) -> None:
        """Keep the default-off rules quiet unless they are selected; and what flake8 has no option for."""
        manager.extend_default_ignore(DEFAULT_OFF)
        manager.add_option(
            "--torchmem-no-imports",
            action="store_true",
            parse_from_config=True,
            help="Judge each file alone: do not read what it imports from the project around it.",
        )
        manager.add_option(
            "--torchmem-project-root",
            action=_Named,
            metavar="FOLDER",
            default="",
            parse_from_config=True,
            normalize_paths=True,
            help="Where imports are looked for; by default in the project around each file.",
        )
        for kind, spelling in SPELLINGS.items():
            manager.add_option(
                f"--torchmem-{kind.replace('_', '-')}",
                metavar="NAMES",
                default="",
                parse_from_config=True,
                comma_separated_list=True,
                help=f"Names of your own that are read as PyTorch's {spelling}.",
            )

    @classmethod
    def parse_options(cls, options: argparse.Namespace) -> None:
        """Remember what to run. flake8 calls this again in every worker process that does not inherit this one's memory."""
        cls.options = options
        wrong: list[str] = []
        cls.root = _folder(options, wrong)
        cls.own = _own_names(options, wrong)
        if wrong:
            raise _critical(wrong)
        cls._codes = cls._project = None

    def run(self) -> Iterator[tuple[int, int, str, type[TorchMemPlugin]]]:
        """Yield line, 0-based column and text of each finding."""
        text = "".join(self.lines)
        if candidate(text) or (self.own is not None and self.own.spoken(text)):
            for finding in self._findings(text):
                yield finding.span.line, finding.span.column - 1, f"{finding.code} [{finding.name}] {finding.message}", type(self)

    def _findings(self, text: str) -> list[Finding]:
        """An exception would abort flake8's whole run without naming the file: it becomes a finding of this one."""
        codes = self.codes()
        if not codes - _INTERNAL:
            return []
        try:
            from flake8_torchmem.analysis.gate import select
            from flake8_torchmem.ownnames import NONE

            selection = select(text, self.tree, codes, self.own or NONE)
            if selection is None:
                return []
            from flake8_torchmem.analysis.engine import check_selection

            return check_selection(text, self.filename, codes, selection, self.project(), own=self.own or NONE)
        except Exception as error:  # noqa: BLE001
            from flake8_torchmem.rules.internal import internal_error

            return [internal_error(self.filename, error)]

    @classmethod
    def codes(cls) -> frozenset[str]:
        """The codes that flake8 would report."""
        if cls._codes is None:
            cls._codes = _reported_codes(cls.options)
        return cls._codes

    @classmethod
    def project(cls) -> Project | None:
        """One for all files of a process: what several of them import is read once."""
        if cls._project is None and not getattr(cls.options, "torchmem_no_imports", False):
            from flake8_torchmem.analysis.imports.project import FLAKE8_LIMITS, Project

            cls._project = Project(FLAKE8_LIMITS, cls.root)
        return cls._project


class _Named(argparse.Action):
    """An option that remembers that it was on the command line: what a file says goes another way."""

    def __call__(self, parser: object, namespace: argparse.Namespace, values: object, option_string: object = None) -> None:
        setattr(namespace, self.dest, values)
        setattr(namespace, f"{self.dest}_is_named", True)


def _folder(options: argparse.Namespace, wrong: list[str]) -> str:
    """The given folder of the project; flake8 has made a path in a file relative to the working directory, or it is so anyway.

    A file is part of a repository, and does not lead out of it.
    """
    given = getattr(options, "torchmem_project_root", "")
    if given and not os.path.isdir(given):
        wrong.append(f"--torchmem-project-root: there is no folder {given!r}")
    elif given and not getattr(options, "torchmem_project_root_is_named", False):
        from flake8_torchmem.reach import is_within, top_of

        if not is_within(given, top_of(os.getcwd())):
            wrong.append(f"--torchmem-project-root: {given!r} leads out of the repository, which only the command line can")
    return os.path.abspath(given) if given else ""


def _own_names(options: argparse.Namespace, wrong: list[str]) -> OwnNames | None:
    """What the options say of names, by what they are read as."""
    given = {kind: tuple(getattr(options, f"torchmem_{kind}", ())) for kind in SPELLINGS}
    if not any(given.values()):
        return None
    from flake8_torchmem.ownnames import OwnNames, refused

    for kind, names in given.items():
        wrong += (f"--torchmem-{kind.replace('_', '-')}: {cause}" for cause in refused(names))
    return OwnNames(**given)


def _critical(causes: list[str]) -> Exception:
    """What flake8 shows as it is, in place of a traceback."""
    from flake8.exceptions import ExecutionError

    error: Exception = ExecutionError("\n".join(causes))
    return error


def _reported_codes(options: argparse.Namespace | None) -> frozenset[str]:
    """The codes that flake8 would report: it filters only what has been found, so the work is saved here.

    flake8 offers no public way to ask. Should its internals change, all rules run and flake8 filters, only slower.
    """
    from flake8_torchmem.rules import rule_codes

    codes = rule_codes() | _INTERNAL
    try:
        from flake8.style_guide import Decision, DecisionEngine

        decide = DecisionEngine(options).decision_for
        return frozenset(code for code in codes if decide(code) is Decision.Selected)
    except Exception:  # noqa: BLE001
        return codes
