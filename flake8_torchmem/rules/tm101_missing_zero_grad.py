"""TM101 missing-zero-grad: gradients of earlier batches are still there when a backward adds to them

## What it does

Reports a `backward()` that adds to gradients which a step of the same optimizer has already used, because nothing clears them in
between: no `zero_grad()` at all, one per epoch instead of one per step, or one in only some of the branches that train.

## Why it matters

`backward()` adds to `.grad`. Without a clear, step k follows the sum of the gradients of batches 1 to k, most of them computed for
weights that no longer exist. Nothing raises, and the loss may even fall for a while. In this rule's fixture (16-64-2 network, SGD,
batch 32) the second step uses a gradient 1.3 times as long as its own batch's, the sixteenth one 6.6 times as long.

It is not a leak: the sums are made in place. Memory rises once, because the gradients are held through the forward: in the fixture
the peak goes from {measured:plain_loop.fixed_peak} to {measured:plain_loop.bad_peak} bytes and stays there.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        loss = criterion(model(inputs), targets)
        loss.backward()
        optimizer.step()
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

- `zero_grad()` anywhere between a step and the next backward: first, last, on the module, in a helper, in a closure
- `p.grad = None` or `p.grad.zero_()` over the parameters, and engines whose step clears
- several backwards before one step, and windows of micro-batches that end with a clear
- a backward with no step at all (saliency, gradient checks), and another optimizer's step
- an optimizer that was handed to code which cannot be seen

## Fix safety

UNSAFE: it inserts `zero_grad()` before the first backward of the turn (the closure's, where the step evaluates one), in the block
that holds the step as well. It goes right after the step where the step ends a window of micro-batches, comes first in its turn, or
runs in a loop over optimizers; hand-written updates are followed by `p.grad = None`. The training changes, which is the purpose; a
learning rate that was tuned with the defect may no longer fit. It is left to people where the optimizer has no name at that place,
where gradients are read after the step, and where another optimizer's backward would add to what was cleared.

## References

- Optimizer.zero_grad: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
- Tensor.backward: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.backward.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.gradients.owners import spoken
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule, report_at

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.gradients.observations import Observations

RULE = Rule(
    code="TM101",
    name="missing-zero-grad",
    summary="gradients of earlier batches are still there when a backward adds to them",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="Clearing the gradients changes every step after the first, and with them the training.",
    effect="gradients: from the second step on, steps use the sum over all batches so far; memory does not grow",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Backwards that were seen, on some path, to add to gradients which a step of the same owner had used."""
    for seen in facts.gradients:
        for backward, owner, step in seen.stale_in_order:
            yield report_at(
                seen,
                backward,
                f"the gradients of {spoken(step)} were used by the step on line {{0}} and not cleared since: this backward adds to them,"
                " so every step uses the sum of all batches so far",
                _help(facts, seen, step),
                mentions=(step.site,),
                remedy=facts.remedies.clears(seen).missing_clear(backward, owner, step) if facts.fixing else None,
            )


def _help(facts: FileFacts, seen: Observations, step: ir.Step) -> str:
    """Where the clear belongs: in an accumulation window only after the step."""
    call = "set every `.grad` to None" if step.owner == ir.BY_HAND else f"call `{step.owner}.zero_grad()`"
    if any(facts.is_window(cond, seen.function) for cond, _, _ in seen.context(step).conds):
        return f"{call} right after the step, under the same condition"
    return f"{call} before the first backward of each turn"
