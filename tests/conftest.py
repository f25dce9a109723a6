"""What holds for every test."""

from __future__ import annotations

import itertools

import pytest

NUMBERS = itertools.count()


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test finds what another one, or the user, has kept; the folder is made when something is kept."""
    monkeypatch.setenv("TORCHMEM_CACHE_DIR", str(tmp_path_factory.getbasetemp() / f"cache-{next(NUMBERS)}"))
