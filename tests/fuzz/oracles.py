"""What must hold for any input, whatever it is."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import flake8_torchmem
from flake8_torchmem import check_source
from flake8_torchmem.analysis import findings, gate
from flake8_torchmem.fixes import Document, Outcome, Planned, fix_document
from flake8_torchmem.model import Finding
from flake8_torchmem.rules import internal
from flake8_torchmem.rules.internal import INTERNAL_ERROR, internal_error
from flake8_torchmem.settings import Settings
from flake8_torchmem.source import SourceError, decode
from tests.fuzz.mended import change_of_meaning, compiles, lost_comments
from tests.ungated import everything

NAME = "fuzzed.py"
ALL_RULES = Settings(extend_select=("TM",))
PACKAGE = str(Path(flake8_torchmem.__file__).parent)
FRAMES = 2
Place = tuple[str, int, int]


@dataclass(frozen=True)
class Problem:
    """Something that must not be.

    Attributes:
        kind: what does not hold.
        cause: the same for inputs that fail in the same way, as far as can be told.
        detail: for people.
    """

    kind: str
    cause: str
    detail: str = ""


class _Broken(Exception):  # noqa: N818
    """Carries a problem out."""

    def __init__(self, kind: str, cause: str, detail: str = "") -> None:
        super().__init__(kind, cause)
        self.problem = Problem(kind, cause, detail)


def problem(data: bytes, step: Callable[[], None] = lambda: None) -> Problem | None:
    """The first thing that must not be with this file, if any.

    Args:
        data: the file's bytes.
        step: called before each piece of work that is to be limited in time.
    """
    try:
        _hold(data, step)
    except _Broken as broken:
        return broken.problem
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return Problem("exception", _cause(error), "".join(traceback.format_exception(error)))
    return None


def _hold(data: bytes, step: Callable[[], None]) -> None:
    step()
    try:
        text = decode(data)
        found = _check(data)
    except SourceError:
        _is_refused(data)
        return
    _are_places(found, text)
    step()
    _through_gates(text, found)
    step()
    _whatever_the_form(text, found)
    for unsafe in (False, True):
        step()
        _mends(data, unsafe, step)


def _check(data: bytes | str) -> list[Finding]:
    with _failures_told():
        return check_source(data, NAME, ALL_RULES)


@contextmanager
def _failures_told() -> Iterator[None]:
    """What the engine says of its own failures in one line, with where it came from."""
    failures: list[_Broken] = []

    def told(path: str, error: BaseException | str) -> Finding:
        if isinstance(error, BaseException):
            failures.append(_Broken(INTERNAL_ERROR.code, _cause(error), "".join(traceback.format_exception(error))))
        return internal_error(path, error)

    with patch.object(internal, "internal_error", told), patch.object(findings, "internal_error", told):
        yield
    if failures:
        raise failures[0]


def _cause(error: BaseException) -> str:
    """The kind of an exception, and the innermost places of the package that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(PACKAGE)]
    places = (f"{frame.filename.removeprefix(PACKAGE)}:{frame.name}" for frame in frames[-FRAMES:])
    return " ".join((type(error).__name__, *places))


def _is_refused(data: bytes) -> None:
    """What is no Python for one is none for the other."""
    try:
        _fixed(data, unsafe=False)
    except SourceError:
        return
    raise _Broken("mended what cannot be checked", "")


def _are_places(found: list[Finding], text: str) -> None:
    lines = text.split("\n")
    for finding in found:
        span = finding.span
        if not (
            1 <= span.line <= span.end_line <= len(lines)
            and 1 <= span.column <= len(lines[span.line - 1]) + 1
            and 1 <= span.end_column <= len(lines[span.end_line - 1]) + 1
            and (span.line, span.column) <= (span.end_line, span.end_column)
        ):
            raise _Broken("no place", finding.code, str(finding))


def _places(found: list[Finding]) -> set[Place]:
    return {(finding.code, finding.span.line, finding.span.column) for finding in found}


def _through_gates(text: str, found: list[Finding]) -> None:
    """What is found in the whole file is found in its slices; not asked where something is so long that it is left out."""
    if text.count("elif") > gate.MAX_ARMS or len(text) > gate.MAX_UNIT:
        return
    with patch.object(gate, "select", everything):
        whole = _places(_check(text))
    through = _places(found)
    if whole != through:
        cause = " ".join(sorted({f"-{code}" for code, *_ in whole - through} | {f"+{code}" for code, *_ in through - whole}))
        raise _Broken("gates", cause, f"lost {sorted(whole - through)}, found through gates alone {sorted(through - whole)}")


def _whatever_the_form(text: str, found: list[Finding]) -> None:
    """Comments at the end, line ends and byte order marks decide nothing."""
    forms = {
        "a comment at the end": (text if text.endswith("\n") else text + "\n") + "\n# the end",
        "CRLF": text.replace("\n", "\r\n"),
        "a byte order mark": "\ufeff" + text,
    }
    for name, form in forms.items():
        other = _check(form)
        if other != found:
            raise _Broken("form", name, f"{found}\n{other}")


def _fixed(data: bytes, unsafe: bool, wanted: Callable[[Planned, Document], bool] = lambda _planned, _document: True) -> Outcome:
    with _failures_told():
        return fix_document(Document.of(data), NAME, ALL_RULES, None, unsafe, wanted)


def _mends(data: bytes, unsafe: bool, step: Callable[[], None]) -> None:
    """What is mended is still a program, and is mended at once; a safe fix changes what it says that it changes."""
    planned: list[tuple[Planned, Document]] = []

    def noted(one: Planned, document: Document) -> bool:
        planned.append((one, document))
        return True

    try:
        outcome = _fixed(data, unsafe, noted)
    except SourceError:
        return  # it would come back as other bytes
    for left in outcome.left:
        if left.reason.startswith("what would mend it failed"):
            raise _Broken("remedy", f"{left.finding.code} {left.reason}", str(left.finding))
    for one, document in planned:
        step()
        why = change_of_meaning(one, document)
        if why:
            after = document.edited(one.fix.edits).text
            raise _Broken("change of meaning", f"{one.finding.code} {why.split(':')[0]}", f"{why}\n{one}\n{after}")
    if outcome.fixed:
        step()
        _stays_mended(data, outcome, unsafe)
    elif outcome.document.data != data:
        raise _Broken("changed without a fix", "")


def _stays_mended(data: bytes, outcome: Outcome, unsafe: bool) -> None:
    codes = " ".join(sorted({finding.code for finding, _ in outcome.fixed}))
    after = outcome.document.data
    if compiles(data) and not compiles(after):
        raise _Broken("does not compile", codes, outcome.document.text)
    lost = [] if unsafe else lost_comments(data, after)
    if lost:
        raise _Broken("comment lost", codes, "\n".join([*lost, outcome.document.text]))
    again = _fixed(after, unsafe)
    if again.document.data != after:
        raise _Broken("mended twice", codes, f"{outcome.document.text}\n--- again:\n{again.document.text}")
