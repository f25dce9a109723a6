"""What holds for every test."""

from __future__ import annotations

import itertools
import os
import signal

import pytest

NUMBERS = itertools.count()
os.environ.setdefault("OMP_NUM_THREADS", "1")  # there is a process of tests for each processor; more threads wait for one another
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell that hands this down to all that is started
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test finds what another one, or the user, has kept; the folder is made when something is kept."""
    monkeypatch.setenv("TORCHMEM_CACHE_DIR", str(tmp_path_factory.getbasetemp() / f"cache-{next(NUMBERS)}"))
