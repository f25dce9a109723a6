"""SARIF: fixes to the byte, rules with their pages, notifications for what could not be checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flake8_torchmem import check_source, fix_source
from flake8_torchmem.catalogue import page
from flake8_torchmem.fixes.document import Document
from flake8_torchmem.fixes.preview import previews, replacements
from flake8_torchmem.settings import Settings
from tests.reports import report, valid
from tests.running import REPOSITORY
from tests.samples import BOTH, BROKEN, BROKEN_LINE, LEAKY, UNCLEARED

WRITTEN = {
    "plain": LEAKY.encode(),
    "bom": b"\xef\xbb\xbf" + LEAKY.encode(),
    "crlf": LEAKY.replace("\n", "\r\n").encode(),
    "cr": LEAKY.replace("\n", "\r").encode(),
    "mixed": LEAKY.replace("loader:\n", "loader:\r\n").encode(),
    "latin": LEAKY.replace("import torch", "# -*- coding: latin-1 -*-\n# é\nimport torch").encode("latin-1"),
    "wide": LEAKY.replace("total", "gesamt_ü").replace("import torch", "# 日本 \U0001f600\nimport torch").encode(),
    "no end": LEAKY.rstrip("\n").encode(),
    "form feed": LEAKY.replace("\n\n\n", "\n\f\n\x1c\n").replace("\x1c", "# \x1c \u2028").encode(),
}


def run_of(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str, stdin: bytes = b"") -> dict[str, Any]:
    (run,) = valid("sarif", report(monkeypatch, folder, "sarif", *arguments, stdin=stdin))["runs"]
    assert run["columnKind"] == "unicodeCodePoints"
    return dict(run)


def by_bytes(data: bytes, parts: list[dict[str, Any]], encoding: str) -> bytes:
    for part in reversed(parts):
        region = part["deletedRegion"]
        begin, end = region["byteOffset"], region["byteOffset"] + region["byteLength"]
        data = data[:begin] + part["insertedContent"]["text"].encode(encoding) + data[end:]
    return data


def by_columns(data: bytes, parts: list[dict[str, Any]], encoding: str) -> bytes:
    """As an editor does it that counts lines and characters and knows nothing of bytes."""
    text = data.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    lines = Document(text, encoding).lines
    lines.append("")
    for part in reversed(parts):
        region = part["deletedRegion"]
        first, last = region["startLine"] - 1, region["endLine"] - 1
        head, tail = lines[first][: region["startColumn"] - 1], lines[last][region["endColumn"] - 1 :]
        lines[first : last + 1] = [head + part["insertedContent"]["text"] + tail]
    bom = b"\xef\xbb\xbf" if data.startswith(b"\xef\xbb\xbf") else b""
    return bom + "".join(lines).encode(encoding)


@pytest.mark.parametrize("name", WRITTEN)
def test_a_fix_makes_the_very_bytes_that_torchmem_fix_makes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    data = WRITTEN[name]
    (tmp_path / "a.py").write_bytes(data)
    run = run_of(monkeypatch, tmp_path)
    ((fix,),) = (result["fixes"] for result in run["results"])
    assert fix["properties"] == {"safety": "safe"}
    (change,) = fix["artifactChanges"]
    encoding = "latin-1" if name == "latin" else "utf-8"
    mended = fix_source(data).document.data
    assert mended != data
    assert by_bytes(data, change["replacements"], encoding) == mended
    assert by_columns(data, change["replacements"], encoding) == mended
    assert [artifact["encoding"] for artifact in run["artifacts"]] == (["iso-8859-1"] if name == "latin" else [])


@pytest.mark.parametrize("folder", ["TM205-eval-without-no-grad", "TM211-oom-in-except"])
def test_each_fix_of_a_fixture_mends_its_finding_and_brings_none(folder: str) -> None:
    document = Document.of((REPOSITORY / "fixtures" / folder / "bad.py").read_bytes())
    found = previews(document, "bad.py", Settings())
    made = [preview for preview in found if preview.after is not None]
    assert made
    for preview in made:
        assert preview.after is not None
        parts = replacements(document, preview.after)
        regions = [
            {"deletedRegion": {"byteOffset": part.offset, "byteLength": part.length}, "insertedContent": {"text": part.text}}
            for part in parts
        ]
        assert parts
        assert by_bytes(document.data, regions, document.encoding) == preview.after.data
        assert len(check_source(preview.after.data)) < len(found)


def test_a_finding_without_a_fix_says_so_by_having_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("# @generated\n" + BOTH)
    results = run_of(monkeypatch, tmp_path)["results"]
    assert [result["ruleId"] for result in results] == ["TM101", "TM201"]
    assert not any("fixes" in result for result in results)


def test_an_unsafe_fix_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(UNCLEARED)
    (result,) = run_of(monkeypatch, tmp_path)["results"]
    (fix,) = result["fixes"]
    assert fix["properties"] == {"safety": "unsafe"}
    assert fix["description"]["text"].startswith("Unsafe fix: ")
    (replacement,) = fix["artifactChanges"][0]["replacements"]
    assert replacement["insertedContent"]["text"].strip() == "optimizer.zero_grad()"


def test_rules_come_with_their_pages_and_are_those_that_were_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(BOTH)
    run = run_of(monkeypatch, tmp_path)
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == ["TM101", "TM201"]
    for rule in rules:
        assert rule["help"]["text"] == page(rule["id"])
        assert rule["help"]["markdown"].startswith(f"# {rule['id']} ")
        assert rule["fullDescription"]["text"].startswith("Reports ")
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]


def test_a_region_shows_its_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(LEAKY)
    (result,) = run_of(monkeypatch, tmp_path)["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place["region"]["snippet"]["text"] == "total += loss"
    assert place["contextRegion"]["snippet"]["text"] == "        total += loss"


def test_places_that_a_message_speaks_of_are_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(UNCLEARED)
    (result,) = run_of(monkeypatch, tmp_path)["results"]
    lines = [related["physicalLocation"]["region"]["startLine"] for related in result["relatedLocations"]]
    assert lines
    assert all(f"line {line}" in result["message"]["text"] for line in lines)


def test_what_could_not_be_checked_is_a_notification_and_no_result(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    (tmp_path / "leaky.py").write_text(LEAKY)
    run = run_of(monkeypatch, tmp_path)
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    (note,) = invocation["toolExecutionNotifications"]
    assert note["level"] == "error"
    assert run["tool"]["driver"]["notifications"][note["descriptor"]["index"]]["id"] == note["descriptor"]["id"] == "TM901"
    place = note["locations"][0]["physicalLocation"]
    assert (place["artifactLocation"]["uri"], place["region"]["startLine"]) == ("broken.py", BROKEN_LINE)
    assert [result["ruleId"] for result in run["results"]] == ["TM201"]


def test_standard_input_is_shown_and_mended_like_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (result,) = run_of(monkeypatch, tmp_path, "-", "--stdin-display-name", "a.py", stdin=LEAKY.encode())["results"]
    (change,) = result["fixes"][0]["artifactChanges"]
    assert change["artifactLocation"]["uri"] == "a.py"
    assert by_bytes(LEAKY.encode(), change["replacements"], "utf-8") == fix_source(LEAKY).document.data


def test_kept_findings_get_their_fixes_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text(LEAKY)
    runs = []
    for _ in range(2):
        monkeypatch.setenv("TORCHMEM_CACHE_DIR", str(tmp_path / "kept"))
        runs.append(run_of_kept(monkeypatch, tmp_path))
    assert runs[0] == runs[1]
    assert runs[0]["results"][0]["fixes"]


def run_of_kept(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    from click.testing import CliRunner

    from flake8_torchmem.cli import torchmem

    monkeypatch.chdir(folder)
    result = CliRunner().invoke(torchmem, ["check", "--output-format", "sarif", "code"])
    (run,) = valid("sarif", result.stdout)["runs"]
    return dict(run)
