"""What other tools say about the code that this project's rules are tested on, and how long they take over it.

    python -m tests.benchmarks.peers [NAME=DIR ...] [--write docs/measured/peers.md] [--environments FOLDER]
        [--python dslinter=python3.9] [--runs 5] [--sample 100]

Each tool gets an environment of its own, by pip. Nothing is asserted; see README.md beside this file for what is counted.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from flake8_torchmem.catalogue import catalogue
from tests.benchmarks.corpora import ENVIRONMENT, HELP, Corpus, corpora
from tests.cases import expected, load
from tests.running import REPOSITORY

LINE = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+):\d+: (?P<code>[A-Z]+\d+)", re.MULTILINE)
OURS = "flake8-torchmem"
OFF = [rule.code for rule in catalogue().values() if not rule.default]


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        package: its name for pip.
        command: what is run, after the scripts folder of its environment; the folder of code comes last.
        claims: its rules, in its own words, by the code of ours that is about the same subject.
        python: that its environment is made with, unless another one is given.
        timed: the command whose time counts, with the rules that are on by default, where that is another one.
    """

    package: str
    command: tuple[str, ...]
    claims: Mapping[str, tuple[str, ...]]
    python: str = sys.executable
    timed: tuple[str, ...] = ()


TOOLS = {
    OURS: Tool(
        "", ("torchmem", "check", "--no-cache", "--no-imports", "--isolated", "--output-format=json", f"--extend-select={','.join(OFF)}"),
        {code: (code,) for code in catalogue()}, timed=("torchmem", "check", "--jobs=1", "--no-cache", "--isolated"),
    ),
    "torch-preflight": Tool(
        "torch-preflight", ("torch-preflight", "check", "--jobs=1", "--format=json"),
        {
            "TM101": ("TG003",), "TM106": ("TG014",), "TM201": ("TG001",), "TM202": ("TG001",), "TM204": ("TG001",), "TM205": ("TG002",),
            "TM302": ("TG004",), "TM303": ("TG004",), "TM306": ("TG013",),
        },
    ),
    "TorchFix": Tool("torchfix", ("torchfix", "--jobs=1", "--select=ALL"), {"TM302": ("TOR401",)}, timed=("torchfix", "--jobs=1")),
    "dslinter": Tool(
        "dslinter",
        ("pylint", "--load-plugins=dslinter", "--jobs=1", "--disable=all", "--enable=gradient-clear-pytorch", "--output-format=json"),
        {"TM101": ("W5517",)}, "python3.9",
    ),
    "ruff": Tool("ruff", ("ruff", "check", "--isolated", "--no-cache", "--output-format=concise"), {}),
}  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A piece of code that is right or wrong: lines of a file, and the rule of ours that it is about."""

    file: str
    lines: range
    code: str
    wrong: bool


@dataclass
class Measured:
    """What one tool said, by file, and the processor seconds of each run, by corpus; of a run that crashed it is no number."""

    version: str
    said: dict[str, list[tuple[int, str]]] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failure: str = ""


def places(folder: Path) -> list[Place]:
    """Write all snippets and fixtures into the folder, and say what is right and wrong in them."""
    found: list[Place] = []
    for number, case in enumerate(case for case in load() if case.table in catalogue()):
        file = f"{case.table.lower()}_{number:04}.py"
        found += _written(folder / file, case.source, case.table, case.fires, whole=True)
    for fixture in sorted((REPOSITORY / "fixtures").glob("TM*")):
        for name in ("bad", "good"):
            source = (fixture / f"{name}.py").read_text("utf-8")
            found += _written(folder / f"{fixture.name[:5].lower()}_{name}.py", source, fixture.name[:5], name == "bad", whole=False)
    return found


def _written(path: Path, source: str, code: str, wrong: bool, whole: bool) -> Iterator[Place]:
    """A snippet is one place; of a fixture each function and class is one. Marks are not shown to the tools."""
    path.write_text(re.sub(r"  # expect: [\w, ]+$", "", source, flags=re.MULTILINE), "utf-8")
    marks = {line for line, marked in expected(source) if marked == code}
    body = [] if whole else [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    ranges = [range(node.lineno, (node.end_lineno or 0) + 1) for node in body] or [range(1, source.count("\n") + 2)]
    for lines in ranges:
        if not wrong or marks & set(lines):
            yield Place(path.name, lines, code, wrong)


def environment(name: str, tool: Tool, folder: Path) -> Path:
    """The scripts folder of the tool's environment, which is made if it is not there."""
    if not tool.package:
        return Path(sys.executable).parent
    home = folder / name
    scripts = home / ("Scripts" if os.name == "nt" else "bin")
    if not (scripts / tool.command[0]).exists():
        for command in ([tool.python, "-m", "venv", str(home)], [str(scripts / "pip"), "install", "--quiet", tool.package]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise OSError(next((line for line in reversed(done.stderr.splitlines()) if line.strip()), command[0]))
    return scripts


def measure(name: str, tool: Tool, code: Path, every: Sequence[Place], environments: Path) -> Measured:
    """One run that is read, over the code that is about what the tool has rules for."""
    try:
        scripts = environment(name, tool, environments)
    except OSError as error:
        return Measured("", failure=f"could not be installed: {error}")
    version = _version(scripts, tool.package or "flake8-torchmem")
    files = sorted({place.file for place in every if place.code in tool.claims})
    if not files:
        return Measured(version)
    command = [str(scripts / tool.command[0]), *tool.command[1:], *files]
    done = subprocess.run(command, cwd=code, capture_output=True, text=True, check=False)
    try:
        return Measured(version, _read(done.stdout))
    except ValueError:
        return Measured(version, failure=f"exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-200:]}")


def race(tools: Mapping[str, Tool], chosen: Sequence[Corpus], results: Mapping[str, Measured], environments: Path, runs: int) -> None:
    """Time the tools that could be installed over the same files, in turn; what they need to be warm they have from a run before."""
    able = [name for name in tools if not results[name].failure]
    for corpus in chosen:
        for turn in range(runs + 1):
            for name in able:
                spent = timed(tools[name], corpus.files, environment(name, tools[name], environments))
                if turn:
                    results[name].seconds.setdefault(corpus.name, []).append(spent)


def timed(tool: Tool, files: Sequence[str], scripts: Path) -> float:
    """Processor seconds of one run, those of the processes that it starts among them."""
    begin = sum(os.times()[2:4])
    script, *arguments = tool.timed or tool.command
    command = [str(scripts / script), *arguments, *files]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False, env=ENVIRONMENT)
    return math.nan if "Traceback (most recent" in done.stderr else sum(os.times()[2:4]) - begin


def _version(scripts: Path, package: str) -> str:
    command = [str(scripts / "python"), "-c", f"import importlib.metadata as m; print(m.version({package!r}))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _read(text: str) -> dict[str, list[tuple[int, str]]]:
    """Lines and codes by file, from each tool's own format."""
    said: dict[str, list[tuple[int, str]]] = {}
    if text.lstrip().startswith(("{", "[")):
        data = json.loads(text)
        rows = data if isinstance(data, list) else data.get("findings", data.get("diagnostics", []))
    else:
        rows = [match.groupdict() for match in LINE.finditer(text)]
    for row in rows:
        path = Path(row.get("path") or row["file"]).name
        line = row.get("line") or row.get("span", {}).get("line")
        said.setdefault(path, []).append((int(line), row.get("message-id") or row.get("rule") or row["code"]))
    return said


def counts(tool: Tool, measured: Measured, every: Sequence[Place], code: str) -> tuple[int, int]:
    """How many wrong places it found, and on how many right ones it spoke.

    A wrong place counts as found whichever of the tool's rules on any of these subjects reports it, on whichever of its lines. On right
    code only reports of the rules that are about this subject count.
    """
    anything = {rule for rules in tool.claims.values() for rule in rules}
    found = sum(_spoke(measured, place, anything) for place in every if place.code == code and place.wrong)
    false = sum(_spoke(measured, place, set(tool.claims[code])) for place in every if place.code == code and not place.wrong)
    return found, false


def _spoke(measured: Measured, place: Place, rules: set[str]) -> bool:
    return any(line in place.lines and rule in rules for line, rule in measured.said.get(place.file, ()))


def report(every: Sequence[Place], results: Mapping[str, Measured]) -> Iterator[str]:
    """The tables, as Markdown."""
    peers = [name for name in TOOLS if TOOLS[name].claims and name != OURS]
    yield f"Measured on {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}: " + ", ".join(
        f"{name} {result.version or result.failure}" for name, result in results.items()
    )
    yield ""
    for name in peers:
        if results[name].failure:
            yield f"{name}: {results[name].failure}\n"
            continue
        yield f"**{name}**, on what it has a rule for\n"
        yield f"| subject | its rule | wrong: | {name} finds | {OURS} finds | right: | {name} reports | {OURS} reports |"
        yield "|---|---|--:|--:|--:|--:|--:|--:|"
        for code, rules in TOOLS[name].claims.items():
            wrong = sum(place.code == code and place.wrong for place in every)
            right = sum(place.code == code and not place.wrong for place in every)
            found, false = counts(TOOLS[name], results[name], every, code)
            own_found, own_false = counts(TOOLS[OURS], results[OURS], every, code)
            subject = f"{code} {catalogue()[code].name}"
            yield f"| {subject} | {', '.join(rules)} | {wrong} | {found} | {own_found} | {right} | {false} | {own_false} |"
        yield ""
    covered = {code for name in peers for code in TOOLS[name].claims}
    others = [code for code in catalogue() if code not in covered and any(place.code == code for place in every)]
    yield f"None of them has a rule for the other {len(others)} subjects: {', '.join(others)}.\n"


def times(results: Mapping[str, Measured], chosen: Sequence[Corpus]) -> Iterator[str]:
    """Processor times as multiples of this project's, as Markdown."""
    base = results[OURS].seconds
    heads = [f"{corpus.name} ({len(corpus.files)} files)" for corpus in chosen]
    yield f"Processor time of each tool in one process, as a multiple of {OURS}'s: medians of the ratios within runs.\n"
    yield f"| tool | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * len(chosen)}"
    for name, result in results.items():
        if result.seconds:
            ratios = (_median_ratio(result.seconds[corpus.name], base[corpus.name]) for corpus in chosen)
            yield f"| {name} {result.version} | {' | '.join('crashes' if math.isnan(one) else f'{one:.2f}' for one in ratios)} |"


def _median_ratio(seconds: Sequence[float], ours: Sequence[float]) -> float:
    return statistics.median(one / own for one, own in zip(seconds, ours, strict=True))


def given_tools(pythons: Sequence[str]) -> dict[str, Tool]:
    """The tools, each with the Python for its environment: `TOOL=PYTHON`."""
    other = dict(word.split("=", 1) for word in pythons)
    return {name: replace(tool, python=other.get(name, tool.python)) for name, tool in TOOLS.items()}


def compared(tools: Mapping[str, Tool], chosen: Sequence[Corpus], environments: Path | None, runs: int) -> str:
    """How long the tools take over the same files."""
    with tempfile.TemporaryDirectory() as scratch:
        home = environments or Path(scratch)
        results = {name: measure(name, tool, Path(scratch), [], home) for name, tool in tools.items()}
        race(tools, chosen, results, home, runs)
    failures = [f"{name}: {result.failure}" for name, result in results.items() if result.failure]
    return "\n".join([*times(results, chosen), *failures]) + "\n"


def about_tools(arguments: argparse.ArgumentParser) -> None:
    """The options that say where the tools are."""
    arguments.add_argument("--environments", type=Path, metavar="FOLDER", help="where the tools' environments are kept (default: nowhere)")
    arguments.add_argument(
        "--python", action="append", default=[], metavar="TOOL=PYTHON", help="make a tool's environment with this Python"
    )


def main() -> None:
    """Measure, print, and write if that is wanted."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("corpora", nargs="*", metavar="NAME=DIR", help=f"timed besides the fixtures: {HELP}")
    arguments.add_argument("--sample", type=int, default=100, help="files per corpus, by a fixed seed; 0: all (default: %(default)s)")
    arguments.add_argument("--write", type=Path, metavar="FILE", help="write the tables there as well")
    about_tools(arguments)
    arguments.add_argument("--runs", type=int, default=5, help="timed runs of each tool, in turn (default: %(default)s)")
    options = arguments.parse_args()
    tools = given_tools(options.python)
    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch, "code")
        code.mkdir()
        environments = options.environments or Path(scratch)
        every = places(code)
        results = {name: measure(name, tool, code, every, environments) for name, tool in tools.items()}
        programs = sorted(map(str, [*code.glob("*_bad.py"), *code.glob("*_good.py")]))
        chosen = [Corpus("`fixtures/`", tuple(programs)), *corpora(options.corpora, options.sample)]
        race(tools, chosen, results, environments, options.runs)
    text = "\n".join([*report(every, results), *times(results, chosen)]) + "\n"
    sys.stdout.write(text)
    if options.write:
        options.write.parent.mkdir(exist_ok=True)
        options.write.write_text(text, "utf-8")


if __name__ == "__main__":
    main()
