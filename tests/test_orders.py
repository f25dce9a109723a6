"""Every order of forward, zero_grad, backward and step in one turn, in several settings."""

from __future__ import annotations

import itertools

import pytest

from flake8_torchmem.analysis.engine import check_text
from flake8_torchmem.rules import rule_modules

STATEMENTS = {
    "F": "loss = criterion(model(x), y)",
    "Z": "optimizer.zero_grad()",
    "B": "loss.backward()",
    "S": "optimizer.step()",
}
# What each order does, from what a step uses and a backward adds to. The first letter that counts is the first in the turn;
# orders that step first use the gradients of the last turn, which is late but not wrong as long as they are cleared in time.
EXPECTED = {
    "ZFBS": None, "FZBS": None, "FBSZ": None, "SZFB": None, "SFZB": None,
    "FBZS": "TM102", "SFBZ": "TM103", "ZFSB": "TM103", "FZSB": "TM103", "FSZB": "TM103", "FSBZ": "TM103", "ZSFB": "TM103",
    "FBS": "TM101", "SFB": "TM101",
}  # fmt: skip
SPOT = {"TM101": "B", "TM102": "Z", "TM103": "S"}
SETTINGS = {
    "for": "def train(model, criterion, optimizer, loader):\n    for x, y in loader:\n{body}",
    "while": "def train(model, criterion, optimizer, batches):\n    while True:\n        x, y = next(batches)\n{body}",
    "script": "from data import loader, model, criterion, optimizer\nfor epoch in range(9):\n    for x, y in loader:\n{body}",
    "method": "class Trainer:\n    def fit(self, model, criterion, optimizer, loader):\n        for x, y in loader:\n{body}",
}
INDENT = {"for": 8, "while": 8, "script": 8, "method": 12}


def test_every_order_is_listed() -> None:
    orders = {"".join(order) for order in itertools.permutations("FZBS") if order.index("F") < order.index("B")}
    assert orders == {order for order in EXPECTED if len(order) == 4}


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("order", EXPECTED)
def test_order(order: str, setting: str) -> None:
    body = "\n".join(" " * INDENT[setting] + STATEMENTS[letter] for letter in order)
    source = "import torch\n" + SETTINGS[setting].format(body=body) + "\n"
    found = [
        (finding.code, source.split("\n")[finding.span.line - 1].strip())
        for finding in check_text(source, "x.py", frozenset(rule_modules()))
    ]
    code = EXPECTED[order]
    assert found == ([] if code is None else [(code, STATEMENTS[SPOT[code]])])
