"""The HTML report: findings by rule, with what running such code has shown, and by file, with their code and their fixes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from flake8_torchmem import __version__
from flake8_torchmem.catalogue import catalogue
from flake8_torchmem.measured import Table, tables
from flake8_torchmem.measured.plot import plot
from flake8_torchmem.model import Safety, Span
from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.fixes import difference
from flake8_torchmem.output.page import escaped, page, prose
from flake8_torchmem.output.text import cells, count, excerpt, spot, summary
from flake8_torchmem.rules.internal import INTERNAL_RULES

STYLE = """
table { margin: 1rem 0 1.6rem; } .lead { font-size: 1.05rem; } .soft { color: var(--soft); }
.tag { font-size: .8rem; font-weight: 600; border: 1px solid currentColor; border-radius: 1em; padding: .05em .6em; white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; width: 5rem; }
article { margin: 1.4rem 0 1.8rem; } article h4 { font-size: 1rem; margin: 0 0 .3rem; }
.places { columns: 22rem; column-gap: 2rem; padding-left: 1.2rem; } .plots { display: flex; flex-wrap: wrap; gap: .5rem 2rem; }
.plots figure { flex: 1 1 20rem; max-width: 28rem; }
.line { color: var(--soft); user-select: none; } mark { color: inherit; background: var(--spot); text-decoration: underline wavy var(--no);
  text-decoration-skip-ink: none; text-underline-offset: .2em; border-radius: 2px; }
.was, .now { display: inline-block; min-width: 100%; } .was { background: var(--was); } .now { background: var(--now); }
.hunk { color: var(--soft); } summary { cursor: pointer; } details { margin: .4rem 0; }
@media (max-width: 40rem) { td.n, th.n { width: auto; } td, th { padding-right: .5rem; } }
"""
AROUND = 2  # lines of code above and below a finding
MOST_LINES = 12  # of a finding that spans many
WIDEST = 1_000  # characters of a line: a longer one is shown in part
MOST_PLOTS = 2  # per rule and device
CHANGES = {
    Safety.SAFE: "changes nothing that training computes",
    Safety.UNSAFE: "changes training behaviour or a type: read it",
    Safety.DISPLAY: "is advice",
}
NOT_READ = "the file is not what was checked any more"


def render(report: Report, colour: bool = False) -> Iterator[str]:
    """The lines of the page."""
    yield from page("torchmem report", STYLE, _body(report))


def _body(report: Report) -> Iterator[str]:
    numbers = {id(located): number for number, located in enumerate(report.findings, start=1)}
    yield f'<p class="lead">{escaped(summary(report))}.</p><p class="soft">flake8-torchmem {__version__}</p>'
    yield from _overview(report)
    if report.errors:
        yield "<h2>Not checked</h2><ul>"
        yield from (f"<li>{escaped(error.message)}</li>" for error in report.errors)
        yield "</ul>"
    if report.findings:
        yield "<h2>By rule</h2>"
        for code in report.counts():
            yield from _rule(code, [each for each in report.findings if each.finding.code == code], numbers)
        yield "<h2>By file</h2>"
        for index, (path, found) in enumerate(_files(report), start=1):
            yield f'<section id="file-{index}"><h3>{escaped(path)}</h3>'
            for located in found:
                yield from _finding(located, numbers[id(located)])
            yield "</section>"


def _files(report: Report) -> list[tuple[str, list[Located]]]:
    return [(path, list(found)) for path, found in groupby(report.findings, key=lambda located: located.finding.path)]


def _overview(report: Report) -> Iterator[str]:
    """Two tables: how often each rule reports, and how much is in each file."""
    if not report.findings:
        return
    yield '<table><thead><tr><th>Rule</th><th>What it is</th><th>Fix</th><th class="n">Findings</th></tr></thead><tbody>'
    for code, number in sorted(report.counts().items(), key=lambda each: -each[1]):
        rule = catalogue()[code]
        columns = (
            f'<a href="#{code}">{code}</a> <span class="{rule.severity.value}">{rule.severity.value}</span>',
            f"{rule.name}: {prose(rule.summary)}",
            f'<span class="{rule.safety.value}">{rule.safety.value}</span>',
        )
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in columns) + f'<td class="n">{number}</td></tr>'
    yield '</tbody></table>\n<table><thead><tr><th>File</th><th class="n">Findings</th></tr></thead><tbody>'
    for index, (path, found) in enumerate(_files(report), start=1):
        yield f'<tr><td><a href="#file-{index}">{escaped(path)}</a></td><td class="n">{len(found)}</td></tr>'
    yield "</tbody></table>"


def _rule(code: str, found: Sequence[Located], numbers: dict[int, int]) -> Iterator[str]:
    """What the rule reports, what running such code has shown, and where it reports here."""
    rule = catalogue()[code]
    yield f'<section id="{code}"><h3>{code} {rule.name} <span class="tag {rule.severity.value}">{rule.severity.value}</span></h3>'
    yield f"<p>{prose(rule.summary[:1].upper() + rule.summary[1:])}.</p><p>Effect when it runs: {prose(rule.effect)}.</p>"
    for table in tables().values():
        yield from _measured(code, table)
    yield f'<p class="soft">{count(len(found), "finding")}:</p><ul class="places">'
    for located in found:
        place = f"{located.finding.path}:{spot(located.finding)}"
        yield f'<li><a href="#finding-{numbers[id(located)]}">{escaped(place)}</a></li>'
    yield "</ul></section>"


def _measured(code: str, table: Table) -> Iterator[str]:
    """Plots of the cases of the rule's fixture in which its effect was seen."""
    seen = [(row, plot(row)) for row in table.rules.get(code, ()) if row.verdict == "CONFIRMED"]
    drawn = [(row, picture) for row, picture in seen if picture][:MOST_PLOTS]
    if not seen:
        return
    device = "the stand-in device" if table.device == "virtual" else table.name
    yield f'<p class="soft">Measured with the programs of this rule on {escaped(device)}, PyTorch {escaped(table.torch)}'
    yield f"({escaped(table.measured)}); how much it is in your program depends on its sizes:</p>"
    said = [(f"{escaped(row.case)}: {escaped(row.reason)}", picture) for row, picture in drawn or seen[:MOST_PLOTS]]
    if drawn:
        yield (
            '<div class="plots">'
            + "".join(f"<figure>{picture}<figcaption>{text}</figcaption></figure>" for text, picture in said)
            + "</div>"
        )
    else:
        yield "<ul>" + "".join(f"<li>{text}</li>" for text, _ in said) + "</ul>"


def _finding(located: Located, number: int) -> Iterator[str]:
    finding = located.finding
    tag = f'<span class="tag {finding.severity.value}">{finding.severity.value}</span>'
    place = f'<a href="#finding-{number}">{spot(finding)}</a>'
    yield f'<article id="finding-{number}"><h4>{place} <a href="#{finding.code}">{finding.code}</a> {finding.name} {tag}</h4>'
    yield f"<p>{prose(finding.message)}</p>"
    yield f"<pre>{_code(located)}</pre><p>Help: {prose(finding.help)}</p>"
    yield from _fix(located)
    yield "</article>"


def _code(located: Located) -> str:
    """The lines of a finding and around it, the spot marked."""
    span = located.finding.span
    if located.document is None or len(located.line) > WIDEST:
        source, underline = excerpt(located.line, located.finding)
        return f'<span class="line">{span.line} </span>{escaped(source)}\n<span class="line">{" " * len(str(span.line))} </span>{underline}'
    lines = located.document.normal.split("\n")
    last = min(span.end_line, span.line + MOST_LINES)
    shown = range(max(1, span.line - AROUND), min(len(lines), last + AROUND) + 1)
    width = len(str(shown[-1]))
    return "\n".join(f'<span class="line">{number:>{width}} </span>{_marked(lines[number - 1], number, span)}' for number in shown)


def _marked(line: str, number: int, span: Span) -> str:
    line = line[:WIDEST]
    if not span.line <= number <= span.end_line:
        return escaped(cells(line))
    begin = span.column - 1 if number == span.line else len(line) - len(line.lstrip())
    end = span.end_column - 1 if number == span.end_line else len(line)
    before, spot, after = (escaped(cells(part)) for part in (line[:begin], line[begin:end], line[end:]))
    return f"{before}<mark>{spot}</mark>{after}" if spot else before + after


def _fix(located: Located) -> Iterator[str]:
    """The fix of the finding alone as a difference, or why there is none."""
    preview = located.preview
    if located.document is None or preview is None:
        if located.finding.code not in INTERNAL_RULES:
            yield f'<p class="soft">No fix is shown: {NOT_READ}.</p>'
        return
    if preview.after is None:
        yield f'<p class="soft">No edit mends it: {prose(preview.reason)}.</p>'
        return
    safety = preview.safety
    lines = list(difference("", located.document.normal, preview.after.normal, colour=False))[2:]
    while not lines[-1].strip():
        lines.pop()
    yield f'<details open><summary>Fix <span class="tag {safety.value}">{safety.value}</span> {CHANGES[safety]}</summary>'
    yield f"<pre>{''.join(map(_diff_line, lines))}</pre></details>"


def _diff_line(line: str) -> str:
    kind = {"-": "was", "+": "now", "@": "hunk"}.get(line[:1])
    text = escaped(cells(line[:WIDEST]))
    return f'<span class="{kind}">{text}</span>\n' if kind else f"{text}\n"
