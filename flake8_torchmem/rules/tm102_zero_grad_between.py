"""TM102 zero-grad-between: gradients are cleared after the backward and before the step that should use them

## What it does

Reports a `zero_grad()` that stands between a backward and the step that should use its gradients, on every path to that step.

## Why it matters

The step gets nothing. `zero_grad()` sets gradients to None by default, and an optimizer passes over parameters without one:
no update, no momentum, no weight decay. In this rule's fixture the norm of the parameters after 8 steps is, to the last bit, what it
was before training (torch 2.13, CPU build). Nothing raises, except with a `GradScaler`, whose `step` complains that it found no
gradients. Memory is not affected.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.zero_grad()
        optimizer.step()
```

Right:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        loss = criterion(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- a clear after the step, or before the backward
- a clear of other parameters: a critic's between a generator's backward and step, or one layer's gradients set to None
- a clear with another backward between it and the step (sharpness-aware training, a throw-away first pass)
- a clear on a path that skips the step (`if not finite: zero_grad(); continue`)
- gradients that were taken out before the clear and are put back after it

## Fix safety

UNSAFE: it moves the clear before the first backward of the turn; after the step where the step ends a window of micro-batches, whose
other gradients a clear before the backward would lose. After the step everywhere would be wrong with two networks: the other one's
backward adds to the gradients before they are used again. The training changes: until now there was none. Left to people where the
clear is in a function that does more, and where gradients are read after the step of a window.

## References

- Optimizer.zero_grad: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
- Automatic mixed precision examples (gradient accumulation): https://docs.pytorch.org/docs/stable/notes/amp_examples.html
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
    code="TM102",
    name="zero-grad-between",
    summary="gradients are cleared after the backward and before the step that should use them",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Moving the clear lets the step see gradients, so a model that never trained begins to.",
    effect="gradients: the step finds none and changes nothing",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Clears that stand, on every path to a step, between its backward and the step."""
    for seen, step, verdict in facts.order_defects("TM102"):
        if verdict.cause is not None:
            yield report_at(
                seen,
                verdict.cause,
                "gradients are cleared after the backward and before the step on line {0}:"
                f" {spoken(step)} steps with nothing and does not learn",
                "clear before the backward, or after the step",
                mentions=(step.site,),
                remedy=facts.remedies.clears(seen).clear_between(verdict.cause, step) if facts.fixing else None,
            )
