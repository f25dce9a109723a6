"""Rule pages claim what the measured table holds, and nothing else. What it cannot hold is listed here, with where it comes from."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flake8_torchmem import measured
from flake8_torchmem.catalogue import catalogue, page, written_page
from flake8_torchmem.measured import Row, Table, pages, tables
from flake8_torchmem.measured.pages import REFERENCE, UNKNOWN, quoted, with_figures
from flake8_torchmem.rules import rule_modules
from tests.running import REPOSITORY, SCRIPTS, run

# Of memory, and in no table: a number of the page with why it may stand there. An entry that no page needs fails, too.
RESIDENT = "resident set of the process on the CPU build, which the page names: the stand-in device counts nodes of the host, not bytes"
WORKERS = "private memory of worker processes, which only the operating system counts: the page says with what it was measured"
DERIVED = "worked out from sizes that the page gives, not measured"
NOT_IN_THE_TABLE: dict[str, dict[str, str]] = {
    "TM201": {"8.1": RESIDENT, "0.1": RESIDENT, "0.8": RESIDENT, "300": DERIVED, "24": DERIVED, "100,000": DERIVED},
    "TM202": {"8.6": RESIDENT, "0.8": RESIDENT, "2,048": "the size of the inputs, as test_verify_facts.py counts it"},
    "TM203": {"672": DERIVED, "21": DERIVED, "32": DERIVED},
    "TM204": {"8.3": RESIDENT, "0.1": RESIDENT, "4,096": DERIVED},
    "TM209": {"6.2": RESIDENT},
    "TM210": {"4.5": RESIDENT, "0.33": RESIDENT, "4,000": RESIDENT, "4": DERIVED},
    "TM213": {"4": DERIVED},
    "TM301": {"12": DERIVED},
    "TM305": {"614": DERIVED, "50,000": DERIVED, "1.6": DERIVED},
    "TM307": {"88": WORKERS, "164": WORKERS, "11": WORKERS},
}
FENCE = re.compile(r"```.*?```", re.DOTALL)
SENTENCE = re.compile(r"(?<=[.:;!?])\s+|\n\s*\n|\n(?=- )")
OF_MEMORY = re.compile(r"\b(?:bytes?|[kKMGT]i?B|(?:kilo|mega|giga)bytes?|peak)\b")
NUMBER = re.compile(r"(?<![\w.,-])\d[\d,]*(?:\.\d+)?(?![\w-])")
# What a program is like, and where it ran.
SETTING = re.compile(
    r"\b\d+(?:-\d+)+ network|\bLSTM \d+-\d+|\d+ x \d+(?: x \d+)?|\bbatch(?:es)?(?: of)? \d+|\btorch \d\.\d+|\bTM\d+|\bfloat\d+"
    r"|\bmaxsize=\d+|Python \d\.\d+|steps [\d,]+ to [\d,]+|\d+ (?:batches|pixels|parameters)|[\d,]+ parameters|window of \d+",
    re.IGNORECASE,
)

every_rule = pytest.mark.parametrize("code", rule_modules())


def virtual() -> Table:
    return tables()["virtual"]


def memory_numbers(code: str) -> Iterator[str]:
    """The numbers of a page's sentences on memory that are neither quoted from the table nor part of what was run."""
    text = FENCE.sub("", written_page(code)) + "\n\n" + catalogue()[code].effect
    for sentence in SENTENCE.split(text):
        if OF_MEMORY.search(sentence):
            yield from NUMBER.findall(SETTING.sub("", REFERENCE.sub("", " ".join(sentence.split()))))


@every_rule
def test_what_a_page_claims_is_in_the_table(code: str) -> None:
    claimed, known = set(memory_numbers(code)), set(NOT_IN_THE_TABLE.get(code, ()))
    assert not claimed - known, "quote the table: {measured:<case>.<figure>}"
    assert not known - claimed, "no page needs these any more"


@every_rule
def test_what_a_page_quotes_is_in_the_table(code: str) -> None:
    for match in REFERENCE.finditer(written_page(code)):
        assert quoted(code, match["case"], match["figure"]) is not None, match[0]
    sections = re.findall(r"^## (.+)$", page(code), re.MULTILINE)
    assert sections[1:4] == ["Why it matters", "Measured", "Example"]
    assert "{measured:" not in page(code)
    assert UNKNOWN not in page(code)


@pytest.mark.parametrize("code", NOT_IN_THE_TABLE)
def test_what_comes_from_elsewhere_says_from_where(code: str) -> None:
    text = " ".join(written_page(code).split())
    reasons = NOT_IN_THE_TABLE[code].values()
    assert RESIDENT not in reasons or ("resident set" in text and re.search(r"torch 2\.\d+, CPU build", text))
    assert WORKERS not in reasons or re.search(r"measured with two workers, Python 3\.\d+", text)


def test_the_words_of_a_claim_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    sentences = "It is 7 here. The peak is {measured:a.bad_peak} bytes, not 76,676. Batches of 32 keep 1.5 MB of a 16-64-2 network."
    monkeypatch.setattr(sys.modules[__name__], "written_page", lambda _code: sentences)
    assert list(memory_numbers("TM201")) == ["76,676", "1.5"]


@every_rule
def test_the_table_covers_each_rule(code: str) -> None:
    tomllib = pytest.importorskip("tomllib", reason="fixture.toml is read with tomllib, which Python has since 3.11")
    folder = REPOSITORY / "fixtures" / f"{code}-{catalogue()[code].name}"
    cases = tomllib.loads((folder / "fixture.toml").read_text("utf-8"))["cases"]
    rows = virtual().rules.get(code, ())
    assert rows, f"torchmem verify fixtures/{folder.name} --device virtual --record flake8_torchmem/measured/virtual.json"
    assert [(row.case, row.effect, row.fixture) for row in rows] == [(case["function"], case["effect"], folder.name) for case in cases]
    for row, case in zip(rows, cases, strict=True):
        for name, found in _figures(row).items():
            assert case.get(name, found) == found, f"{row.case}: {name} of fixture.toml"


def _figures(row: Row) -> dict[str, Any]:
    """By the names that fixture.toml has for them."""
    return {"bytes_per_beat": row.bytes_per_beat_bad, "fixed_bytes_per_beat": row.bytes_per_beat_fixed, "peak_bytes_more": row.peak_more}


@pytest.mark.parametrize("device", measured.DEVICES)
def test_a_table_is_of_this_package(device: str) -> None:
    if device not in tables():
        pytest.skip(f"nothing was measured on {device} yet")
    table = tables()[device]
    assert table.device == device
    assert table.name
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", table.torch)
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", table.measured)
    assert set(table.rules) == set(rule_modules())
    for code, rows in table.rules.items():
        for row in rows:
            assert row.fixture == f"{code}-{catalogue()[code].name}"
            assert row.verdict != "REFUTED", f"{code} claims what {row.case} does not show"
            assert row.reason


@pytest.mark.parametrize("code", rule_modules())
def test_what_is_open_is_beyond_the_device(code: str) -> None:
    for row in virtual().rules[code]:
        assert row.verdict == "CONFIRMED" or row.reason.startswith("the stand-in device cannot show it: "), row.reason
        assert (row.verdict == "CONFIRMED") == bool(row.beats)


def test_growth_in_the_table_is_that_of_its_series() -> None:
    """Recounted from the series: no figure was written by hand."""
    for rows in virtual().rules.values():
        for row in rows:
            for series, per_beat in ((row.bad, row.per_beat_bad), (row.fixed, row.per_beat_fixed)):
                if row.effect in ("grows", "host") and len(series) == row.beats > 12 and row.figures.get("beats") == row.beats - 4:
                    assert per_beat is not None
                    assert series[-1] - series[-9] == pytest.approx(per_beat * 8)


def some_table(device: str, name: str) -> Table:
    row = Row("drift", "TM201-loss-accumulated", "grows", "CONFIRMED", "grew | by 10", "step", 20, per_beat_bad=1234.5, bad_peak=2_000_000)
    return Table(device, name, "9.9", "2026-01-02", {"TM201": (row,)})


def test_a_page_shows_what_was_measured_on_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"virtual": some_table("virtual", "stand-in"), "cuda": some_table("cuda", "Some GPU 9000")}
    monkeypatch.setattr(pages, "tables", lambda: both)
    text = with_figures("TM201", "It is {measured:drift.per_beat_bad} of {measured:drift.bad_peak}.\n\n## Example\n\nx")
    assert text.startswith(
        "It is 1,234.5 of 2,000,000.\n\n## Measured\n\nBy `torchmem verify` on the stand-in device, PyTorch 9.9, 2026-01-02"
    )
    assert text.endswith("\n\n## Example\n\nx")
    assert "on Some GPU 9000, PyTorch 9.9" in text
    assert text.count("grew \\| by 10") == 2
    assert text.count("*grows*: ") == 1
    assert "*host*" not in text


def test_every_effect_that_was_measured_is_explained() -> None:
    measured = {row.effect for table in tables().values() for rows in table.rules.values() for row in rows}
    assert measured <= pages.EFFECTS.keys()


@pytest.mark.parametrize("reference", ["drift.fixed_peak", "drift.reason", "drift.no_such", "no_such.bad_peak"])
def test_what_is_not_in_the_table_is_said_not_to_be(monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.setattr(pages, "tables", lambda: {"virtual": some_table("virtual", "stand-in")})
    assert with_figures("TM201", f"{{measured:{reference}}} bytes") == f"{UNKNOWN} bytes"
    monkeypatch.setattr(pages, "tables", dict)
    assert with_figures("TM201", f"{{measured:{reference}}} bytes\n## Example\n") == f"{UNKNOWN} bytes\n## Example\n"


def test_the_table_is_read_without_torch_and_the_verifier(tmp_path: Path) -> None:
    code = "import sys; from flake8_torchmem.measured import tables; assert tables()['virtual'].rules['TM201'][0].bad"
    code += "; assert not [name for name in sys.modules if name.partition('.')[0] in ('torch', 'libcst', 'click') or '.verify' in name]"
    assert run([str(SCRIPTS / "python"), "-c", code], tmp_path).status == 0
