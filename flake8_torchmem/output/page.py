"""The frame of our HTML pages: one file, no scripts, nothing loaded from anywhere, legible on light and on dark screens.

A content security policy in the page says so to the browser: its own style and no more. Should markup of a hostile name ever get
through, it still could neither run nor load anything.
"""

from __future__ import annotations

import html
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256

from flake8_torchmem.output.text import printable

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #5c646c; --paper: #ffffff; --panel: #f6f7f8; --line: #d9dde1;
  --ok: #18794e; --no: #c62a2f; --open: #8a6100; --torchmem-bad: #c62a2f; --torchmem-fixed: #18794e;
  --was: #fdecec; --now: #e7f6ee; --spot: #fde3e3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #9aa4ad; --paper: #15181b; --panel: #1d2125; --line: #33393f;
    --ok: #5bd19a; --no: #ff8589; --open: #f0c14b; --torchmem-bad: #ff8589; --torchmem-fixed: #5bd19a;
    --was: #3a2225; --now: #1b3328; --spot: #4d2529; } }
body { font: 15px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 68rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: break-word; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .8rem; padding-bottom: .2rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; } p { margin: .4rem 0; }
a { color: inherit; text-decoration-color: var(--soft); text-underline-offset: .15em; }
table { border-collapse: collapse; width: 100%; } td, th { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; }
th { font-weight: 600; color: var(--soft); font-size: .9rem; } tr + tr td, thead + tbody td { border-top: 1px solid var(--line); }
code, pre { font: .87rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem; margin: .5rem 0;
  overflow-x: auto; }
figure { margin: .8rem 0; } figcaption { font-size: .9rem; color: var(--soft); }
.torchmem-plot { display: block; max-width: 100%; height: auto; }
.CONFIRMED, .safe { color: var(--ok); } .REFUTED, .error { color: var(--no); }
.INCONCLUSIVE, .warning, .unsafe { color: var(--open); } .display { color: var(--soft); }
"""
_CODE = re.compile(r"`([^`]+)`")


def page(title: str, style: str, body: Iterable[str]) -> Iterator[str]:
    """The lines of a page, in ASCII: whatever it is printed or written through, it arrives as it is.

    Args:
        title: in the head and above the body.
        style: rules beside those that all pages have.
        body: lines of markup.
    """
    rules = STYLE + style
    policy = (
        f"default-src 'none'; style-src 'sha256-{b64encode(sha256(rules.encode()).digest()).decode()}'; base-uri 'none'; form-action 'none'"
    )
    yield '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{escaped(title)}</title>\n<style>{rules}</style>\n</head>\n<body>\n<h1>{escaped(title)}</h1>"
    for line in body:
        yield line.encode("ascii", "xmlcharrefreplace").decode("ascii")
    yield "</body>\n</html>"


def escaped(text: str) -> str:
    """Text for elements and attributes, with what would reorder or hide the text around it shown as escapes."""
    return html.escape(printable(text), quote=True)


def prose(text: str) -> str:
    """A sentence in which backquotes stand around code."""
    return _CODE.sub(r"<code>\1</code>", escaped(text))
