"""What the plugin adds to flake8: paired runs of the real process without and with it, over one or more corpora."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks.corpora import WITH, WITHOUT, Corpus, Measured, corpora, flake8, in_pairs, parser, table

HEADER = ("corpus", "files", "without s", "with s", "time", "quartiles", "cpu", "MB without", "MB with", "memory", "libcst", "findings")
OWN_FINDING = re.compile(r": TM\d{3} ")
PLUGIN = "flake8_torchmem.plugin"

Pair = tuple[Measured, Measured]


def main() -> None:
    """Measure and print, one corpus after the other."""
    arguments = parser(__doc__, runs=7)
    arguments.add_argument("--jobs", type=int, default=1, help="flake8's -j (default: %(default)s)")
    options = arguments.parse_args()
    sys.stdout.write(overhead(corpora(options.corpora, options.sample), options.runs, options.jobs))


def overhead(chosen: Sequence[Corpus], runs: int, jobs: int = 1) -> str:
    """The table, one row per corpus."""
    rows = []
    for corpus in chosen:
        imported, findings = proof(corpus)
        rows.append(_row(corpus, pairs(corpus, runs, jobs), imported, findings))
        sys.stderr.write(f"{corpus.name}: done\n")
    return table(HEADER, rows)


def proof(corpus: Corpus) -> tuple[bool, int]:
    """Whether libcst is imported with the plugin, and the plugin's findings, from untimed runs that tell what they imported.

    Raises:
        SystemExit: the runs differ in more than the plugin.
    """
    without, with_plugin = flake8(corpus, WITHOUT, keep=True), flake8(corpus, WITH, keep=True)
    modules, baseline = (set(run.err.splitlines()[-1].split()) for run in (with_plugin, without))
    if PLUGIN not in modules or PLUGIN in baseline:
        raise SystemExit(f"{corpus.name}: the plugin must be loaded in the one run and absent from the other")
    lines = with_plugin.out.splitlines()
    others = [line for line in lines if not OWN_FINDING.search(line)]
    if others != without.out.splitlines():
        raise SystemExit(f"{corpus.name}: flake8's own findings differ between the two runs")
    return "libcst" in modules, len(lines) - len(others)


def pairs(corpus: Corpus, runs: int, jobs: int) -> list[Pair]:
    """Measurements (without, with)."""
    return in_pairs(lambda: flake8(corpus, WITHOUT, jobs), lambda: flake8(corpus, WITH, jobs), runs)


def _row(corpus: Corpus, measured: Sequence[Pair], imported: bool, findings: int) -> tuple[str, ...]:
    def median(read: Callable[[Pair], float]) -> float:
        return statistics.median(map(read, measured))

    times = [pair[1].wall / pair[0].wall for pair in measured]
    low, _, high = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    return (
        corpus.name,
        str(len(corpus.files)),
        f"{median(lambda pair: pair[0].wall):.2f}",
        f"{median(lambda pair: pair[1].wall):.2f}",
        f"{statistics.median(times):.3f}x",
        f"{low:.3f}-{high:.3f}",
        f"{median(lambda pair: pair[1].cpu / pair[0].cpu):.3f}x",
        f"{median(lambda pair: pair[0].peak):.0f}",
        f"{median(lambda pair: pair[1].peak):.0f}",
        f"{median(lambda pair: pair[1].peak / pair[0].peak):.2f}x",
        "imported" if imported else "not imported",
        str(findings),
    )


if __name__ == "__main__":
    main()
