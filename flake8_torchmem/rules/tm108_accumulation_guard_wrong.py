"""TM108 accumulation-guard-wrong: the test that ends a window of micro-batches is inverted or off by one

## What it does

Reports the test of a step when every turn back-propagates and the test is true on the wrong micro-batch: on all but one (`if i % n`),
on the first one (`i % n == 0` with a counter that starts at 0), or one too early (`(i + 1) % n == 0` with one that starts at 1).

## Why it matters

With 16 batches and windows of 4 the right test makes four steps of four micro-batches. `i % 4 == 0` makes steps of 1, 4, 4, 4 and
leaves the last three without one. When the clear stands under the same test at the head of the turn, every step uses one micro-batch
and three are thrown away: the gradient is 0.42 times as long as the right one (16-64-2 network, batch 32, torch 2.13, CPU build). The
inverted test steps twelve times, on one or two micro-batches each. Nothing raises and memory is not affected.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion, accumulate=4):
    for i, (inputs, targets) in enumerate(loader):
        loss = criterion(model(inputs), targets) / accumulate
        loss.backward()
        if i % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
```

Right:

```python
def train(model, loader, optimizer, criterion, accumulate=4):
    for i, (inputs, targets) in enumerate(loader):
        loss = criterion(model(inputs), targets) / accumulate
        loss.backward()
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
```

## What it stays silent on

- counters that start at 1 or are raised before the test, and counters whose start cannot be seen
- `i > 0 and i % n == 0`, and `if (i + 1) % n: continue`
- a step at the head of the turn, which uses the window that is over
- a whole turn under the test, backward and step alike (`n_critic`), and two kinds of step in its two arms
- gradients that are cleared in every turn, and windows of two by `if i % 2`

## Fix safety

UNSAFE: it replaces the comparison within the test by one that is true for the last micro-batch of each window, by what the counter is
at the first one; a later clear under the same test goes along. The training changes: steps come after other micro-batches. Left to
people where the start of the counter cannot be seen.

## References

- Automatic mixed precision examples (gradient accumulation): https://docs.pytorch.org/docs/stable/notes/amp_examples.html
- Optimizer.step: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.step.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.gradients.owners import spoken
from flake8_torchmem.analysis.gradients.windows import Fires, Window, spelled
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM108",
    name="accumulation-guard-wrong",
    summary="the test that ends a window of micro-batches is inverted or off by one",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="The optimizer steps after other micro-batches, so every step uses other gradients.",
    effect="gradients: steps use one micro-batch instead of a window, or the first and the last window are cut short",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Windows whose test is true on the wrong micro-batch."""
    for window in facts.windows:
        found = _wrong(window)
        if found is not None:
            mended = facts.remedies.rephased(window) if facts.fixing else None
            yield Report(window.site, found, _help(window), mentions=(window.step.site,), remedy=mended)


def _wrong(window: Window) -> str | None:
    """What is wrong with the test."""
    size = spelled(window.size)
    if window.period is None or window.period.guards or not window.alone:
        return None
    if window.fires is Fires.INVERTED:
        return (
            f"this test is inverted: {spoken(window.step)} steps (line {{0}}) after all micro-batches of {size} but one, where it should"
            " step after one alone"
        )
    if window.fires is Fires.EARLY:
        return f"this test is true one micro-batch early: the first step of {spoken(window.step)} (line {{0}}) uses {size} - 1 of {size}"
    if window.fires is not Fires.FIRST:
        return None
    if window.wiped:
        return (
            f"this test is true on the first micro-batch of each window: every step of {spoken(window.step)} (line {{0}}) uses 1 of {size},"
            " and the clear before it throws the others away"
        )
    return (
        f"this test is true on the very first micro-batch: the first step of {spoken(window.step)} (line {{0}}) uses 1 instead of {size},"
        " and the last window is cut short"
    )


def _help(window: Window) -> str:
    counter = next(iter(ir.names(window.period.counter)), "i") if window.period else "i"
    size = spelled(window.size).strip("`")
    if window.fires is Fires.INVERTED:
        return f"step where the remainder is 0: `({counter} + 1) % {size} == 0` with a counter that starts at 0"
    return f"write `({counter} + 1) % {size} == 0` for a counter that starts at 0, `{counter} % {size} == 0` for one that starts at 1"
