"""`# noqa` comments, read as flake8 reads them, so that both doors of the tool suppress the same findings.

That includes flake8's fine print: codes match by prefix and in upper case; only the first `# noqa` of a line counts; a
string or a backslash continuation that spans lines is one line; `# flake8: noqa` on a line of its own, with or without
codes after it, suppresses the whole file.
"""

from __future__ import annotations

import io
import re
import tokenize

from flake8_torchmem.model import Finding

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
    lines = _joined_lines(text)
    return [finding for finding in findings if not _is_suppressed(finding.code, lines.get(finding.span.line, ""))]


def _is_suppressed(code: str, line: str) -> bool:
    comment = _LINE.search(line)
    if comment is None:
        return False
    codes = comment["codes"]
    return codes is None or code.startswith(tuple(re.split(r"[,\s]+", codes)))


def _joined_lines(text: str) -> dict[int, str]:
    """Each line's number, to the text of all lines that hang together with it."""
    physical = text.split("\n")
    joined = dict(enumerate(physical, start=1))
    first, last = len(physical) + 1, 0
    try:
        for token in tokenize.generate_tokens(io.StringIO(text, newline="\n").readline):
            if token.type in _NOT_OF_A_LINE:
                continue
            first, last = min(first, token.start[0]), max(last, token.end[0])
            if token.type in _ENDS_A_LINE:
                if first < last:
                    joined.update(dict.fromkeys(range(first, last + 1), "\n".join(physical[first - 1 : last])))
                first, last = len(physical) + 1, 0
    except (tokenize.TokenError, SyntaxError):
        return dict(enumerate(physical, start=1))
    return joined
