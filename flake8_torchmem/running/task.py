"""What a worker is told, what it does, and what it answers. All of it can be sent to another process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial

from flake8_torchmem import __version__, check_source
from flake8_torchmem.files import SUFFIX_OF_NOTEBOOKS, unreadable, unreadable_cell
from flake8_torchmem.model import FileError, Finding
from flake8_torchmem.output import Located, locate
from flake8_torchmem.rules.internal import INTERNAL_ERROR, internal_error
from flake8_torchmem.settings import Settings
from flake8_torchmem.source import SourceError, decode


class ClusterError(Exception):
    """A cluster cannot do the work; its text says why, in one line."""


@dataclass(frozen=True)
class Source:
    """A file to be checked: its name in the report, its bytes, and whether they are on disk under that name."""

    name: str
    data: bytes
    on_disk: bool = True


@dataclass(frozen=True)
class FileResult:
    """What came of one file: its findings, and why it, or cells of it, could not be checked."""

    name: str
    findings: tuple[Located, ...] = ()
    errors: tuple[FileError, ...] = ()


Chunk = list[Source | FileResult]


@dataclass(frozen=True)
class Answer:
    """The results of a chunk in its order, and what there is to say about the cache."""

    results: list[FileResult]
    complaints: list[str]


@dataclass(frozen=True)
class Task:
    """What is the same for all files of a run.

    Attributes:
        settings: which rules to run.
        imports: follow imports on the disk.
        root: the folder in which they are looked for; empty to look for it around each file.
        cache: the folder in which findings are kept; None keeps none.
        folder: what names of files are relative to.
        program: what checks there, as `program` says; None: what checks here.
        run: no two runs have the same; a worker that outlives one begins the next with nothing in mind.
    """

    settings: Settings
    imports: bool = True
    root: str = ""
    cache: str | None = None
    folder: str = field(default_factory=os.getcwd)
    program: str | None = None
    run: str = field(default_factory=lambda: os.urandom(8).hex())


def program() -> str:
    """What would check here: findings depend on all of it."""
    import platform
    from importlib.metadata import version

    return f"flake8-torchmem {__version__} with libcst {version('libcst')} on Python {'.'.join(platform.python_version_tuple()[:2])}"


def _machine() -> str:
    import platform

    return platform.node()


def check_chunk(task: Task, chunk: Chunk) -> Answer:
    """Check some files, in the process that calls this.

    Raises:
        ClusterError: this is another machine, and it would come to other findings.
    """
    # Threads of one worker would gain nothing from one another, and share what was read.
    with _LOCK:
        checker = _checker(task)
        return Answer([checker.check(source) if isinstance(source, Source) else source for source in chunk], checker.complaints())


def let_go() -> None:
    """Forget what the last run has read, and close its cache."""
    with _LOCK:
        while _CHECKERS:
            _CHECKERS.pop().close()


def died(source: Source | FileResult, settings: Settings) -> FileResult:
    """What there is to say of a file that kills whoever checks it."""
    if isinstance(source, FileResult) or INTERNAL_ERROR.code not in settings.enabled_codes(source.name):
        return FileResult(source.name)
    finding = internal_error(source.name, "the process that checked it died, and so did the next one")
    return FileResult(source.name, (Located(finding, source.data.split(b"\n", 1)[0].decode("utf-8", "replace").rstrip("\r")),))


class _Checker:
    """Checks files for one run.

    Args:
        task: what is asked for.
    """

    def __init__(self, task: Task) -> None:
        from flake8_torchmem.analysis.imports.project import Project

        self.task = task
        self.said: list[str] = []
        self.stack = ExitStack()
        self.flush: Callable[[], None] = lambda: None
        if task.program is not None and task.program != program():
            raise ClusterError(f"the worker on {_machine()} has {program()}, and here is {task.program}")
        project = Project(top=task.root) if task.imports else None
        settings = task.settings if task.settings.folder else replace(task.settings, folder=task.folder)
        self.find: Callable[[str, str], list[Finding]] = partial(check_source, settings=settings, project=project)
        if task.cache is not None:
            from flake8_torchmem.cache import open_cache

            cache = open_cache(task.cache, settings, project, self.said.append)
            if cache is not None:
                self.find, self.flush = self.stack.enter_context(cache).check, cache.store.flush

    def check(self, source: Source) -> FileResult:
        place = os.path.join(self.task.folder, source.name)
        if self.task.program is not None and self.task.imports and source.on_disk:
            _require(place, source.data)
        try:
            if source.name.endswith(SUFFIX_OF_NOTEBOOKS):
                return self._notebook(source, place)
            text = decode(source.data)
            findings = self.find(text, place)
        except SourceError as error:
            return FileResult(source.name, errors=(unreadable(source.name, str(error), error.line),))
        # A remedy is for whoever mends, and is as large as all the rest.
        plain = [replace(finding, path=source.name, remedy=None) for finding in findings]
        return FileResult(source.name, tuple(locate(plain, text)))

    def _notebook(self, source: Source, place: str) -> FileResult:
        from flake8_torchmem.notebooks import Notebook

        notebook = Notebook.of(source.data)
        findings = [finding for finding in self.find(notebook.text, place) if notebook.is_sure(finding)]
        found = locate([replace(finding, path=source.name, remedy=None) for finding in findings], notebook.text)
        inner = (replace(each, finding=notebook.located(each.finding), line=notebook.line(each.finding.span.line)) for each in found)
        return FileResult(source.name, tuple(inner), tuple(unreadable_cell(source.name, *each) for each in notebook.complaints()))

    def complaints(self) -> list[str]:
        """What there is to say since it was last asked for; what was found is written to the cache before."""
        self.flush()
        said, self.said[:] = list(self.said), []
        return said

    def close(self) -> None:
        self.stack.close()


_LOCK = threading.Lock()
_CHECKERS: list[_Checker] = []  # one at most


def _checker(task: Task) -> _Checker:
    if not _CHECKERS or _CHECKERS[0].task != task:
        while _CHECKERS:
            _CHECKERS.pop().close()
        _CHECKERS.append(_Checker(task))
    return _CHECKERS[0]


def _require(place: str, data: bytes) -> None:
    """Imports are followed from where a file is: it has to be there, and to be the one that was sent."""
    try:
        with open(place, "rb") as file:
            same = file.read() == data
    except OSError as error:
        raise ClusterError(f"{place} cannot be read on {_machine()}: {error.strerror}") from None
    if not same:
        raise ClusterError(f"{place} is another file on {_machine()}")
