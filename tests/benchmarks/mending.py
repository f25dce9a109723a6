"""What the fixes make of bugs that are seeded into real training code: mended, as it was before, left, or broken."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections import Counter, defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flake8_torchmem.analysis.imports.project import Project
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.fixes import Document, Outcome, fix_document
from flake8_torchmem.model import Safety
from flake8_torchmem.settings import Settings
from tests.benchmarks.corpora import table
from tests.benchmarks.recall import sample
from tests.benchmarks.seeding.operators import OPERATORS, Mutant

FIXABLE = {name for name, (code, _) in OPERATORS.items() if catalogue()[code].safety is not Safety.DISPLAY}
VERDICTS = ("as it was", "mended", "left", "not found", "broken")


def verdict(mutant: Mutant, outcome: Outcome) -> tuple[str, str]:
    """What became of a mutant, and the reason where it was left."""
    after = outcome.document.text
    try:
        compile(after, mutant.source.name, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return "broken", str(error)
    if after != mutant.text:
        return ("as it was" if after == mutant.source.text else "mended"), ""
    return ("left", outcome.left[0].reason) if outcome.left else ("not found", "")


def main() -> None:
    """Seed, mend, and print what came of it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folders", nargs="+", metavar="DIR", help="a project's folder")
    arguments.add_argument("--sample", type=int, default=10, help="mutants per operator; 0: all (default: %(default)s)")
    arguments.add_argument("--seed", type=int, default=0, help="of the sample (default: %(default)s)")
    arguments.add_argument("--only", nargs="+", choices=sorted(FIXABLE), metavar="OPERATOR", help=" ".join(sorted(FIXABLE)))
    arguments.add_argument("--show", action="store_true", help="print what each fix changed")
    options = arguments.parse_args()
    project, counts = Project(), defaultdict[str, Counter[str]](Counter)
    for one in sample(options.folders, frozenset(options.only or FIXABLE), options.sample, options.seed):
        document = Document(one.text, "utf-8")
        outcome = fix_document(document, str(one.source.path), Settings(select=(one.code,)), project, unsafe=True)
        found, reason = verdict(one, outcome)
        counts[one.operator][found] += 1
        if found != "as it was":
            sys.stdout.write(f"{found}\t{one.operator}:{one.source.name}:{one.line}\t{reason}\n")
        if options.show and found in ("mended", "broken"):
            lines = difflib.unified_diff(one.text.split("\n"), outcome.document.text.split("\n"), lineterm="", n=6)
            sys.stdout.writelines(f"    {line}\n" for line in list(lines)[2:])
    rows = [
        [OPERATORS[name][0], name, *(str(counts[name][each]) for each in VERDICTS)]
        for name in sorted(counts, key=lambda name: (OPERATORS[name][0], name))
    ]
    sys.stdout.write("\n" + table(("rule", "operator", *VERDICTS), rows))


if __name__ == "__main__":
    main()
