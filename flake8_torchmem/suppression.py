"""`# noqa` comments, read as flake8 reads them, so that both doors of the tool suppress the same findings.

That includes flake8's fine print: codes match by prefix and in upper case; only the first `# noqa` of a line counts; a
string or a backslash continuation that spans lines is one line; `# flake8: noqa` on a line of its own, with or without
codes after it, suppresses the whole file.
"""

from __future__ import annotations

import io
import re
import tokenize
from functools import cache

from flake8_torchmem.model import Edit, Finding, Span

_LINE = re.compile(r"# noqa(?::\s?(?P<codes>[A-Z]+[0-9]+(?:[,\s]*[A-Z]+[0-9]+)*))?", re.IGNORECASE)
_FILE = re.compile(r"^[^\S\n]*# flake8[:=]\s*noqa", re.IGNORECASE | re.MULTILINE)
_NOT_OF_A_LINE = frozenset({tokenize.ENDMARKER, tokenize.DEDENT})
_ENDS_A_LINE = frozenset({tokenize.NL, tokenize.NEWLINE})


def unsuppressed(text: str, findings: list[Finding]) -> list[Finding]:
    """The findings that no comment of the file suppresses."""
    if not findings or "noqa" not in text.lower():
        return findings
    if _FILE.search(text):
        return []
    lines = text.split("\n")
    joined = _joined(text, len(lines))

    @cache  # a line may be long, and may have many findings
    def comment(number: int) -> re.Match[str] | None:
        first, last = joined.get(number, (number, number))
        return _LINE.search("\n".join(lines[first - 1 : last]))

    return [finding for finding in findings if not _is_suppressed(finding.code, comment(finding.span.line))]


def silencing(text: str, finding: Finding) -> Edit:
    """The comment that suppresses a finding: at the end of its line, or its code in a comment that is there.

    Args:
        text: that it was found in, with LF line ends.
        finding: that is not suppressed.
    """
    lines = text.split("\n")
    line = finding.span.line
    first, last = _joined(text, len(lines)).get(line, (line, line))
    for number in range(first, last + 1):
        comment = _LINE.search(lines[number - 1])
        if comment is not None and comment["codes"]:
            return Edit(Span(number, comment.end() + 1, number, comment.end() + 1), f",{finding.code}")
    return Edit(Span(last, len(lines[last - 1].rstrip()) + 1, last, len(lines[last - 1]) + 1), f"  # noqa: {finding.code}")


def _is_suppressed(code: str, comment: re.Match[str] | None) -> bool:
    if comment is None:
        return False
    codes = comment["codes"]
    return codes is None or code.startswith(tuple(re.split(r"[,\s]+", codes)))


def _joined(text: str, count: int) -> dict[int, tuple[int, int]]:
    """The lines that hang together with others, each to the first and the last of those; none in a text of broken syntax."""
    found: dict[int, tuple[int, int]] = {}
    first, last = count + 1, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline="\n").readline):
            if token.type in _NOT_OF_A_LINE:
                continue
            first, last = min(first, token.start[0]), max(last, token.end[0])
            if token.type in _ENDS_A_LINE:
                if first < last:
                    found.update(dict.fromkeys(range(first, last + 1), (first, last)))
                first, last = count + 1, 0
    except (tokenize.TokenError, SyntaxError):
        return {}
    return found
