"""TM103 step-before-backward: the step of a turn comes before its backward

## What it does

Reports an optimizer's `step()` between the forward of a turn and the backward of that turn, where the gradients of that backward
are cleared before any step uses them, or only reach the step of the next turn.

## Why it matters

What happens depends on where the gradients are cleared (all seen on torch 2.13, CPU build):

- clear, forward, step, backward: every step finds no gradient, and the parameters never change. Silent.
- forward, step, clear, backward: each step uses the gradients of the turn before, and the last ones are lost. Silent for a single
  linear layer. A deeper network raises a RuntimeError in its second backward, since the step has changed weights in place that the
  backward still needs.

Memory is not affected.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        optimizer.step()
        loss.backward()
```

Right:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- a step of something else: an environment, a schedule, another optimizer
- a step whose backward is in a helper, in a closure (`optimizer.step(closure)`) or in a caller
- gradients that are assigned by hand, for example from `torch.autograd.grad`
- a loop that makes several updates per turn, each with its own backward before it

## Fix safety

UNSAFE: it moves the backward, and a clear that stands before it, above the step and above the unscaling and clipping that belong to
it. Where the loss is computed only after the step, the step moves below the backward, with its unscaling, clips and the updates of
scaler and schedule. The training changes. Left to people where the step waits for a condition and its loss comes later, and where
gradients are read after the backward.

## References

- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
- Optimizer.zero_grad: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
- In-place operations in autograd mechanics: https://docs.pytorch.org/docs/stable/notes/autograd.html
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
    code="TM103",
    name="step-before-backward",
    summary="the step of a turn comes before its backward",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Moving the step below the backward changes which gradients it uses.",
    effect="gradients: the step finds none, or those of the turn before; a deep model may raise in its second turn",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Steps whose turn goes on to the backward that they should have used."""
    for seen, step, verdict in facts.order_defects("TM103"):
        if verdict.cause is None:
            continue
        yield report_at(
            seen,
            step,
            f"{spoken(step)} steps before this turn's backward on line {{0}}: it uses empty gradients, or those of the last turn",
            "step after the backward: zero_grad, forward, backward, step",
            mentions=(verdict.cause.site,),
            remedy=facts.remedies.backwards(seen).late_backward(verdict.cause, step) if facts.fixing else None,
        )
