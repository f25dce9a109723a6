"""What a fix is called in an editor's menu."""

from __future__ import annotations

import pytest

from flake8_torchmem.lsp.titles import title


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("a\n", "a\n    b()  # why\n", "insert `b()`"),
        ("import os\na = 1\n", "import os\nimport torch\na = torch.ones(2)\n", "write `a = torch.ones(2)` and change 1 more line"),
        ("a\nb()\nc\n", "a\nc\n", "remove `b()`"),
        ("a\nb()\nc\n", "b()\na\nc\n", "move `b()`"),
        ("if a:\n    b()\n    c()\n", "if a:\n    b()\nc()\n", "move `c()`"),
        ("for x in y:\n    z()\n", "with torch.no_grad():\n    for x in y:\n        z()\n", "insert `with torch.no_grad():`"),
        ("a = 1\nb = 2\nc = 3\n", "a = 2\nb = 3\nc = 4\n", "write `a = 2` and change 2 more lines"),
        ("a\n", "a\nb" + "c" * 80 + "\n", "insert `b" + "c" * 56 + "...`"),
        ("# a\n", "# a\n# b\n", "insert `# b`"),
    ],
)
def test_a_title_names_the_code_that_changes(before: str, after: str, expected: str) -> None:
    assert title(before, after) == expected
