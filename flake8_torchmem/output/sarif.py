"""SARIF 2.1.0: rules with their pages, findings that are known again when lines move, fixes to the byte, and what could not be checked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from flake8_torchmem import __version__
from flake8_torchmem.catalogue import catalogue, page
from flake8_torchmem.fixes.preview import Preview, Replacement, replacements
from flake8_torchmem.model import FileError, Safety, Span
from flake8_torchmem.output import Located, Report
from flake8_torchmem.output.names import fingerprint, uri
from flake8_torchmem.output.text import printable
from flake8_torchmem.rules.internal import INTERNAL_ERROR, INTERNAL_RULES, UNREADABLE_FILE

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_BASE = "%SRCROOT%"
WIDEST = 1_000  # characters of a line that is shown: it is there again with each finding
_BRACES = str.maketrans({"{": "{{", "}": "}}"})
_SAYS = {Safety.SAFE: "It changes nothing that training computes.", Safety.UNSAFE: "It changes training behaviour or a type: read it."}

Object = dict[str, Any]


def render(report: Report, colour: bool = False) -> Iterator[str]:
    """The log, in ASCII, with one run."""
    yield json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(report)]}, indent=2)


def _run(report: Report) -> Object:
    found = [located for located in report.findings if located.finding.code != INTERNAL_ERROR.code]
    failed = [located for located in report.findings if located.finding.code == INTERNAL_ERROR.code]
    rules = sorted({located.finding.code for located in found})
    return {
        "tool": {"driver": _driver(rules)},
        "invocations": [_invocation(failed, report.errors)],
        "originalUriBaseIds": {_BASE: {"description": {"text": "The folder that torchmem was run in."}}},
        "artifacts": _artifacts(found),
        "results": [_result(located, rules.index(located.finding.code)) for located in found],
        "columnKind": "unicodeCodePoints",
        "newlineSequences": ["\r\n", "\n", "\r"],
        "defaultEncoding": "utf-8",
        "defaultSourceLanguage": "python",
    }


def _driver(rules: Sequence[str]) -> Object:
    return {
        "name": "torchmem",
        "fullName": "flake8-torchmem",
        "version": __version__,
        "semanticVersion": __version__,
        "shortDescription": {"text": "Finds where PyTorch training code loses memory or corrupts its accumulated gradients."},
        "rules": [_descriptor(code) for code in rules],
        "notifications": [_descriptor(code) for code in INTERNAL_RULES],
    }


def _descriptor(code: str) -> Object:
    rule, text = catalogue()[code], page(code)
    return {
        "id": code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": _message(rule.summary),
        "fullDescription": _message(_first_section(text)),
        "help": {"text": text, "markdown": _markdown(text)},
        "defaultConfiguration": {"enabled": rule.default, "level": rule.severity.value},
        "properties": {"tags": ["pytorch"], "problem.severity": rule.severity.value, "precision": "high"},
    }


def _first_section(text: str) -> str:
    """The paragraph that says what the rule does, in one line."""
    return " ".join(text.split("\n\n")[2].split())


def _markdown(text: str) -> str:
    """The page with its first line as a heading."""
    return f"# {text}"


def _message(text: str) -> Object:
    """A sentence."""
    literal = _literal(text)
    return {"text": f"{literal[:1].upper()}{literal[1:]}".removesuffix(".") + "."}


def _literal(text: str) -> str:
    """The text of a message, with what would be a placeholder or a link in one taken for text."""
    return printable(text).translate(_BRACES).replace("](", "] (")


def _result(located: Located, index: int) -> Object:
    finding = located.finding
    result: Object = {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.severity.value,
        "message": _message(f"{finding.message}. To mend it: {finding.help}"),
        "locations": [{"physicalLocation": {"artifactLocation": _artifact(finding.path), **_regions(located)}}],
        "partialFingerprints": {"codeAndLine/v1": fingerprint(located)},
    }
    related = [_related(finding.path, mention.span) for mention in finding.mentions if not mention.path]
    fix = _fix(located)
    return {**result, **({"relatedLocations": related} if related else {}), **({"fixes": [fix]} if fix else {})}


def _related(path: str, span: Span) -> Object:
    """A place of the same file that the message speaks of."""
    place = {"artifactLocation": _artifact(path), "region": _region(span)}
    return {"physicalLocation": place, "message": {"text": f"Line {span.line}, of which the message speaks."}}


def _regions(located: Located) -> Object:
    span, rows = located.finding.span, located.finding.rows
    if rows is not None:
        return {"region": {"startLine": rows[0], "endLine": rows[1]}}
    region = _region(span)
    if located.document is None or len(located.line) > WIDEST or printable(located.line) != located.line:
        return {"region": region}
    end = span.end_column - 1 if span.line == span.end_line else len(located.line)
    if span.line == span.end_line:
        region["snippet"] = {"text": located.line[span.column - 1 : end]}
    return {"region": region, "contextRegion": {"startLine": span.line, "endLine": span.line, "snippet": {"text": located.line}}}


def _region(span: Span) -> Object:
    return {"startLine": span.line, "startColumn": span.column, "endLine": span.end_line, "endColumn": span.end_column}


def _artifact(path: str) -> Object:
    place = uri(path)
    return {"uri": place} if place.startswith("file:") else {"uri": place, "uriBaseId": _BASE}


def _artifacts(found: Sequence[Located]) -> list[Object]:
    """The files whose encoding is not the usual one."""
    encodings = {each.finding.path: each.document.encoding for each in found if each.document is not None}
    return [{"location": _artifact(path), "encoding": encoding} for path, encoding in encodings.items() if encoding != "utf-8"]


def _fix(located: Located) -> Object | None:
    preview = located.preview
    if located.document is None or preview is None or preview.after is None or preview.safety is Safety.DISPLAY:
        return None
    parts = [_replacement(each) for each in replacements(located.document, preview.after)]
    if not parts:
        return None
    change = {"artifactLocation": _artifact(located.finding.path), "replacements": parts}
    return {"description": _fix_description(preview), "artifactChanges": [change], "properties": {"safety": preview.safety.value}}


def _replacement(part: Replacement) -> Object:
    region = {**_region(part.span), "byteOffset": part.offset, "byteLength": part.length}
    return {"deletedRegion": region, "insertedContent": {"text": part.text}}


def _fix_description(preview: Preview) -> Object:
    return _message(f"{preview.safety.value} fix: {preview.finding.help}. {_SAYS[preview.safety]}")


def _invocation(failed: Sequence[Located], errors: Sequence[FileError]) -> Object:
    """Whether all files could be checked, and which could not."""
    notes = [_notification(INTERNAL_ERROR.code, each.finding.path, each.finding.message, None) for each in failed]
    notes += [_notification(UNREADABLE_FILE.code, error.path, error.message, error.line) for error in errors]
    return {"executionSuccessful": not notes, "toolExecutionNotifications": notes}


def _notification(code: str, path: str, message: str, line: int | None) -> Object:
    place = {"artifactLocation": _artifact(path), **({"region": {"startLine": line}} if line else {})}
    return {
        "descriptor": {"id": code, "index": [*INTERNAL_RULES].index(code)},
        "level": "error",
        "message": {"text": _literal(message)},
        "locations": [{"physicalLocation": place}],
    }
