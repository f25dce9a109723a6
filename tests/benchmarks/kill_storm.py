"""Kills runs at random moments: eight at once that share a cache, and two at once that mend the same files. And lets pairs live.

Afterwards every file is the old one or the new one, whole; the cache is sound; and whoever was left alive has said what a run that is
alone says. Prints what it did; a wrong result ends it with an exception.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from flake8_torchmem.cache.store import FILE
from tests.running import SCRIPTS, Result, torchmem
from tests.samples import BOTH, CLEAN, LEAKY, UNCLEARED

AT_ONCE = 8
FILES = 8
KINDS = (BOTH, LEAKY, UNCLEARED, CLEAN)
FIX = ("fix", "--unsafe-fixes", "--no-imports", ".")


def storm_on_a_cache(folder: Path, kills: int, dice: random.Random) -> Counter[str]:
    """Runs that share a cache are killed, as many as are asked for; what came of it, counted.

    Args:
        folder: to work in, empty.
        kills: of processes that were alive.
        dice: chooses who is killed, and when.
    """
    write(folder / "code")
    started = time.monotonic()
    alone = torchmem("check", "--no-cache", ".", cwd=folder / "code")
    span = time.monotonic() - started
    command = ["check", "--cache-dir", str(folder / "kept"), "."]
    counts: Counter[str] = Counter()
    while counts["killed"] < kills:
        victims = min(dice.randrange(1, AT_ONCE), kills - counts["killed"])
        edited = folder / "code" / f"m{dice.randrange(FILES)}.py"
        edited.write_text(f"{edited.read_text()}# {counts['killed']}\n")  # there is something to be kept
        for result in raid(command, folder / "code", AT_ONCE, victims, span * 2, dice, counts):
            _require(result == alone, f"a run beside killed ones said {result}, and one that is alone {alone}")
        _require(torchmem(*command, cwd=folder / "code") == alone, "a run after killed ones said something else")
        with closing(sqlite3.connect(folder / "kept" / FILE)) as connection:
            _require(connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the cache is damaged")
    return counts


def storm_on_files(folder: Path, kills: int, dice: random.Random) -> Counter[str]:
    """Pairs of runs that mend the same files are killed; what came of it, counted. The arguments are those of the other storm."""
    counts: Counter[str] = Counter()
    write(folder / "new")
    started = time.monotonic()
    torchmem(*FIX, cwd=folder / "new")
    span = time.monotonic() - started
    old, new = write(folder / "old"), contents(folder / "new")
    _require(sum(old[name] != new[name] for name in old) == FILES * 3 // 4, "there is not enough to mend")
    while counts["killed"] < kills:
        place = folder / f"tree-{counts['runs']}"
        write(place)
        for result in raid(list(FIX), place, 2, min(dice.choice((1, 2, 2, 2)), kills - counts["killed"]), span * 1.3, dice, counts):
            _require(result.status in {0, 2} and "Traceback" not in result.err, f"a run beside a killed one ended with {result}")
        counts["left half-way"] += 0 < sum(data != old[name] for name, data in contents(place).items()) < FILES * 3 // 4
        counts["temporary files left"] += len(list(place.glob(".torchmem-*")))
        _require(all(data in {old[name], new[name]} for name, data in contents(place).items()), f"a file is torn in {place}")
        started = time.monotonic()
        _require(torchmem(*FIX, cwd=place).status == 0 and contents(place) == new, "a run after killed ones did not end the work")
        span = (span + time.monotonic() - started) / 2  # other work of the machine comes and goes
    return counts


def pairs_on_files(folder: Path, rounds: int, dice: random.Random) -> Counter[str]:
    """Two runs at once that mend the same files, and nobody is killed: the files must be those of one run.

    Args:
        folder: to work in, empty.
        rounds: pairs of runs.
        dice: as for the storms; nothing is left to it here.
    """
    counts: Counter[str] = Counter()
    write(folder / "new")
    torchmem(*FIX, cwd=folder / "new")
    new = contents(folder / "new")
    for number in range(rounds):
        place = folder / f"tree-{number}"
        write(place)
        results = raid(list(FIX), place, 2, 0, 0.0, dice, counts)
        _require(all(each.status in {0, 2} and "Traceback" not in each.err for each in results), f"a run beside another one: {results}")
        counts["rounds"] += 1
        counts["runs that met a changed file"] += sum(each.status == 2 for each in results)
        _require(contents(place) == new and not list(place.glob(".torchmem-*")), f"two runs made something else of {place}")
    return counts


def raid(
    command: list[str], folder: Path, at_once: int, victims: int, span: float, dice: random.Random, counts: Counter[str]
) -> list[Result]:
    """Start some runs and kill some of them within a span of seconds; what the others said.

    Args:
        command: the arguments of each run.
        folder: where it runs.
        at_once: how many runs.
        victims: how many of them are killed, if they are not faster.
        span: in which they are killed.
        dice: chooses the moments.
        counts: gets the runs and those that were killed alive.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    runs = [subprocess.Popen([str(SCRIPTS / "torchmem"), *command], cwd=folder, text=True, **pipes) for _ in range(at_once)]  # type: ignore[call-overload]
    counts["runs"] += at_once
    last = 0.0
    for moment, victim in sorted((dice.uniform(0, span), victim) for victim in range(victims)):
        time.sleep(moment - last)
        last = moment
        if runs[victim].poll() is None:
            runs[victim].kill()
    said = [(run, run.communicate()) for run in runs]
    counts["killed"] += sum(run.returncode < 0 for run in runs)
    return [Result(run.returncode, *output) for run, output in said if run.returncode >= 0]


def write(folder: Path) -> dict[str, bytes]:
    """Put the files to be checked or mended into a folder."""
    folder.mkdir()
    (folder / "setup.cfg").touch()
    for number in range(FILES):
        (folder / f"m{number}.py").write_text(f"# {number}\n{KINDS[number % len(KINDS)]}")
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))}


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise AssertionError(complaint)


def main() -> None:
    """Run the storms, and the pairs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="in each storm; and rounds of pairs")
    parser.add_argument("--only", choices=["cache", "fix", "pairs"])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    storms: dict[str, Callable[[Path, int, random.Random], Counter[str]]] = {
        "cache": storm_on_a_cache,
        "fix": storm_on_files,
        "pairs": pairs_on_files,
    }
    for name, storm in storms.items():
        if options.only not in {None, name}:
            continue
        with tempfile.TemporaryDirectory() as folder:
            counts = storm(Path(folder), options.kills, random.Random(options.seed))
        told = ", ".join(f"{number} {what}" for what, number in counts.items())
        sys.stdout.write(f"{name}: {told}; nothing was torn, and no result was wrong\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
