"""The server's side of the process that computes: one job at a time, none longer than a limit, and a new process after a failure."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from flake8_torchmem.lsp.jobs import Failure, Job
from flake8_torchmem.lsp.pipes import frame, receive

LIMIT = 60.0  # seconds for one job
GRACE = 1.0  # seconds for one whose answer nobody waits for any more
_CHILD = Path(__file__).with_name("child.py")


class WorkerError(Exception):
    """A job has no answer; its text is why."""


class Worker:
    """The process that computes, started when it is first needed."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._turn = asyncio.Lock()
        self._running: asyncio.Task[object] | None = None

    async def ask(self, job: Job) -> object:
        """The answer to a job, in turn.

        Whoever asks may be cancelled: a job that waits is taken back, one that is computed is ended if it takes much longer.

        Raises:
            WorkerError: there is none.
        """
        exchange = asyncio.create_task(self._exchange(job))
        try:
            return await asyncio.shield(exchange)
        except asyncio.CancelledError:
            exchange.add_done_callback(_forget)
            asyncio.get_running_loop().call_later(GRACE if exchange is self._running else 0, exchange.cancel)
            raise

    async def start(self) -> None:
        """Start the process, so that the first job need not wait for that; if it cannot be, the first job says so."""
        async with self._turn:
            with contextlib.suppress(OSError):
                await self._started()

    async def _started(self) -> Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(sys.executable, str(_CHILD), stdin=PIPE, stdout=PIPE)
        return self._process

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _exchange(self, job: Job) -> object:
        async with self._turn:
            self._running = asyncio.current_task()
            try:
                answer = await asyncio.wait_for(self._answer(job), LIMIT)
            except asyncio.TimeoutError as error:
                await self.close()
                raise WorkerError(f"it takes longer than {LIMIT:.0f} s") from error
            except (asyncio.IncompleteReadError, OSError) as error:
                await self.close()
                raise WorkerError("the process that checks came to an end") from error
            except BaseException:
                await self.close()
                raise
            finally:
                self._running = None
        if isinstance(answer, Failure):
            raise WorkerError(answer.reason)
        return answer

    async def _answer(self, job: Job) -> object:
        process = await self._started()
        assert process.stdin is not None  # noqa: S101 - both were asked for
        assert process.stdout is not None  # noqa: S101
        process.stdin.write(frame(job))
        await process.stdin.drain()
        return await receive(process.stdout)


def _forget(exchange: asyncio.Task[object]) -> None:
    """Nobody waits for what became of it."""
    if not exchange.cancelled():
        exchange.exception()
