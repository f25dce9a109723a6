"""Writes `docs/rules/`: an index and a page per rule, from the rule's row, its docstring, its fixture and what was measured."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from sphinx.application import Sphinx

from flake8_torchmem import check_source
from flake8_torchmem.catalogue import catalogue, page
from flake8_torchmem.codemods import COMMANDS
from flake8_torchmem.measured import tables
from flake8_torchmem.measured.plot import plot
from flake8_torchmem.rules.base import Rule
from flake8_torchmem.rules.internal import INTERNAL_RULES
from flake8_torchmem.settings import Settings

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

REPOSITORY = Path(__file__).resolve().parents[2]
MARK = re.compile(r"  # expect: [\w, ]+$", re.MULTILINE)
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^(?=## )", re.MULTILINE)
REFERENCE = re.compile(r"^- (.+): (https://\S+)$", re.MULTILINE)
FAMILIES = {
    "TM1": "Gradients: cleared, summed and used in the right order",
    "TM2": "Graphs and tensors that outlive their turn",
    "TM3": "Loading and moving data",
    "TM4": "The caching allocator",
    "TM9": "The tool itself",
}
SAFETY = {
    "safe": "safe: made by `torchmem fix`",
    "unsafe": "unsafe: made with `--unsafe-fixes`",
    "display": "display: advice for people, never made",
}
EFFECTS = {
    "grows": "live bytes grow with every step",
    "peak": "the peak is higher",
    "host": "graph nodes pile up in host memory",
    "gradients": "steps use wrong gradients",
    "results": "the results differ",
    "time": "only slower",
    "none": "nothing that can be measured",
}
DEVICES = {"virtual": "the stand-in device", "cuda": "a CUDA device"}


def write(app: Sphinx) -> None:
    """Write what is not there yet as it should be, and remove the pages of rules that are gone."""
    folder = Path(app.srcdir) / "rules"
    folder.mkdir(exist_ok=True)
    texts = {"index.md": index(), **{f"{code}.md": "\n".join(rule_page(rule)) for code, rule in catalogue().items()}}
    for path in folder.iterdir():
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


def index() -> str:
    """The table of rules, by family, and the order of the pages."""
    lines = ["# Rules", ""]
    for family, rules in groupby(catalogue().values(), key=lambda rule: rule.code[:3]):
        lines += [f"## {FAMILIES[family]}", "", "| rule | reports | default | fix |", "|---|---|---|---|"]
        lines += [
            f"| [{rule.code} {rule.name}]({rule.code}.md) | {rule.summary} | {_default(rule)} | {rule.safety.value} |" for rule in rules
        ]
        lines += [""]
    lines += ["*Fix* says what a mending edit may change, see [Fixing](../fixing.md). A rule that is off is switched on with", ""]
    lines += ["`--extend-select`. `torchmem explain TM201` prints the page of a rule.", ""]
    lines += ["```{toctree}", ":hidden:", "", *catalogue(), "```", ""]
    return "\n".join(lines)


def rule_page(rule: Rule) -> Iterator[str]:
    """The lines of one rule's page."""
    _, _, text = page(rule.code).partition("\n")
    yield f"# {rule.code} {rule.name}\n"
    yield f"{rule.summary[0].upper()}{rule.summary[1:]}.\n"
    yield from _facts(rule)
    for section in SECTION.split(_with_reported_lines(text, rule)):
        if section.startswith("## References"):
            yield from _programs(rule)
            yield from _silencing(rule)
        yield REFERENCE.sub(r"- [\1](\2)", section)
        if section.startswith("## Measured"):
            yield from _plots(rule)
    if rule.code in INTERNAL_RULES:
        yield from _silencing(rule)


def _facts(rule: Rule) -> Iterator[str]:
    command = "".join(word.capitalize() for word in rule.name.split("-"))
    yield ":::{list-table}\n:class: rule-facts\n"
    for name, value in {
        "Severity": rule.severity.value,
        "Default": _default(rule),
        "Fix": SAFETY[rule.safety.value],
        "Why so": rule.safety_reason,
        "Running it shows": rule.effect,
        **({"Codemod": f"`flake8_torchmem.codemods.{command}`"} if command in COMMANDS else {}),
        "Since": rule.since,
    }.items():
        yield f"* - {name}\n  - {value}"
    yield ":::\n"


def _default(rule: Rule) -> str:
    return "on" if rule.default else "off"


def _with_reported_lines(body: str, rule: Rule) -> str:
    """The page with the lines emphasised that the rule reports in its examples."""

    def emphasised(block: re.Match[str]) -> str:
        findings = check_source(block[1], settings=Settings(select=(rule.code,)))
        return _code(block[1], "python", [finding.span.line for finding in findings])

    return PYTHON.sub(emphasised, body)


def _code(text: str, language: str, lines: list[int]) -> str:
    options = f":emphasize-lines: {','.join(map(str, lines))}\n\n" if lines else ""
    return f"```{{code-block}} {language}\n{options}{text.rstrip()}\n```"


def _plots(rule: Rule) -> Iterator[str]:
    """What was measured, drawn: a picture for each case and device."""
    figures = []
    for device, table in tables().items():
        for row in table.rules.get(rule.code, ()):
            shown = f"{row.case} on {DEVICES[device]}"
            picture = plot(row)
            if picture:
                figures.append(f"<figure>{picture}<figcaption>{shown}</figcaption></figure>")
    if figures:
        yield f'```{{raw}} html\n<div class="plots">{"".join(figures)}</div>\n```\n'


def _programs(rule: Rule) -> Iterator[str]:
    """The programs that show the defect, its fix, and what only looks like it."""
    folder = REPOSITORY / "fixtures" / f"{rule.code}-{rule.name}"
    fixture = tomllib.loads((folder / "fixture.toml").read_text("utf-8"))
    marked, fixed, good = ((folder / f"{name}.py").read_text("utf-8") for name in ("bad", "fixed", "good"))
    bad = MARK.sub("", marked)
    lines = [number for number, line in enumerate(marked.splitlines(), start=1) if MARK.search(line)]
    _, _, *diff = difflib.unified_diff(bad.splitlines(), fixed.splitlines(), lineterm="", n=4)
    yield "## The programs\n"
    yield f"{fixture['title']}. {' '.join(fixture['description'].split())}\n"
    yield "| case | running it shows | what is special about it |\n|---|---|---|"
    for case in fixture["cases"]:
        yield f"| `{case['function']}` | {EFFECTS[case['effect']]} | {case.get('note', '')} |"
    yield "\n::::{tab-set}\n"
    for title, code in {
        "Reported": _code(bad, "python", lines),
        "What the fix changes": _code("\n".join(diff), "diff", []),
        "Mended": _code(fixed, "python", []),
        "Looks alike, stays silent": _code(good, "python", []),
    }.items():
        yield f":::{{tab-item}} {title}\n{code}\n:::\n"
    yield "::::\n"
    yield f"They run on any machine with PyTorch, and `torchmem verify fixtures/{folder.name}` measures them there.\n"


def _silencing(rule: Rule) -> Iterator[str]:
    yield "## Silence it\n" if rule.default else "## Switch it on, or silence it\n"
    if not rule.default:
        yield f"It is off by default: `--extend-select {rule.code}`, for `torchmem check` and for flake8, switches it on.\n"
    yield f"`# noqa: {rule.code}` at the end of the reported line silences that one, `--ignore {rule.code}` all of them; flake8's `ignore`"
    yield "and `per-file-ignores` do the same where it runs the plugin.\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_config_value("rule_codes", list(catalogue()), "env", list)
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
