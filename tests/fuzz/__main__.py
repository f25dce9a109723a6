"""Fuzz the analyzer and the fixes for some minutes, make what fails short, and keep it.

    python -m tests.fuzz [--by mutations|programs|coverage|bugs|extremes] [--minutes 10] [--seed 0] [--keep FOLDER] [DIR ...]

`mutations` mangles the project's own fixtures and cases and the files below DIR that may train; `programs` takes what hypothesmith
makes of Python's grammar; `coverage` mangles as well, and goes on with what reaches new code (atheris); `bugs` seeds bugs into the files
below DIR, so that there is much to mend; `extremes` are deep, long or wide. Exit code 1 when something failed.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.fuzz import seeds
from tests.fuzz.extremes import programs
from tests.fuzz.judge import SECONDS, Judge
from tests.fuzz.minimise import minimised
from tests.fuzz.mutations import Mutator
from tests.fuzz.oracles import Problem

# How many inputs may be tried to make one short: of what is slow, each takes as long as the limit.
FAST, SLOW = 400, 20


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("folders", nargs="*", metavar="DIR", help="folders of Python to begin with")
    arguments.add_argument(
        "--by", choices=("mutations", "programs", "coverage", "bugs", "extremes"), default="mutations", help="(default: %(default)s)"
    )
    arguments.add_argument("--minutes", type=float, default=10, help="on the clock (default: %(default)s)")
    arguments.add_argument("--seed", type=int, default=0, help="of all that is drawn (default: %(default)s)")
    arguments.add_argument("--keep", metavar="FOLDER", default="fuzz-crashes", help="for inputs that fail (default: %(default)s)")
    arguments.add_argument("--limit", type=float, default=SECONDS, help="seconds of processor time for each step (default: %(default)s)")
    arguments.add_argument("--again", nargs="+", metavar="FILE", help="judge these inputs, and nothing else")
    options = arguments.parse_args()
    with Judge(options.limit) as judge:
        keeper = Keeper(judge, Path(options.keep))
        if options.again:
            for name in options.again:
                keeper.judged(Path(name).read_bytes(), shorten=False)
        elif options.by == "coverage":
            from tests.fuzz.coverage import led

            texts = [*seeds.own(), *seeds.of_folders(options.folders)]
            inputs, reached = led(texts, options.minutes, options.seed, options.limit, keeper.judged)
            sys.stdout.write(f"{inputs} inputs led by coverage, {reached}\n")
        else:
            end = time.monotonic() + 60 * options.minutes
            for data in _inputs(options):
                if time.monotonic() > end:
                    break
                keeper.judged(data)
    sys.stdout.write(keeper.summary())
    sys.exit(1 if keeper.seen else 0)


def _inputs(options: argparse.Namespace) -> Iterator[bytes]:
    if options.by == "programs":
        from tests.fuzz.generated import generated

        return generated(options.seed)
    if options.by == "extremes":
        return (text.encode() for _, text in programs())
    if options.by == "bugs":
        return seeds.with_bugs(options.folders, Random(options.seed))
    mutator = Mutator([*seeds.own(), *seeds.of_folders(options.folders)], Random(options.seed))
    return (mutator.mutant() for _ in itertools.count())


class Keeper:
    """Has inputs judged, and keeps one of each kind that fails, made short.

    Args:
        judge: what judges.
        folder: where to.
    """

    def __init__(self, judge: Judge, folder: Path) -> None:
        self.inputs = 0
        self.seen: Counter[tuple[str, str]] = Counter()
        self._judge = judge
        self._folder = folder

    def judged(self, data: bytes, shorten: bool = True) -> None:
        """Take notice of one more input."""
        self.inputs += 1
        found = self._judge(data)
        if found is None:
            return
        self.seen[found.kind, found.cause] += 1
        if self.seen[found.kind, found.cause] == 1:
            kept = self._keep(data, found)  # whoever does not wait until it is short has it as it is
            if shorten:
                budget = SLOW if found.kind == "slow" else FAST
                short = minimised(data, partial(self._fails, found), budget)
                self._keep(short, self._judge(short) or found)
                if short != data:
                    kept.unlink()
                    kept.with_suffix(".txt").unlink()

    def _fails(self, found: Problem, data: bytes) -> bool:
        other = self._judge(data)
        return other is not None and (other.kind, other.cause) == (found.kind, found.cause)

    def _keep(self, data: bytes, found: Problem) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        name = self._folder / f"{found.kind.replace(' ', '-')}-{hashlib.sha256(data).hexdigest()[:8]}.py"
        name.write_bytes(data)
        name.with_suffix(".txt").write_text(f"{found.kind}: {found.cause}\n{found.detail}\n", "utf-8", "replace")
        sys.stdout.write(f"{name}: {found.kind}: {found.cause}\n")
        sys.stdout.flush()
        return name

    def summary(self) -> str:
        """What there is to say at the end."""
        kinds = "".join(f"  {count:6} {kind}: {cause}\n" for (kind, cause), count in self.seen.most_common())
        return f"{self.inputs} inputs, {self._judge.seconds:.0f} s of processor time, {sum(self.seen.values())} failures\n{kinds}"


if __name__ == "__main__":
    main()
