"""How many bugs that are seeded into real training code are found, rule by rule, and which are not."""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest
from operator import itemgetter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.rules.internal import INTERNAL_ERROR
from flake8_torchmem.source import SourceError
from tests.benchmarks.corpora import table
from tests.benchmarks.seeding import gradients, loading, retention
from tests.benchmarks.seeding.edits import Source
from tests.benchmarks.seeding.operators import OPERATORS, Mutant, mutant, seeds

MODULES = (gradients, loading, retention)  # what they register
DEFAULT = frozenset(code for code, rule in catalogue().items() if rule.default) | {INTERNAL_ERROR.code}
TRAINS = re.compile(rb"backward\(|no_grad|inference_mode|torch\.load|DataLoader\(|torch\.Tensor")
MAX_FILE = 300_000
Place = tuple[str, int]
Drawn = tuple[Path, Path, str, int]


class Judge:
    """Checks originals and mutants, with imports followed."""

    def __init__(self) -> None:
        self.project = Project()
        self.originals: dict[tuple[str, str], frozenset[Place]] = {}

    def new(self, mutant: Mutant) -> list[Place]:
        """Findings of a mutant that its original does not have: code and line of the original."""
        key = mutant.source.name, mutant.code
        if key not in self.originals:
            self.originals[key] = frozenset(self._places(mutant.source, mutant.source.text, mutant.code))
        found = self._places(mutant.source, mutant.text, mutant.code)
        places = ((code, mutant.origin[min(line, len(mutant.origin)) - 1]) for code, line in found)
        return [place for place in places if place not in self.originals[key]]

    def _places(self, source: Source, text: str, code: str) -> list[Place]:
        findings = check_text(text, str(source.path), DEFAULT | {code}, project=self.project)
        return [(finding.code, finding.span.line) for finding in findings]


def files(folders: Iterable[str]) -> Iterator[tuple[Path, Path]]:
    """The files of each folder that may train or load, with the folder."""
    for folder in folders:
        project = Path(folder).resolve()
        for path in sorted(project.rglob("*.py")):
            if path.is_file() and path.stat().st_size < MAX_FILE and TRAINS.search(path.read_bytes()):
                yield path, project


def read(path: Path, project: Path) -> Source | None:
    """A file, if it is Python."""
    try:
        return Source(path, project)
    except (SourceError, RecursionError):
        return None


def sample(folders: Iterable[str], only: frozenset[str], size: int, seed: int) -> Iterator[Mutant]:
    """Mutants of every operator, drawn in turn from the projects and from the files of each.

    Trees are large and few files are drawn: those are read a second time.
    """
    pools: defaultdict[str, defaultdict[Path, defaultdict[Path, list[Drawn]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for path, project in files(folders):
        source = read(path, project)
        for name, found in seeds(source, only) if source else ():
            pools[name][project][path].append((path, project, name, found.line))
    drawn: list[Drawn] = []
    for name in sorted(only):
        draw = random.Random(f"{seed} {name}")
        projects = [in_turn(list(by_file.values()), draw) for by_file in pools[name].values()]
        drawn += in_turn(projects, draw, shuffled=False)[: size or None]
    for (path, project), chosen in groupby(sorted(drawn), key=itemgetter(0, 1)):
        wanted, source = {(name, line) for *_, name, line in chosen}, Source(path, project)
        made = (mutant(source, name, found) for name, found in seeds(source, only) if (name, found.line) in wanted)
        yield from (each for each in made if each is not None)


def in_turn(groups: list[list[Drawn]], draw: random.Random, *, shuffled: bool = True) -> list[Drawn]:
    """One of each group, then another one of each, and so on; groups in random order."""
    found = [draw.sample(group, len(group)) if shuffled else group for group in groups]
    draw.shuffle(found)
    return [one for row in zip_longest(*found) for one in row if one is not None]


def excused(path: str | None) -> dict[str, str]:
    """Mutants that are no bugs, with the reason."""
    lines = Path(path).read_text("utf-8").splitlines() if path else ()
    return {name: reason for name, _, reason in (line.partition("\t") for line in lines) if name}


def excerpt(mutant: Mutant, around: int) -> Iterator[str]:
    """The changed lines, with some around."""
    original = mutant.source.lines
    lines = mutant.text.split("\n")
    changed = {n for n, (line, origin) in enumerate(zip(lines, mutant.origin, strict=True)) if line != original[origin - 1]}
    first, last = min(changed, default=mutant.line) - around, max(changed, default=mutant.line) + around
    for number in range(max(first, 0), min(last + 1, len(lines))):
        yield f"    {'>' if number in changed else ' '} {mutant.origin[number]:5} {lines[number]}\n"


def main() -> None:
    """Seed, check, and print what was found and what was not."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", metavar="DIR", help="a project's folder")
    arguments.add_argument("--sample", type=int, default=30, help="mutants per operator; 0: all (default: %(default)s)")
    arguments.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    arguments.add_argument("--only", nargs="+", choices=sorted(OPERATORS), metavar="OPERATOR", help=" ".join(sorted(OPERATORS)))
    arguments.add_argument("--excused", metavar="FILE", help="lines of an id, a tab, and why that mutant is no bug")
    arguments.add_argument("--show", type=int, metavar="N", help="print every miss with N lines around what was changed")
    options = arguments.parse_args()
    only, reasons, judge = frozenset(options.only or OPERATORS), excused(options.excused), Judge()
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for one in sample(options.folders, only, options.sample, options.seed):
        new = judge.new(one)
        codes = {code for code, _ in new}
        name = f"{one.operator}:{one.source.name}:{one.line}"
        verdict = "found" if one.code in codes else "excused" if name in reasons else "by another" if codes else "missed"
        counts[one.operator].update((verdict, "failed" if INTERNAL_ERROR.code in codes else ""))
        if verdict != "found":
            others = " ".join(f"{code}:{line}" for code, line in new)
            sys.stdout.write(f"{verdict}\t{name}\t{reasons.get(name, '')}{others}\n")
            if options.show is not None and verdict != "excused":
                sys.stdout.writelines(excerpt(one, options.show))
    _print(counts)


def _print(counts: dict[str, Counter[str]]) -> None:
    columns = ("found", "by another", "missed", "excused", "failed")
    rows = []
    for name in sorted(counts, key=lambda name: (OPERATORS[name][0], name)):
        count = counts[name]
        bugs = count["found"] + count["by another"] + count["missed"]
        share = f"{count['found'] / bugs:.0%}" if bugs else ""
        rows.append([OPERATORS[name][0], name, str(bugs), *(str(count[column]) for column in columns), share])
    sys.stdout.write("\n" + table(("rule", "operator", "bugs", *columns, "recall"), rows))


if __name__ == "__main__":
    main()
