"""Reports stay small and are made with bounded work, whatever the code that they show: long lines, and many findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from flake8_torchmem.analysis import engine
from flake8_torchmem.fixes import preview
from flake8_torchmem.output import FORMATS
from tests.commands import command
from tests.samples import LEAKY

LONG = "x" * 150_000
EVALUATION = f"""import torch


def evaluate(model, val_loader):
    model.eval()
    right = 0
    for x in val_loader:
        y = model(
            x, '{LONG}')
        right += (y.argmax(1) == 1).sum().item()
    return right
"""
# Where the long part is: on the line of a finding, before and after its spot, on the line above, within its span, in what is mended.
WIDE = {
    "after": LEAKY.replace("total += loss", f"total += loss; s = '{LONG}'"),
    "before": LEAKY.replace("total += loss", f"s = '{LONG}'; total += loss"),
    "above": LEAKY.replace("total += loss", f"s = '{LONG}'\n        total += loss"),
    "within": LEAKY.replace("total += loss", f"total += (\n0 + len('{LONG}') +\nloss)"),
    "on many lines": EVALUATION,
    "mended": LEAKY.replace("total += loss", f"total += loss + len('{LONG}')"),
}
FUNCTION = LEAKY.partition("import torch\n")[2]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def reported(text: str, output_format: str) -> str:
    Path("a.py").write_text(text)
    result = command("check", "a.py", "--no-cache", "--output-format", output_format)
    assert (result.status, result.err) == (1, "")
    return result.out


@pytest.mark.parametrize("output_format", FORMATS)
def test_a_long_line_is_shown_in_part(output_format: str) -> None:
    base = len(reported(LEAKY, output_format))
    for where, text in WIDE.items():
        assert len(reported(text, output_format)) < base + 5_000, where


@pytest.mark.parametrize("output_format", ["sarif", "html"])
def test_many_findings_are_shown_with_bounded_work(output_format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each fix that is shown has been checked with the whole file: how many are is a matter of its size, and not of what is found."""
    looked_at: list[int] = []
    check_text = engine.check_text

    def counted(text: str, *arguments: object, **more: object) -> object:
        looked_at.append(len(text))
        return check_text(text, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(engine, "check_text", counted)
    monkeypatch.setattr(preview, "MAX_CHECKED", 100_000)
    sizes = []
    for number in (40, 80):
        looked_at.clear()
        text = "import torch\n" + "".join(FUNCTION.replace("train", f"train{index}") for index in range(number))
        report = reported(text, output_format)
        assert report.count("fixes are planned in a file of this size") == (
            number - 100_000 // (len(text) + 1) if output_format == "html" else 0
        )
        assert sum(looked_at) < 100_000 + 4 * len(text), "the first check, what is to be mended, and fixes up to the limit"
        sizes.append(len(report))
    assert sizes[1] < 2.2 * sizes[0]
