"""The HTML report: one page that needs nothing else, whatever the code and its files are called."""

from __future__ import annotations

import os
import re
import sys
from base64 import b64encode
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest

from flake8_torchmem.measured import Table
from flake8_torchmem.output import html_report
from tests.reports import report
from tests.samples import BOTH, BROKEN, CLEAN, LEAK_LINE, LEAKY

VOID = {"meta", "br", "img", "link", "input", "hr"}
KNOWN = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td",
    "section", "article", "a", "span", "code", "pre", "mark", "details", "summary", "div", "figure", "figcaption", "svg", "path", "text",
}  # fmt: skip
REORDERING = re.compile("[\u200b-\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]")


class Page(HTMLParser):
    """Reads a page as a browser would, and objects to what no page of ours may have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.metas: list[dict[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in KNOWN
        given = dict(attrs)
        assert not [name for name in given if name.startswith("on") or name in {"style", "src", "srcset", "action"}]
        if tag == "meta":
            self.metas.append(given)
        if "id" in given:
            self.ids.append(given["id"] or "")
        if "href" in given:
            self.targets.append(given["href"] or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self.open:
            self.texts.setdefault(tag, []).append(data)

    def text(self, tag: str) -> str:
        return "".join(self.texts.get(tag, []))


def read(text: str) -> Page:
    """The page; it loads nothing, its links lead to its own parts, and its policy lets in its own style alone."""
    page = Page(text)
    assert text.isascii()
    assert len(page.ids) == len(set(page.ids))
    assert {target.removeprefix("#") for target in page.targets} <= set(page.ids)
    assert all(target.startswith("#") for target in page.targets)
    (policy,) = (meta["content"] or "" for meta in page.metas if meta.get("http-equiv") == "Content-Security-Policy")
    digest = b64encode(sha256(page.text("style").encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert not re.search(r"url\(|@import", page.text("style"))
    assert "prefers-color-scheme: dark" in page.text("style")
    return page


def test_a_finding_is_shown_with_its_code_its_spot_and_its_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(BOTH)
    page = read(report(monkeypatch, tmp_path, "html"))
    assert "2 findings in 1 file; 1 file checked." in page.text("p")
    assert page.text("mark") == "loss.backward()total += loss"
    for said in ("TM101 missing-zero-grad", "TM201 loss-accumulated", "./a.py"):
        assert said in page.text("h3")
    fixes = page.text("details")
    assert "\n+        optimizer.zero_grad()\n" in fixes
    assert "-        total += loss\n+        total += loss.detach()\n" in fixes
    assert "unsafe changes training behaviour" in fixes
    assert "safe changes nothing that training computes" in fixes
    assert f"{LEAK_LINE - 1}:9" in page.text("h4")


def test_a_finding_that_no_edit_mends_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# @generated\n" + LEAKY)
    page = read(report(monkeypatch, tmp_path, "html"))
    assert "No edit mends it: the file is generated." in page.text("article")
    assert "details" not in page.texts


def test_clean_and_unreadable_files_make_a_page_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "clean.py").write_text(CLEAN)
    assert "no findings; 1 file checked." in read(report(monkeypatch, tmp_path, "html")).text("p")
    (tmp_path / "broken.py").write_text(BROKEN)
    assert "broken.py:4: TM901" in read(report(monkeypatch, tmp_path, "html")).text("li")


@pytest.mark.skipif(sys.platform != "linux", reason="these names need a file system that takes any bytes")
def test_hostile_names_and_code_stay_text(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    comment = "  # \u202e</pre></style><script>alert(1)</script><img src=x onerror=alert(1)> &amp; \x1b[31m `<b>`"
    (tmp_path / "a<h1><script>`x`\n\u202e.py").write_text(LEAKY.replace("total += loss", "total += loss" + comment), "utf-8")
    (tmp_path / os.fsdecode(b"\xff.py")).write_text(LEAKY)
    (tmp_path / "<img src=x>.py").write_text(BROKEN)
    page = read(report(monkeypatch, tmp_path, "html"))
    assert "</pre></style><script>alert(1)</script><img src=x onerror=alert(1)> &amp; \\x1b[31m" in page.text("pre")
    assert not REORDERING.search("".join(part for parts in page.texts.values() for part in parts))
    assert "a<h1><script>" in page.text("h3")


def test_a_file_that_is_gone_meanwhile_is_shown_by_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    monkeypatch.setattr("flake8_torchmem.cli.check.detailed", lambda found, *_: found)
    page = read(report(monkeypatch, tmp_path, "html"))
    assert "total += loss\n" in page.text("pre")
    assert "^" * len("total += loss") in page.text("pre")
    assert "No fix is shown: the file is not what was checked any more." in page.text("article")


def table(**row: object) -> Table:
    rows = [{"case": "drift", "fixture": "TM201-loss-accumulated", "effect": "grows", "beat": "step", **row}]
    return Table.from_json({"device": "virtual", "name": "stand-in", "torch": "9.9", "measured": "2026-01-02", "rules": {"TM201": rows}})


def test_what_was_measured_is_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    shown = table(verdict="CONFIRMED", reason="grew by <64> bytes", bad=[64 * n for n in range(20)], fixed=[64] * 20)
    monkeypatch.setattr(html_report, "tables", lambda: {"virtual": shown})
    page = read(report(monkeypatch, tmp_path, "html"))
    assert page.text("figcaption") == "drift: grew by <64> bytes"
    assert {"as it is", "mended", "steps"} <= set(page.texts["text"])
    assert "the stand-in device, PyTorch 9.9 (2026-01-02)" in page.text("section").replace("\n", " ")


@pytest.mark.parametrize("tables", [{}, {"virtual": table(verdict="REFUTED", reason="no growth", bad=[1, 1], fixed=[1, 1])}])
def test_what_was_not_seen_is_not_claimed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tables: dict[str, Table]) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    monkeypatch.setattr(html_report, "tables", lambda: tables)
    page = read(report(monkeypatch, tmp_path, "html"))
    assert "svg" not in page.texts
    assert "Measured" not in page.text("body")
