"""TM9xx: what the tool says about itself. No code of the user's is at fault, so these rules have no `check`."""

from __future__ import annotations

from flake8_torchmem.model import Finding, Safety, Severity, Span
from flake8_torchmem.rules.base import Rule

_NO_FIX = "Nothing in the file is wrong in a way that an edit could mend."
_NO_EFFECT = "none: the file was not checked"

INTERNAL_ERROR = Rule(
    code="TM900",
    name="internal-error",
    summary="the checker itself failed on this file",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason=_NO_FIX,
    effect=_NO_EFFECT,
)

UNREADABLE_FILE = Rule(
    code="TM901",
    name="unreadable-file",
    summary="the file, or a cell of a notebook, cannot be read, decoded or parsed",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason=_NO_FIX,
    effect=_NO_EFFECT,
)

INTERNAL_RULES: dict[str, Rule] = {rule.code: rule for rule in (INTERNAL_ERROR, UNREADABLE_FILE)}

INTERNAL_PAGES: dict[str, str] = {
    INTERNAL_ERROR.code: """TM900 internal-error: the checker itself failed on this file

## What it does

Says that a rule, or the analysis before it, raised an exception on this file. The message names the file and the cause.

## Why it matters

The file counts as unchecked: other defects in it may have been missed. All other files are checked as usual.

## What to do

Report it with the file, or the smallest part of it that still fails. Until it is fixed, `--ignore TM900` (or flake8's
per-file-ignores) accepts the unchecked file.
""",
    UNREADABLE_FILE.code: """TM901 unreadable-file: the file, or a cell of a notebook, cannot be read, decoded or parsed

## What it does

Lists a file that could not be checked: it cannot be read, its bytes do not fit its declared encoding, or it is not valid
Python for the interpreter that runs the checker. The message names the file, the line where there is one, and the cause.
Of a notebook each cell that is neither Python nor IPython's is listed, up to 100 of them, and the other cells are checked.
`torchmem check` alone reports it; flake8 has E902 and E999 for the same files.

## Why it matters

A run that could not check a file must not look like a clean one: it exits with 2 (with 1 if there are findings too).

## What to do

Mend the file, run the checker under the Python version that the file is written for, or accept it unchecked with
`--ignore TM901`.
""",
}


def internal_error(path: str, error: BaseException | str) -> Finding:
    """The finding that stands for an exception of our own on this file, or for another failure, in words."""
    cause = " ".join((error if isinstance(error, str) else f"{type(error).__name__}: {error}").split())
    return Finding(
        code=INTERNAL_ERROR.code,
        name=INTERNAL_ERROR.name,
        path=path,
        span=Span(1, 1, 1, 2),
        severity=INTERNAL_ERROR.severity,
        message=f"could not be checked: {cause}",
        help="please report this with the file; the other files were checked",
    )
