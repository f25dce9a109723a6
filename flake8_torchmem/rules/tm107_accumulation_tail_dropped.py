"""TM107 accumulation-tail-dropped: the micro-batches after the last full window of a pass never reach a step of their own

## What it does

Reports the test that ends a window of micro-batches when the counter begins anew with each pass over the data and nothing steps on
what is left at its end. Off by default: a pass may well be a multiple of the window, which cannot be seen.

## Why it matters

With 10 batches and windows of 4, two batches of each pass have no step of their own. Cleared before the next pass, a fifth of the
data teaches nothing; not cleared, the first step of the next pass uses 6 micro-batches instead of 4: 1.5 times as long a gradient, a
third of it computed for weights of the pass before (16-64-2 network, batch 32, torch 2.13, CPU build; both cases are in this rule's
fixture). Nothing raises.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion, accumulate=4):
    for i, (inputs, targets) in enumerate(loader):
        loss = criterion(model(inputs), targets)
        (loss / accumulate).backward()
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
```

Right:

```python
def train(model, loader, optimizer, criterion, accumulate=4):
    for i, (inputs, targets) in enumerate(loader):
        loss = criterion(model(inputs), targets)
        (loss / accumulate).backward()
        if (i + 1) % accumulate == 0 or i + 1 == len(loader):
            optimizer.step()
            optimizer.zero_grad()
```

## What it stays silent on

- a clause for the last batch, and a step after the loop, here or in a caller
- counters that go on from pass to pass, and loops that count iterations instead of batches
- passes that are cut to whole windows, by their length or by a `break`
- endless loaders, and streams

## Fix safety

DISPLAY: whether a short window deserves a step, and whether its losses are then divided by fewer, is the author's choice.

## References

- Automatic mixed precision examples (gradient accumulation): https://docs.pytorch.org/docs/stable/notes/amp_examples.html
- DataLoader (drop_last): https://docs.pytorch.org/docs/stable/data.html
- Optimizer.zero_grad: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.gradients import windows
from flake8_torchmem.analysis.gradients.owners import spoken
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM107",
    name="accumulation-tail-dropped",
    summary="the micro-batches after the last full window of a pass never reach a step of their own",
    severity=Severity.WARNING,
    default=False,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="Whether to step on a short window, and how to weigh it, is the author's choice.",
    effect="gradients: those of the last, partial window are lost, or added to the next pass's first window",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Windows over a data set whose last one may be short and has no step."""
    for window in facts.windows:
        clear = windows.tail_dropped(window, facts.summaries)
        if clear is None:
            continue
        size = windows.spelled(window.size)
        fate = "go into the first step of the next pass" if window.with_step(clear) else "are cleared (line {0}) before the next pass"
        yield Report(
            window.site,
            f"where the number of batches is no multiple of {size}, the last micro-batches of each pass have no step of"
            f" {spoken(window.step)}: their gradients {fate}",
            "step on the last batch too (`or i + 1 == len(loader)`), or cut the pass to whole windows",
            mentions=(clear.site,),
        )
