"""Programs that hypothesmith makes of Python's grammar, in the words of training code: at the top of a file, and within a training loop."""

from __future__ import annotations

import io
import textwrap
import tokenize
import warnings
from collections.abc import Iterator
from itertools import count
from keyword import iskeyword

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesmith import from_grammar

from tests.fuzz.mutations import VOCABULARY

BATCH = 50
NAMES = tuple(word for word in VOCABULARY if word.isidentifier() and not iskeyword(word))
WITHIN = """\
import torch
from torch import nn, optim


class Model(nn.Module):
{deeper}


def train(self, model, loader, optimizer, scaler, device, hidden):
    total, losses = 0, []
    for i, data in enumerate(loader):
        optimizer.zero_grad()
        loss = model(data).mean()
{deeper}
        loss.backward()
        optimizer.step()
        total += loss


def evaluate(model, loader):
    model.eval()
    for x in loader:
        outputs = model(x)
{deeper}


{body}
"""


def generated(start: int) -> Iterator[bytes]:
    """Programs without end.

    Args:
        start: the seed of the first ones.
    """
    for number in count(start):
        yield from batch(number, BATCH)


def batch(number: int, size: int) -> list[bytes]:
    """So many programs, the same for the same number."""
    found: list[bytes] = []

    @seed(number)
    @settings(max_examples=size, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(from_grammar("file_input"))
    def drawn(text: str) -> None:
        found.append(in_training(in_words(text)).encode())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn()
    return found


def in_training(text: str) -> str:
    """A program at the places where it matters; its strings over several lines become other strings there."""
    return WITHIN.format(body=text, deeper=textwrap.indent(text + "\npass", " " * 8))


def in_words(text: str) -> str:
    """A program with the vocabulary's names for its own, the same one for the same one."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return text
    lines = text.splitlines(keepends=True)
    for token in reversed(tokens):
        (line, begin), (last, end) = token.start, token.end
        if token.type == tokenize.NAME and not iskeyword(token.string) and line == last and line <= len(lines):
            word = NAMES[sum(map(ord, token.string)) % len(NAMES)]
            lines[line - 1] = lines[line - 1][:begin] + word + lines[line - 1][end:]
    return "".join(lines)
