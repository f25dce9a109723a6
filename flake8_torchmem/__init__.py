"""Finds where PyTorch training code loses memory or corrupts its accumulated gradients.

`check_source` and `fix_source` are the whole library interface. Importing this package costs nothing: the engine is imported by the
first check, and libcst only by what mends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flake8_torchmem.analysis.imports.project import Project
    from flake8_torchmem.fixes import Outcome
    from flake8_torchmem.model import Finding
    from flake8_torchmem.settings import Settings

__all__ = ["Finding", "__version__", "check_source", "fix_source"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """`Finding`, imported when it is asked for."""
    if name == "Finding":
        from flake8_torchmem.model import Finding

        return Finding
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def check_source(
    source: bytes | str, path: str = "<string>", settings: Settings | None = None, project: Project | None = None
) -> list[Finding]:
    """Check one file's source and return its findings, in order, without those that a `# noqa` comment suppresses.

    Args:
        source: the file's bytes, or text that is already decoded.
        path: the name that the findings carry; the file need not exist.
        settings: which rules to run, and what names of the project mean; by default the rules that are on by default.
        project: where to look for what the file imports, `flake8_torchmem.analysis.imports.project.Project()`, the same one for all
            files of a run; by default the file is judged alone.

    Raises:
        SourceError: the source cannot be decoded or is not valid Python (`flake8_torchmem.source`).
        SettingsError: a selection names no rule (`flake8_torchmem.settings`).
    """
    from flake8_torchmem.analysis.engine import check_text
    from flake8_torchmem.settings import Settings
    from flake8_torchmem.source import decode
    from flake8_torchmem.suppression import unsuppressed

    settings = settings or Settings()
    codes = settings.enabled_codes(path)
    text = decode(source) if isinstance(source, bytes) else source.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    findings = check_text(text, path, codes, project=project, own=settings.own)
    return unsuppressed(text, [settings.weighed(finding) for finding in findings if finding.code in codes])


def fix_source(
    source: bytes | str, path: str = "<string>", settings: Settings | None = None, project: Project | None = None, unsafe: bool = False
) -> Outcome:
    """Mend one file's source: its `document` has the result as `text` and `data`, beside what was `fixed` and what was `left`, and why.

    Args:
        source: the file's bytes, or text that is already decoded. Line ends, byte order mark and encoding are kept.
        path: the name that the findings carry; nothing is written.
        settings: whose findings are to be mended; by default of the rules that are on by default.
        project: where to look for what the file imports, as for `check_source`.
        unsafe: make fixes that change training behaviour, or a type, as well.

    Raises:
        SourceError: the source cannot be decoded or is not valid Python (`flake8_torchmem.source`).
        SettingsError: a selection names no rule (`flake8_torchmem.settings`).
    """
    from flake8_torchmem.fixes import Document, fix_document
    from flake8_torchmem.settings import Settings

    document = Document.of(source) if isinstance(source, bytes) else Document(source, "utf-8")
    return fix_document(document, path, settings or Settings(), project, unsafe)
