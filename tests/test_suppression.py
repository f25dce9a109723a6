"""`# noqa`, against flake8 itself: what one door suppresses, the other must suppress too."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from flake8_torchmem import check_source
from flake8_torchmem.fixes import Document
from flake8_torchmem.suppression import silencing
from tests.running import flake8, torchmem
from tests.samples import BOTH

BACKWARD, ADDITION = "loss.backward()", "total += loss"

# Each variant: (name, text that is replaced, what replaces it). The two findings are TM101 on the backward and TM201
# on the addition.
VARIANTS = {
    "bare": (ADDITION, f"{ADDITION}  # noqa"),
    "upper_case": (ADDITION, f"{ADDITION}  # NOQA"),
    "code": (ADDITION, f"{ADDITION}  # noqa: TM201"),
    "no_space": (ADDITION, f"{ADDITION}  # noqa:TM201"),
    "two_spaces": (ADDITION, f"{ADDITION}  # noqa:  TM101"),
    "space_before_colon": (ADDITION, f"{ADDITION}  # noqa : TM101"),
    "prefix": (ADDITION, f"{ADDITION}  # noqa: TM2"),
    "other_code": (ADDITION, f"{ADDITION}  # noqa: E501"),
    "lower_case_code": (ADDITION, f"{ADDITION}  # noqa: tm201"),
    "several": (ADDITION, f"{ADDITION}  # noqa: E501,TM201"),
    "several_spaced": (ADDITION, f"{ADDITION}  # noqa: E501 , TM201 because"),
    "several_glued": (ADDITION, f"{ADDITION}  # noqa: E501TM201"),
    "after_another_comment": (ADDITION, f"{ADDITION}  # type: ignore # noqa: TM201"),
    "no_hash": (ADDITION, f"{ADDITION}  # see noqa"),
    "no_space_after_hash": (ADDITION, f"{ADDITION}  #noqa"),
    "first_of_two": (ADDITION, f"{ADDITION}  # noqa: E501  # noqa: TM201"),
    "colon_then_words": (ADDITION, f"{ADDITION}  # noqa: reason"),
    "next_line": (ADDITION, f"{ADDITION}\n        # noqa"),
    "continuation": (ADDITION, "total += \\\n            loss  # noqa: TM201"),
    "brackets": (ADDITION, "total += (\n            loss\n        )  # noqa: TM201"),
    "brackets_first_line": (ADDITION, "total += (  # noqa: TM201\n            loss\n        )"),
    "string": (ADDITION, f'print("""\n# noqa\n"""); {ADDITION}'),
    "string_after": (ADDITION, f'{ADDITION}; print("""\n# noqa: TM201\n""")'),
    "file": ("import torch", "# flake8: noqa\nimport torch"),
    "file_equals": ("import torch", "# flake8=NOQA\nimport torch"),
    "file_indented": ("    for", "    # flake8: noqa\n    for"),
    "file_with_code": ("import torch", "# flake8: noqa: TM201\nimport torch"),
    "file_after_code": ("import torch", "import torch  # flake8: noqa"),
    "file_in_string": ("import torch", 'import torch\n"""\n# flake8: noqa\n"""'),
    "form_feed": (ADDITION, f"\x0c\n        {ADDITION}  # noqa: TM201"),
    "line_separator": (ADDITION, f'{ADDITION}; x = "\u2028"  # noqa: TM201'),
}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """The places and codes that flake8 and torchmem report on all variants, from one process each."""
    folder = tmp_path_factory.mktemp("noqa")
    for name, (old, new) in VARIANTS.items():
        (folder / f"{name}.py").write_text(BOTH.replace(old, new), "utf-8")
    return _places(flake8("--select=TM", ".", cwd=folder).out), _places(torchmem("check", ".", cwd=folder).out)


def _places(output: str) -> set[str]:
    return {line.split(" [")[0] for line in output.splitlines() if line.startswith("./")}


@pytest.mark.parametrize("name", VARIANTS)
def test_as_flake8_does(reports: tuple[set[str], set[str]], name: str) -> None:
    by_flake8, by_torchmem = ({place for place in report if place.startswith(f"./{name}.py:")} for report in reports)
    assert by_torchmem == by_flake8


@pytest.mark.parametrize("name", VARIANTS)
def test_a_comment_silences_one_finding_and_changes_no_code(name: str) -> None:
    source = BOTH.replace(*VARIANTS[name])
    for finding in check_source(source):
        silenced = Document(source, "utf-8").edited([silencing(source, finding)]).text
        assert ast.dump(ast.parse(silenced)) == ast.dump(ast.parse(source))
        assert check_source(silenced) == [other for other in check_source(source) if other != finding]


def test_the_variants_differ(reports: tuple[set[str], set[str]], tmp_path: Path) -> None:
    """Guard against a comparison of nothing with nothing."""
    by_flake8, _ = reports
    assert any("other_code.py" in place and "TM201" in place for place in by_flake8)
    assert any("/bare.py" in place and "TM101" in place for place in by_flake8)
    assert not any("/file.py" in place for place in by_flake8)
