"""Runs that are killed at random moments; `python -m tests.benchmarks.kill_storm` kills some hundreds of them."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.benchmarks.kill_storm import storm_on_a_cache, storm_on_files

pytestmark = pytest.mark.skipif(os.name != "posix", reason="what was killed says so on POSIX alone")


def test_eight_runs_share_a_cache_while_some_are_killed(tmp_path: Path) -> None:
    counts = storm_on_a_cache(tmp_path, 4, random.Random(1))
    assert counts["killed"] >= 4
    assert counts["runs"] > counts["killed"]


def test_files_that_are_mended_by_two_are_never_torn(tmp_path: Path) -> None:
    counts = storm_on_files(tmp_path, 2, random.Random(2))
    assert counts["killed"] >= 2
