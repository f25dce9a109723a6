"""What all commands do: hand the module's code to the fixes, and give back the module that comes out."""

from __future__ import annotations

import argparse
from functools import lru_cache
from typing import ClassVar

import libcst as cst
from libcst.codemod import CodemodCommand, CodemodContext

from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.fixes import Document, fix_document
from flake8_torchmem.settings import Settings


class FixCommand(CodemodCommand):
    """Mends one file; what is left becomes a warning.

    Args:
        context: libcst's, with the name of the file.
        unsafe_fixes: make fixes that change training behaviour, or a type, as well.
        no_imports: judge the file alone.
    """

    SETTINGS: ClassVar[Settings] = Settings()

    def __init__(self, context: CodemodContext, unsafe_fixes: bool = False, no_imports: bool = False) -> None:
        super().__init__(context)
        self.unsafe_fixes = unsafe_fixes
        self.no_imports = no_imports

    @staticmethod
    def add_args(arg_parser: argparse.ArgumentParser) -> None:
        """The options of every command."""
        arg_parser.add_argument(
            "--unsafe-fixes", action="store_true", help="Make the fixes that change training behaviour, or a type, as well: read them."
        )
        arg_parser.add_argument("--no-imports", action="store_true", help="Judge each file alone: do not read what it imports.")

    def transform_module_impl(self, tree: cst.Module) -> cst.Module:
        """The module after its fixes; the very same one where there are none."""
        code = tree.code
        path = self.context.filename or "<stdin>"
        project = None if self.no_imports or self.context.filename is None else _project()
        outcome = fix_document(Document(code, tree.encoding), path, self.SETTINGS, project, self.unsafe_fixes)
        for left in outcome.left:
            self.warn(f"line {left.finding.span.line}: {left.finding.code} [{left.finding.name}] left: {left.reason}")
        if outcome.document.text == code:
            return tree
        return cst.parse_module(outcome.document.text, config=tree.config_for_parsing)


@lru_cache(maxsize=1)
def _project() -> Project:
    """One for all files of a process. What is mended in other files meanwhile changes nothing about who calls whom."""
    return Project()
