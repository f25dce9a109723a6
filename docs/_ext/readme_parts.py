"""`<!-- README: Fixes -->` in a page stands for that section of the README, so that what is said there is said once.

With `, without subsections` after the name, only what comes before the section's first subsection is taken. A section that the README
does not have is a warning, and so an error in the tests. Links within the README lead to the page that has the section; codes of rules
lead to the pages of the rules.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

README = Path(__file__).resolve().parents[2] / "README.md"
PART = re.compile(r"^<!-- README: (?P<name>[^,\n]+?)(?P<own>, without subsections)? -->$", re.MULTILINE)
FENCED = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(#([\w-]+)\)")
CODE = re.compile(r"\b(TM\d{3})\b")

NO_LINKS = (nodes.title, nodes.reference, nodes.literal, nodes.literal_block, nodes.raw, addnodes.pending_xref)

log = logging.getLogger(__name__)


def headings(text: str) -> list[tuple[int, int, int, str]]:
    """Start, end, level and name of every heading that stands outside of code."""
    inside = [match.span() for match in FENCED.finditer(text)]
    return [
        (match.start(), match.end(), len(match[1]), match[2])
        for match in HEADING.finditer(text)
        if not any(begin <= match.start() < end for begin, end in inside)
    ]


def section(text: str, name: str, own: bool, under: int = 1) -> str | None:
    """The text below this heading, to be put under a heading of the given level; None if there is no such heading."""
    every = headings(text)
    at = next((number for number, (*_, title) in enumerate(every) if title == name), None)
    if at is None:
        return None
    _, begin, level, _ = every[at]
    end = next((start for start, _, other, _ in every[at + 1 :] if own or other <= level), len(text))
    body = text[begin:end]
    for start, stop, other, title in reversed(headings(body)):
        body = f"{body[:start]}{'#' * (other - level + under)} {title}{body[stop:]}"
    return body.strip()


def slug(title: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")


def homes(source: Path) -> dict[str, str]:
    """Where each section of the README is shown: the file of the page, by anchor."""
    found = {"rules": "rules/index.md"}  # the table is made anew there, with links
    text = README.read_text("utf-8")
    for page in sorted(source.glob("*.md")):
        for part in PART.finditer(page.read_text("utf-8")):
            found.setdefault(slug(part["name"]), page.name)
            for *_, title in headings(section(text, part["name"], bool(part["own"])) or ""):
                found.setdefault(slug(title), f"{page.name}#{slug(title)}")
    return found


def put_in(app: Sphinx, page: str, source: list[str]) -> None:
    """Replace the comments by the sections."""
    if not PART.search(source[0]):
        return
    app.env.note_dependency(str(README))
    whole, text, pages = source[0], README.read_text("utf-8"), homes(Path(app.srcdir))

    def replaced(part: re.Match[str]) -> str:
        above = [level for start, _, level, _ in headings(whole) if start < part.start()]
        found = section(text, part["name"], bool(part["own"]), above[-1] if above else 1)
        if found is None:
            log.warning("the README has no section %r", part["name"], location=page)
            return ""
        return LINK.sub(lambda link: f"]({pages.get(link[1], '#' + link[1])})", found)

    source[0] = PART.sub(replaced, whole)


def _around(node: nodes.Node) -> Iterator[nodes.Node]:
    """What a node stands in, from the inside out."""
    while node.parent is not None:
        node = node.parent
        yield node


class LinkedCodes(SphinxTransform):
    """Every code of a rule in running text leads to the rule's page."""

    default_priority = 500

    def apply(self, **_: Any) -> None:  # noqa: ANN401
        pages = {code for code in map(str, self.app.config.rule_codes) if f"rules/{code}" != self.env.docname}
        for text in list(self.document.findall(nodes.Text)):
            pieces = CODE.split(text.astext())
            if pages.intersection(pieces) and not any(isinstance(around, NO_LINKS) for around in _around(text)):
                text.parent.replace(text, [self._linked(piece) if piece in pages else nodes.Text(piece) for piece in pieces if piece])

    def _linked(self, code: str) -> nodes.Node:
        target = f"/rules/{code}"
        link = addnodes.pending_xref(
            "", nodes.inline(code, code), refdomain="std", reftype="doc", reftarget=target, refexplicit=True, refdoc=self.env.docname
        )
        link["refwarn"] = True
        return link


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", put_in)
    app.add_transform(LinkedCodes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
