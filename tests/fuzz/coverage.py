"""Led by coverage: what reaches a branch of the analysis that nothing has reached is mutated further (atheris, libFuzzer for Python).

libFuzzer works in this process and ends it when it has found something, so that a new one is started for the rest of the time:

    python -m tests.fuzz.coverage SEED FOLDER [-option of libFuzzer ...]
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tests.running import REPOSITORY

DONE = re.compile(rb"^#(\d+)\s", re.MULTILINE)
EDGES = re.compile(rb"cov: (\d+)")
SEEDS = 40  # all of them are run before the first mutant is
FAILS = "-artifact_prefix="


def led(texts: Sequence[str], minutes: float, seed: int, limit: float, judged: Callable[[bytes], None]) -> tuple[int, str]:
    """Fuzz for some minutes.

    Args:
        texts: to begin with.
        minutes: on the clock.
        seed: of all that is drawn.
        limit: seconds on the clock for one input.
        judged: is given every input that failed.

    Returns:
        how many inputs there were, and what was reached.
    """
    end, inputs, reached = time.monotonic() + 60 * minutes, 0, 0
    with tempfile.TemporaryDirectory() as name:
        corpus, failed = Path(name, "corpus"), Path(name, "failed")
        corpus.mkdir()
        failed.mkdir()
        for number, text in enumerate(Random(seed).sample(texts, min(SEEDS, len(texts)))):
            (corpus / str(number)).write_bytes(text.encode())
        while time.monotonic() < end:
            options = [
                f"-max_total_time={int(end - time.monotonic()) + 1}",
                f"-timeout={int(limit)}",
                "-rss_limit_mb=4096",
                "-max_len=20000",
            ]
            command = [
                sys.executable,
                "-m",
                "tests.fuzz.coverage",
                str(seed),
                str(corpus),
                f"{FAILS}{failed}/",
                f"-seed={seed + 1}",
                *options,
            ]
            done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False)
            if not DONE.search(done.stderr):
                raise SystemExit(done.stderr.decode("utf-8", "replace"))
            inputs += max(map(int, DONE.findall(done.stderr)))
            reached = max([reached, *map(int, EDGES.findall(done.stderr))])
            for path in sorted(failed.iterdir()):
                judged(path.read_bytes())
                path.unlink()
            seed += 1
    return inputs, f"{reached} edges reached"


def _main(seed: int, options: list[str]) -> None:
    """What libFuzzer runs in."""
    import atheris

    with atheris.instrument_imports(include=["flake8_torchmem"]):
        from tests.fuzz.mutations import Mutator
        from tests.fuzz.oracles import problem

    def one(data: bytes) -> None:
        found = problem(data)
        if found is not None:
            raise AssertionError(f"{found.kind}: {found.cause}")

    texts: list[str] = []
    mutator = Mutator(texts, Random(seed))

    def mutated(data: bytes, size: int, number: int) -> bytes:
        text = data.decode("utf-8", "replace")
        texts[:] = [*texts[-200:], text]
        mutator.reseed(number)
        return mutator.of(text)[:size]

    atheris.Setup([sys.argv[0], *options], one, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2:])
