"""The measured table as the verifier writes it: from figures alone, without torch and without a device."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tomllib", reason="fixture.toml is read with tomllib, which Python has since 3.11")

from flake8_torchmem.measured import Table
from flake8_torchmem.verify.fixtures import Report, Row
from flake8_torchmem.verify.record import OtherDeviceError, as_text, table, write
from flake8_torchmem.verify.series import FORWARD, STEP, TURN, Gradient, Run, Sample
from flake8_torchmem.verify.verdict import JUDGES, Finding, Twins, Verdict, judge

DAY, LATER = "2026-01-02", "2026-03-04"
BEATS = 24
DEVICE = "Some <GPU> 9000"


def run(growth: int, start: int = 4096, pause: float = 0.5, kind: str = STEP) -> Run:
    made = Run(gradients=[Gradient(1 / 3 + growth, str(growth))] * BEATS, results=[1.0])
    sizes = [start + growth * beat for beat in range(BEATS)]
    made.samples[kind] = [Sample(size, size + 512, 1, 1, growth * beat, 0, size, beat * pause) for beat, size in enumerate(sizes)]
    return made


def row(code: str, effect: str, bad: Run, fixed: Run, exact: bool = True) -> Row:
    verdict = judge(effect, Twins(bad, bad, fixed, exact, frozenset(JUDGES)))
    return Row(code, f"{code}-a-rule", f"case_of_{effect}", effect, verdict, {"bad": bad, "fixed": fixed})


def virtual(*rows: Row, torch: str = "9.9") -> Report:
    return Report(list(rows), "virtual", "stand-in", "as asked for", torch)


def only(document: dict[str, Any], code: str) -> dict[str, Any]:
    (found,) = document["rules"][code]
    assert isinstance(found, dict)
    return found


def test_growth_is_recorded_with_both_series() -> None:
    document = table(virtual(row("TM201", "grows", run(64), run(0))), DAY)
    assert document["measured"] == DAY
    found = only(document, "TM201")
    assert found["verdict"] == "CONFIRMED"
    assert found["bad"] == [4096 + 64 * beat for beat in range(BEATS)]
    assert found["fixed"] == [4096] * BEATS
    assert (found["per_beat_bad"], found["per_beat_fixed"], found["unit"]) == (64, 0, "bytes")
    assert (found["bad_peak"], found["fixed_peak"]) == (4096 + 64 * (BEATS - 1) + 512, 4608)
    assert (found["beat"], found["beats"]) == (STEP, BEATS)


def test_growth_of_a_part_is_that_of_the_verdict() -> None:
    made = run(0)
    made.samples[FORWARD] = [Sample(4096, 4096, 1, 1, 0, 0, 0, beat * 0.5 - 0.1) for beat in range(BEATS)]
    late = [Sample(4096 + 64 * beat, 9000, 1, 1, 0, 0, 0, 100 + beat) for beat in range(BEATS)]
    calm = run(0)
    calm.samples[FORWARD] = made.samples[FORWARD] + [Sample(4096, 9000, 1, 1, 0, 0, 0, 100 + beat) for beat in range(BEATS)]
    made.samples[FORWARD] = made.samples[FORWARD] + late
    found = only(table(virtual(row("TM205", "grows", made, calm)), DAY), "TM205")
    assert (found["beat"], found["beats"], found["per_beat_bad"], found["bytes_per_beat_bad"]) == (FORWARD, 2 * BEATS, 64, 64)
    assert (found["per_beat_fixed"], found["bytes_per_beat_fixed"]) == (0, 0)


def test_nodes_are_counted_beside_bytes() -> None:
    found = only(table(virtual(row("TM201", "host", run(8), run(0))), DAY), "TM201")
    assert (found["unit"], found["bad"][:3], found["per_beat_bad"], found["bytes_per_beat_bad"]) == ("nodes", [0, 8, 16], 8, 8)


def test_gradients_are_recorded_by_their_lengths() -> None:
    found = only(table(virtual(row("TM101", "gradients", run(8), run(0))), DAY), "TM101")
    assert (found["unit"], found["bad"][0], found["fixed"][0], found["per_beat_bad"]) == ("norm", 8.33333, 0.333333, None)
    assert found["bytes_per_beat_bad"] == 8


def test_a_real_device_is_named_and_its_growth_is_a_slope() -> None:
    slow, fast = run(512, pause=0.5), run(512, pause=0.25)
    noisy = run(0)
    for beat, sample in enumerate(noisy.samples[STEP]):
        sample.live += 512 * (beat % 3)
    rows = [row("TM401", "time", slow, fast, exact=False), row("TM201", "grows", run(2048), noisy, exact=False)]
    document = table(Report(rows, "cuda", DEVICE, "found", "9.9"), DAY)
    assert (document["device"], document["name"]) == ("cuda", DEVICE)
    spent = only(document, "TM401")
    assert (spent["unit"], spent["bad"], spent["fixed"]) == ("seconds", [0.5] * (BEATS - 1), [0.25] * (BEATS - 1))
    found = only(document, "TM201")
    assert found["per_beat_bad"] == 2048
    assert abs(found["per_beat_fixed"]) < 256


def test_what_was_not_measured_says_why() -> None:
    reason = "the stand-in device cannot show it: no <time>"
    found = only(table(virtual(Row("TM401", "TM401-x", "case", "time", Verdict(Finding.INCONCLUSIVE, reason))), DAY), "TM401")
    assert found["reason"] == reason
    assert (found["bad"], found["bad_peak"], found["per_beat_bad"], found["beats"]) == ([], None, None, 0)


def test_programs_without_steps_are_recorded_by_their_own_beats() -> None:
    found = only(table(virtual(row("TM212", "results", run(0, kind=TURN), run(0, kind=TURN))), DAY), "TM212")
    assert (found["beat"], found["beats"], found["fixed_peak"]) == (TURN, BEATS, 4608)


def test_a_folder_that_is_no_fixture_is_left_out() -> None:
    assert table(virtual(Row("?", "notes", "", "", Verdict(Finding.INCONCLUSIVE, "no fixture.toml"))), DAY)["rules"] == {}


def test_the_file_is_read_back_as_it_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "virtual.json"
    report = virtual(row("TM205", "peak", run(0, start=8192), run(0)), row("TM201", "grows", run(64), run(0)))
    assert write(report, file, DAY)
    text = file.read_text("utf-8")
    assert text == as_text(json.loads(text))
    assert max(map(len, text.splitlines())) < 300
    read = Table.from_json(json.loads(text))
    assert list(read.rules) == ["TM201", "TM205"]
    found = read.row("TM205", "case_of_peak")
    assert found is not None
    assert found.peak_more == 4096
    assert len(found.bad) == BEATS
    assert read.row("TM205", "no_case") is read.row("TM999", "case_of_peak") is None


def test_the_same_figures_keep_their_day(tmp_path: Path) -> None:
    file = tmp_path / "virtual.json"
    report = virtual(row("TM201", "grows", run(64), run(0)))
    assert write(report, file, DAY)
    assert not write(report, file, LATER)
    assert json.loads(file.read_text("utf-8"))["measured"] == DAY
    assert write(virtual(row("TM201", "grows", run(65), run(0))), file, LATER)
    assert json.loads(file.read_text("utf-8"))["measured"] == LATER


def test_rules_that_were_not_measured_stay(tmp_path: Path) -> None:
    file = tmp_path / "virtual.json"
    write(virtual(row("TM201", "grows", run(64), run(0)), row("TM205", "peak", run(0, start=8192), run(0))), file, DAY)
    assert write(virtual(row("TM201", "grows", run(32), run(0))), file, LATER)
    document = json.loads(file.read_text("utf-8"))
    assert only(document, "TM201")["per_beat_bad"] == 32
    assert only(document, "TM205")["verdict"] == "CONFIRMED"


def test_figures_of_two_versions_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / "virtual.json"
    both = (row("TM201", "grows", run(64), run(0)), row("TM205", "peak", run(0, start=8192), run(0)))
    write(virtual(*both), file, DAY)
    before = file.read_bytes()
    with pytest.raises(OtherDeviceError, match=r"figures of stand-in and PyTorch 9\.9 .*TM205"):
        write(virtual(both[0], torch="10.0"), file, LATER)
    assert file.read_bytes() == before
    assert write(virtual(*both, torch="10.0"), file, LATER)


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{", b"\xff", b'{"rules": 3}'])
def test_a_file_that_cannot_be_read_is_written_anew(tmp_path: Path, damaged: bytes) -> None:
    file = tmp_path / "virtual.json"
    file.write_bytes(damaged)
    assert write(virtual(row("TM201", "grows", run(64), run(0))), file, DAY)
    assert only(json.loads(file.read_text("utf-8")), "TM201")["per_beat_bad"] == 64


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "virtual.json"
    write(virtual(row("TM201", "grows", run(64), run(0))), file, DAY)
    before = file.read_bytes()

    def full(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(virtual(row("TM201", "grows", run(65), run(0))), file, LATER)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["virtual.json"]
