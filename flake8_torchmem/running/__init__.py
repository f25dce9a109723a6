"""Many files, checked by an executor: in this process, in a pool of processes, or on a cluster.

Whoever does the work, the results are the same and come in the order of the files. Files are read here and sent in chunks, and a
window bounds what is under way, so that neither sources nor results pile up. A worker that dies takes nothing along: what it had
is done again, in the end file by file, each in a process of its own, until it is known which file kills it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import ExitStack, closing
from itertools import islice

from flake8_torchmem.files import STDIN, cannot, read
from flake8_torchmem.running.crews import Crew, Here, submitted
from flake8_torchmem.running.task import Answer, Chunk, FileResult, Source, Task, check_chunk, died

__all__ = ["FileResult", "Task", "check_files"]

MAX_CHUNK_BYTES = 250_000
PATIENCE = 1.0  # seconds that a run takes in this process before others are thought of
WORTH_IT = 3.0  # seconds of work that have to be left: to start processes takes a good part of one


def check_files(
    files: Sequence[str],
    task: Task,
    crew: Crew | None = None,
    helpers: Callable[[], Crew] | None = None,
    stdin_name: str = "stdin",
    complain: Callable[[str], None] = lambda _message: None,
) -> Generator[FileResult, None, None]:
    """Check files; the results come one by one, in the order of the files.

    Args:
        files: paths; `-` is standard input.
        task: what is asked for.
        crew: who does the work; by default this process.
        helpers: gives who takes over from this process if the work turns out to be long.
        stdin_name: what standard input is called.
        complain: told, in one line and once each, what workers have to say.

    Raises:
        ClusterError: a cluster cannot do the work (`flake8_torchmem.running.task`).
    """
    run = _Run(task, stdin_name, complain)
    if crew is not None:
        yield from run.results(files, crew)
        return
    started = time.monotonic()
    with closing(run.results(files, Here())) as results:
        for done, result in enumerate(results, start=1):
            yield result
            spent = time.monotonic() - started
            if helpers is not None and spent > PATIENCE and spent / done * (len(files) - done) > WORTH_IT:
                results.close()
                yield from run.results(files[done:], helpers())
                return


class _Run:
    """One run.

    Args:
        task: what is asked for.
        stdin_name: what standard input is called.
        complain: told what workers have to say, each thing once.
    """

    def __init__(self, task: Task, stdin_name: str, complain: Callable[[str], None]) -> None:
        self.task = task
        self.stdin_name = stdin_name
        self.complain = complain
        self.said: set[str] = set()

    def results(self, files: Sequence[str], crew: Crew) -> Generator[FileResult, None, None]:
        """The results of some files, in order, as soon as they are there."""
        chunks = self._chunks(files, max(1, min(crew.largest_chunk, len(files) // crew.window)))
        alone = _Alone(crew, self.task)
        finished = False
        while not finished:
            finished, window = True, deque[tuple[Chunk, "Future[Answer]"]]()
            with crew.open(crew.size) as executor, closing(alone):
                while self._fill(window, executor, chunks if finished else iter(()), crew):
                    chunk, future = window.popleft()
                    try:
                        answer = future.result()
                    except crew.lost:
                        # The executor may be of no more use: it gets no more work, and what it has is waited for.
                        finished, answer = False, alone.check(chunk)
                    yield from self._heard(answer)

    def _fill(self, window: deque[tuple[Chunk, Future[Answer]]], executor: Executor, chunks: Iterator[Chunk], crew: Crew) -> bool:
        for chunk in islice(chunks, crew.window - len(window)):
            window.append((chunk, submitted(executor, crew.lost, check_chunk, self.task, chunk)))
        return bool(window)

    def _heard(self, answer: Answer) -> list[FileResult]:
        for message in answer.complaints:
            if message not in self.said:
                self.said.add(message)
                self.complain(message)
        return answer.results

    def _chunks(self, files: Iterable[str], most: int) -> Iterator[Chunk]:
        """The files, read, in parts that are worth a journey."""
        chunk: Chunk = []
        held = 0
        for path in files:
            source = self._read(path)
            chunk.append(source)
            held += len(source.data) if isinstance(source, Source) else 0
            if len(chunk) >= most or held > MAX_CHUNK_BYTES:
                yield chunk
                chunk, held = [], 0
        if chunk:
            yield chunk

    def _read(self, path: str) -> Source | FileResult:
        name = self.stdin_name if path == STDIN else path
        try:
            return Source(name, read(path), path != STDIN)
        except OSError as error:
            return FileResult(name, errors=(cannot("read", name, error),))


class _Alone:
    """Checks chunks that were lost, one after the other in one process; in a fresh one whenever it dies.

    Args:
        crew: starts the processes.
        task: what is asked for.
    """

    def __init__(self, crew: Crew, task: Task) -> None:
        self.crew = crew
        self.task = task
        self.stack = ExitStack()
        self.executor: Executor | None = None

    def check(self, chunk: Chunk) -> Answer:
        """What is found in a chunk; a file that kills two processes which had nothing else to do has that for a finding."""
        fresh = self.executor is None
        if self.executor is None:
            self.executor = self.stack.enter_context(self.crew.open(1))
        try:
            return submitted(self.executor, self.crew.lost, check_chunk, self.task, chunk).result()
        except self.crew.lost:
            self.close()
        if len(chunk) > 1:
            answers = [self.check([source]) for source in chunk]
            said = [message for answer in answers for message in answer.complaints]
            return Answer([result for answer in answers for result in answer.results], said)
        return Answer([died(source, self.task.settings) for source in chunk], []) if fresh else self.check(chunk)

    def close(self) -> None:
        """End the process, if there is one."""
        self.executor = None
        self.stack.close()
