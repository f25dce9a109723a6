"""Everything about speed and memory in one run, as ratios of measurements that were taken side by side.

    python -m tests.benchmarks NAME=DIR [NAME=DIR ...] [--sample 300] [--runs 5] [--counts 1 100 3000] [--sizes 1 10 100 1000 5000]
        [--compared 100] [--environments FOLDER] [--python dslinter=python3.9]

Prints what the plugin adds to flake8; the check against other tools, and against ast.parse and libcst.parse_module; the command with a
cold and a warm cache, in one and two processes; over few and many files; and how cost grows with the size of a file.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from flake8_torchmem.analysis import gate
from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.analysis.imports.project import FLAKE8_LIMITS, Project
from flake8_torchmem.settings import Settings
from flake8_torchmem.source import SourceError, decode, parse
from flake8_torchmem.words import candidate
from tests.benchmarks.corpora import Corpus, Measured, child, corpora, in_pairs, parser, table
from tests.benchmarks.flake8_overhead import overhead
from tests.benchmarks.peers import about_tools, compared, given_tools

CHECK = (sys.executable, "-m", "flake8_torchmem", "check", "--isolated", "--exit-zero")
CODES = Settings().enabled_codes()
# One trained function of about a kilobyte: a file of many is the worst that a file of its size can be.
TRAINS = """

def train_{0}(model, loader, val_loader, criterion, optimizer, scheduler, device, epochs):
    history = []
    for epoch in range(epochs):
        model.train()
        running = 0.0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, labels)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            running += loss.item() * images.size(0)
        scheduler.step()
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in val_loader:
                outputs = model(images.to(device))
                correct += (outputs.argmax(1).cpu() == labels).sum().item()
        history.append((running / len(loader), correct / len(val_loader)))
        print(f"epoch {{epoch}}: loss {{running:.3f}}, accuracy {{history[-1][1]:.3f}}")
    return history
"""


def main() -> None:
    """Measure and print, one table after the other."""
    arguments = parser(__doc__.partition("\n")[0] if __doc__ else None, runs=5)
    arguments.add_argument(
        "--counts", type=int, nargs="*", default=[1, 100, 3000], help="files that the command is given (default: 1 100 3000)"
    )
    arguments.add_argument("--sizes", type=int, nargs="*", default=[1, 10, 100, 1000, 5000], help="kB of single files (default: 1 to 5000)")
    arguments.add_argument(
        "--compared", type=int, default=100, help="files per corpus that other tools read as well; 0: none (default: %(default)s)"
    )
    about_tools(arguments)
    options = arguments.parse_args()
    chosen = corpora(options.corpora, options.sample)
    everything = Corpus("all", tuple(file for corpus in corpora(options.corpora, 0) for file in corpus.files))
    # Processes first: the system counts this process's memory as theirs until they have their own program.
    measures = {
        "flake8 with the plugin against flake8 without it": partial(overhead, chosen, options.runs),
        "torchmem check against other tools, processor time": partial(others, options),
        "torchmem check against itself without a cache, in one process": partial(variants, chosen, options.runs),
        "torchmem check --no-cache over the first files of all corpora": partial(counts, everything, options.counts, options.runs),
        "The check in one process against parsers, processor time": partial(limits, chosen, options.runs),
        "One file of training functions": partial(sizes, options.sizes, options.runs),
    }
    for title, measure in measures.items():
        sys.stdout.write(f"{title}\n\n{measure()}\n")
        sys.stdout.flush()


def others(options: argparse.Namespace) -> str:
    """Other tools over the first files that are drawn of each corpus."""
    if not options.compared:
        return ""
    return compared(given_tools(options.python), corpora(options.corpora, options.compared), options.environments, options.runs)


def limits(chosen: Sequence[Corpus], runs: int) -> str:
    """The check of all files and of those that pass the gate, with the syntax trees at hand as flake8 has them."""
    import libcst

    rows = []
    for corpus in chosen:
        files = list(_parsed(corpus.files))
        passing = [each for each in files if candidate(each[1]) and gate.select(each[1], each[2], CODES) is not None]
        texts = [text for _, text, _ in passing]
        check(passing)  # imports, and fills what is read once
        all_files = _ratio(partial(check, files), partial(_each, ast.parse, [text for _, text, _ in files]), runs)
        tree = _ratio(partial(check, passing), partial(_each, ast.parse, texts), runs)
        concrete = _ratio(partial(check, passing), partial(_each, libcst.parse_module, texts), runs)
        size = sum(map(len, texts)) / max(1, sum(len(text) for _, text, _ in files))
        rows.append((corpus.name, str(len(files)), all_files, str(len(passing)), f"{size:.0%}", tree, concrete))
    header = ("corpus", "files", "check / ast.parse", "pass the gate", "of the text", "check / ast.parse", "check / libcst.parse_module")
    return table(header, rows)


def check(files: Sequence[tuple[str, str, ast.Module]]) -> None:
    """What the plugin does with files."""
    project = Project(FLAKE8_LIMITS)
    for path, text, tree in files:
        check_text(text, path, CODES, tree, project)


def variants(chosen: Sequence[Corpus], runs: int) -> str:
    """The command with a cache that is empty, then one that is filled, and in two processes."""
    rows = []
    for corpus in chosen:
        with tempfile.TemporaryDirectory() as folder:
            plain = partial(child, [*CHECK, "--no-cache", "--jobs=1", *corpus.files])
            for name, way in _ways(corpus, folder):
                rows.append((f"{corpus.name}, {name}", str(len(corpus.files)), *_medians(in_pairs(plain, way, runs))))
    return table(("corpus", "files", "s", "compared s", "time", "faster by", "MB", "compared MB"), rows)


def _ways(corpus: Corpus, folder: str) -> Iterator[tuple[str, Callable[[], Measured]]]:
    """Other ways to check a corpus; its caches go to the folder."""
    number = itertools.count()
    filled = [*CHECK, f"--cache-dir={folder}/filled", "--jobs=1", *corpus.files]
    child(filled, keep=True)
    yield "cold cache", lambda: child([*CHECK, f"--cache-dir={folder}/{next(number)}", "--jobs=1", *corpus.files])
    yield "warm cache", partial(child, filled)
    yield "two processes", partial(child, [*CHECK, "--no-cache", "--jobs=2", *corpus.files])


def _medians(pairs: Sequence[tuple[Measured, Measured]]) -> tuple[str, ...]:
    ratio = statistics.median(second.wall / first.wall for first, second in pairs)
    before, after = zip(*pairs, strict=True)
    seconds = (f"{statistics.median(run.wall for run in runs):.2f}" for runs in (before, after))
    peaks = (f"{statistics.median(run.peak for run in runs):.0f}" for runs in (before, after))
    return (*seconds, f"{ratio:.3f}x", f"{1 / ratio:.1f}", *peaks)


def counts(corpus: Corpus, wanted: Sequence[int], runs: int) -> str:
    """The command over so many files, against a Python that starts, imports nothing and stops."""
    rows = []
    for count in wanted:
        files = corpus.files[:count]
        pairs = in_pairs(partial(child, [sys.executable, "-c", "pass"]), partial(child, [*CHECK, "--no-cache", "--jobs=1", *files]), runs)
        wall, peak = (statistics.median(values) for values in zip(*((run.wall, run.peak) for _, run in pairs), strict=True))
        start = statistics.median(run.wall for run, _ in pairs)
        rows.append((str(len(files)), f"{wall:.2f}", f"{1000 * (wall - start) / len(files):.1f}", f"{peak:.0f}"))
    return table(("files", "s", "ms per file beyond Python's start", "MB"), rows)


def sizes(wanted: Sequence[int], runs: int) -> str:
    """Processor time over files of growing size, against ast.parse of the same, with the exponents that fit."""
    rows, points = [], []
    check_text("import torch\n" + TRAINS.format(0), "one.py", CODES)  # imports, whose time is no file's
    for kilobytes in wanted:
        text = "import torch\n" + "".join(map(TRAINS.format, range(max(1, kilobytes * 1000 // len(TRAINS)))))
        pairs = in_pairs(partial(_each, ast.parse, [text]), partial(_each, lambda each: check_text(each, "one.py", CODES), [text]), runs)
        parsed, checked = (min(pair[which] for pair in pairs) for which in (0, 1))
        points.append((len(text), parsed, checked))
        rows.append((f"{len(text) / 1000:.0f}", f"{1000 * parsed:.1f}", f"{1000 * checked:.1f}", f"{checked / parsed:.1f}x"))
    fitted = "".join(
        f"time ~ size^{_exponent([(size, times[which]) for size, *times in points]):.2f} for {name}\n"
        for which, name in enumerate(("ast.parse", "the check"))
    )
    return table(("kB", "ast.parse ms", "check ms", "check / ast.parse"), rows) + (fitted if len(points) > 1 else "")


def _exponent(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the line that fits best in logarithms."""
    return statistics.linear_regression([math.log(size) for size, _ in points], [math.log(took) for _, took in points]).slope


def _ratio(measured: Callable[[], float | None], limit: Callable[[], float], runs: int) -> str:
    """The median of the ratios of processor times within pairs."""
    found = in_pairs(partial(_timed, measured), partial(_timed, limit), runs)
    return f"{statistics.median(mine / other for mine, other in found):.2f}x" if found and found[0][1] else "-"


def _timed(function: Callable[[], object]) -> float:
    begin = time.process_time()
    function()
    return time.process_time() - begin


def _each(function: Callable[[str], object], texts: Sequence[str]) -> float:
    """Processor seconds of a function over all texts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        begin = time.process_time()
        for text in texts:
            function(text)
        return time.process_time() - begin


def _parsed(files: Sequence[str]) -> Iterator[tuple[str, str, ast.Module]]:
    """Files that are valid Python, with text and tree."""
    for file in files:
        with suppress(SourceError):
            text = decode(Path(file).read_bytes())
            yield file, text, parse(text)


if __name__ == "__main__":
    main()
