"""An existing Dask cluster as who does the work: the only reader of `distributed`, which comes with the extra `dask`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import CancelledError, Executor
from contextlib import contextmanager
from typing import TYPE_CHECKING

from flake8_torchmem.running.crews import CHUNKS_PER_WORKER, LARGEST_CHUNK
from flake8_torchmem.running.task import ClusterError, program

if TYPE_CHECKING:
    from distributed import Client

TIMEOUT = 10  # seconds in which a scheduler has to answer
UNKNOWN = 8  # workers to reckon with where there are none yet: a cluster may start them when there is work


class Cluster:
    """The workers of a cluster.

    Args:
        client: talks to the scheduler.
    """

    largest_chunk = LARGEST_CHUNK

    def __init__(self, client: Client) -> None:
        from distributed import KilledWorker

        self.client = client
        self.size = len(client.nthreads()) or UNKNOWN
        self.window = self.size * CHUNKS_PER_WORKER
        # The scheduler gives what a dead worker had to others, and gives up after some.
        self.lost: tuple[type[Exception], ...] = (KilledWorker, CancelledError)

    @contextmanager
    def open(self, size: int) -> Iterator[Executor]:
        """An executor; it takes whichever workers there are."""
        del size
        if self.client.status != "running":
            raise ClusterError("the scheduler is gone")
        executor = self.client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)


@contextmanager
def connected(scheduler: str) -> Iterator[Cluster]:
    """The cluster, as long as the block lasts. Whatever goes wrong in it with the cluster is a `ClusterError`.

    Args:
        scheduler: an address (`tcp://host:8786`, `host:8786`), or a file that the scheduler has written.

    Raises:
        ClusterError: it cannot be reached, or cannot do the work.
    """
    try:
        import dask

        # It would write to standard error what is said here in one line.
        dask.config.set({"logging": {"distributed": "critical", "distributed.client": "critical"}})
        from distributed import Client
    except ImportError as error:
        raise ClusterError(f"the package `distributed` is needed, which comes with flake8-torchmem[dask] ({error})") from error
    where = {"scheduler_file": scheduler} if os.path.isfile(scheduler) else {"address": scheduler}
    try:
        client = Client(**where, timeout=TIMEOUT, set_as_default=False)
    except Exception as error:
        raise ClusterError(f"no scheduler answers at {scheduler}: {_line(error)}") from error
    try:
        yield Cluster(client)
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(f"the work cannot be done at {scheduler}, where {program()} is needed: {_line(error)}") from error
    finally:
        client.close(timeout=TIMEOUT)


def _line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
