"""TM106 loss-not-scaled: gradients of a window's micro-batches are summed though each loss is a mean

## What it does

Reports the backward of a mean loss in a window of N micro-batches when nothing divides by N: not the loss, nor the gradients, nor
the learning rate. Also a loss that is divided by the running counter, or by another number than the window's.

## Why it matters

A mean over each of four micro-batches, summed, is four times the mean over all of them: in this rule's fixture the gradient is
exactly 4.0 times as long (16-64-2 network, batch 32, torch 2.13, CPU build), so SGD takes steps as with four times the learning rate,
and changing the window changes the training. Divided by the running counter (1, 2, 3, 4) it is still 2.3 times as long, and the first
micro-batch counts four times as much as the last.

Adam divides by the size of the gradient itself: over 16 steps its path differed by 0.002 % from the right one. There the report is a
warning. With gradients clipped at 0.5 it differed by 4.6 %: clipping, and every logged norm, still see the long gradient. Nothing
raises and memory is not affected.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion, accumulate=4):
    for i, (inputs, targets) in enumerate(loader):
        loss = criterion(model(inputs), targets)
        loss.backward()
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
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
```

## What it stays silent on

- a division anywhere on the way: in a helper, in the loss function, of the gradients, of the learning rate
- sums over samples, and losses whose reduction cannot be seen
- engines that divide by themselves (`accelerator.backward`, `with accelerator.accumulate(model)`)
- windows of one, several losses of one batch, sums over episodes and tasks
- a backward under a test of the window's size

## Fix safety

UNSAFE: it divides the loss by the size of the window where it is back-propagated, so that what is logged stays as it was; a wrong
divisor is replaced where it stands. The gradients get shorter, and a learning rate that was tuned with the long ones no longer fits.
Left to people where the size has no name at the backward, in a helper that is not given it.

## References

- Automatic mixed precision examples (gradient accumulation): https://docs.pytorch.org/docs/stable/notes/amp_examples.html
- CrossEntropyLoss (reduction): https://docs.pytorch.org/docs/stable/generated/torch.nn.CrossEntropyLoss.html
- Adam: https://docs.pytorch.org/docs/stable/generated/torch.optim.Adam.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.gradients.owners import spoken
from flake8_torchmem.analysis.gradients.scaling import Fault, faults
from flake8_torchmem.analysis.gradients.windows import spelled
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM106",
    name="loss-not-scaled",
    summary="gradients of a window's micro-batches are summed though each loss is a mean",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Dividing the loss shortens every gradient, and a learning rate may have been tuned for the long ones.",
    effect="gradients: as many times too long as the window has micro-batches",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Backwards of mean losses in a window that are not divided by its size."""
    for fault in faults(facts):
        size = spelled(fault.window.size)
        yield Report(
            fault.backward.site,
            _message(fault, size),
            f"write `(loss / {size.strip('`')}).backward()`, and log the undivided loss",
            Severity.WARNING if fault.adaptive else None,
            mentions=(fault.window.step.site,),
            remedy=facts.remedies.divided(fault) if facts.fixing else None,
        )


def _message(fault: Fault, size: str) -> str:
    step = f"{spoken(fault.window.step)} steps (line {{0}}) on the sum of {size} micro-batches"
    if fault.counter:
        return f"{step}, and this loss is divided by the running counter: later micro-batches count less"
    wrong = "not divided by their number" if fault.divisor is None else f"divided by {spelled(fault.divisor)} instead"
    times = "too long" if fault.divisor is not None else f"{size} times too long"
    adaptive = "; Adam and its like hardly change their steps for it, clipping and logged norms do" if fault.adaptive else ""
    return f"{step}, and this mean loss is {wrong}: the gradient is {times}{adaptive}"
