"""Where the plugin's time goes: each stage against ast.parse and against flake8 itself, over one or more corpora."""

from __future__ import annotations

import ast
import importlib
import statistics
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from flake8_torchmem.analysis import engine, gate
from flake8_torchmem.rules import rule_codes
from flake8_torchmem.rules.internal import INTERNAL_ERROR
from flake8_torchmem.source import SourceError, decode, parse
from tests.benchmarks.corpora import WITHOUT, Corpus, corpora, flake8, parser, table

T = TypeVar("T")
IMPORTS = ("flake8_torchmem.analysis.lower", "flake8_torchmem.analysis.facts", "flake8_torchmem.rules")
AST, TEXT_GATE, AST_GATE, LOWER, FLOW = "ast.parse", "text gate", "ast gate", "lowering", "flow and rules"
CODES = rule_codes() | {INTERNAL_ERROR.code}
STAGES = (TEXT_GATE, AST_GATE, LOWER, FLOW)
clock = time.process_time


class Tally:
    """Seconds by stage, and counts of files and lines."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()

    def timed(self, stage: str, function: Callable[..., T], after: Callable[..., None] = lambda *_: None) -> Callable[..., T]:
        """The function, timed; `after` gets its arguments and its result, and is not."""

        def wrapper(*arguments: object, **named: object) -> T:
            begin = clock()
            try:
                result = function(*arguments, **named)
            finally:
                self.seconds[stage] += clock() - begin
            after(*arguments, result)
            return result

        return wrapper

    def check(self, text: str, tree: ast.Module) -> None:
        """One file through the engine; what the watched stages leave of its time is flow and rules."""
        before = sum(self.seconds[stage] for stage in STAGES)
        begin = clock()
        found = engine.check_text(text, "file.py", CODES, tree)
        self.seconds[FLOW] += clock() - begin - (sum(self.seconds[stage] for stage in STAGES) - before)
        self.counts["findings"] += len(found)
        self.counts["failures"] += sum(finding.code == INTERNAL_ERROR.code for finding in found)

    def passed_text(self, *call: object) -> None:
        self.counts[TEXT_GATE] += bool(call[-1])

    def passed_ast(self, *call: object) -> None:
        selection: gate.Selection | None = call[-1]  # type: ignore[assignment]
        self.counts[AST_GATE] += selection is not None
        self.counts["lines"] += sum(end - first for first, end in selection.ranges) if selection is not None else 0


def main() -> None:
    """Measure and print, one corpus after the other."""
    options = parser(__doc__, runs=3).parse_args()
    chosen = corpora(options.corpora, options.sample)
    for name in IMPORTS:
        begin = clock()
        importlib.import_module(name)
        sys.stdout.write(f"import of {name}, once in every process that needs it: {1000 * (clock() - begin):.0f} ms\n")
    for corpus in chosen:
        own = statistics.median(flake8(corpus, WITHOUT).cpu for _ in range(options.runs))
        texts = tuple(_texts(corpus.files))
        _print(corpus, texts, [measure(texts) for _ in range(options.runs)], own)


def _texts(files: Iterable[str]) -> Iterator[str]:
    """The files that are valid Python: flake8 hands no others to a plugin."""
    for file in files:
        try:
            text = decode(Path(file).read_bytes())
            parse(text)
        except SourceError:
            continue
        yield text


def measure(texts: Iterable[str]) -> Tally:
    """The files, one after the other, through the stages in the order in which flake8 and the engine have them."""
    tally = Tally()
    findings = importlib.import_module("flake8_torchmem.analysis.findings")
    syntax_tree = tally.timed(AST, ast.parse)
    with ExitStack() as stack, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for owner, name, stage, after in (
            (engine, "candidate", TEXT_GATE, tally.passed_text),
            (gate, "select", AST_GATE, tally.passed_ast),
            (findings, "lower", LOWER, lambda *_: None),
        ):
            stack.enter_context(patch.object(owner, name, tally.timed(stage, getattr(owner, name), after)))
        for text in texts:
            tally.check(text, syntax_tree(text))
    return tally


def _print(corpus: Corpus, texts: tuple[str, ...], tallies: list[Tally], own: float) -> None:
    median = {stage: statistics.median(tally.seconds[stage] for tally in tallies) for stage in (AST, *STAGES)}
    counts, lines = tallies[0].counts, sum(text.count("\n") for text in texts)
    median["plugin in all"] = sum(median[stage] for stage in STAGES)
    rows = [(name, f"{1000 * took:.0f}", f"{took / median[AST]:.1%}", f"{took / own:.2%}") for name, took in median.items()]
    sys.stdout.write(
        f"\n{corpus.name}: {len(texts)} files, {lines} lines; flake8 itself {own:.2f} s of processor time\n"
        f"text gate passed by {counts[TEXT_GATE]} files, ast gate by {counts[AST_GATE]}; "
        f"lines that are lowered {counts['lines']} ({counts['lines'] / lines:.1%}); "
        f"findings {counts['findings']}, failures {counts['failures']}\n" + table(("stage", "ms", "of ast.parse", "of flake8"), rows)
    )


if __name__ == "__main__":
    main()
