"""TM105 accumulation-wiped: every micro-batch clears the gradients that a later step should have summed

## What it does

Reports a `zero_grad()` that runs for every micro-batch, while the step runs once per window (a modulo, a counter, a named test) or
after an inner loop over chunks.

## Why it matters

Of the whole window only the last micro-batch reaches the step, and it is usually divided by the size of the window as well. In a
window of 4 (16-64-2 network at its initial weights, batch 32, torch 2.13, CPU build) the gradient is 0.59 times as long as the right
one and comes from a quarter of the data: four forwards and backwards are paid for one. Nothing raises. Memory does not grow; it is
even a little lower than in the right program, which holds its gradients through the window.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion, accumulate=4):
    for i, (inputs, targets) in enumerate(loader):
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets) / accumulate
        loss.backward()
        if (i + 1) % accumulate == 0:
            optimizer.step()
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

- step and clear under one condition, or under two that match (`i % n == 1` clears, `i % n == 0` steps)
- a condition that is no window: gradients that are not finite, a warm-up during which one optimizer waits
- a clear before an inner loop over chunks and a step after it
- another optimizer's clear (`n_critic`), and gradients that were added to a buffer before the clear
- `with accelerator.accumulate(model)` and engines that make step and clear wait for the window by themselves

## Fix safety

UNSAFE: it moves the clear under the condition of the step, right after the step. The training changes, and the gradients get
longer; the learning rate may need another look.

## References

- Automatic mixed precision examples (gradient accumulation): https://docs.pytorch.org/docs/stable/notes/amp_examples.html
- Optimizer.zero_grad: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Rule

RULE = Rule(
    code="TM105",
    name="accumulation-wiped",
    summary="every micro-batch clears the gradients that a later step should have summed",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Clearing once per step instead of once per micro-batch changes what every step uses.",
    effect="gradients: each step uses its last micro-batch alone",
)
