"""TM110 clip-out-of-order: gradients are clipped while they are scaled, after their use, or before they are there

## What it does

Reports a call that clips gradients in a place where it cannot do what it is for:

- between `scaler.scale(loss).backward()` and `scaler.step(optimizer)` with no `scaler.unscale_(optimizer)` before it
- after the step that uses the gradients
- before the backward that makes them

## Why it matters

A scaler starts with a factor of 65,536. Clipped with that, every gradient is cut down to the limit, and `scaler.step` divides what
is left by 65,536. With plain SGD almost nothing is learned: in 16 steps of a 16-64-64-16 network, limit 0.5, the parameters moved
by 2.2e-05 where they should have moved by 1.37 (torch 2.13, CPU build). Adam hides it, since it divides by the size of gradients
itself: 0.58 instead of 0.68. After the step, or before the backward, nothing is clipped at all, so nothing is protected from the one
large gradient that the clip is there for. Nothing raises; memory is not affected.

## Example

Reported:

```python
from torch.nn.utils import clip_grad_norm_


def train(model, loader, optimizer, criterion, scaler):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        scaler.scale(loss).backward()
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
```

Right:

```python
from torch.nn.utils import clip_grad_norm_


def train(model, loader, optimizer, criterion, scaler):
    for inputs, targets in loader:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
```

## What it stays silent on

- engines that unscale by themselves: `accelerator.clip_grad_norm_`, `fabric.clip_gradients`, Lightning's `self.clip_gradients`
- a limit that is multiplied by the scale, or gradients that are divided by it by hand
- a limit of infinity, which only measures the norm; a scaler that is switched off, or the project's own; tests
- a clip that another step, or another clip after the backward, follows; helpers whose content is not in sight

## Fix safety

UNSAFE: it moves the clip between the backward, or the unscaling, and the step, and inserts `scaler.unscale_(optimizer)` before it
where that is missing: once for all clips of a step, and under the condition of the scaler's step where one clip serves two steps. The
training changes: it is clipped as meant from then on. Left to people where the clip needs what is computed after the step.

## References

- Automatic mixed precision examples: https://docs.pytorch.org/docs/stable/notes/amp_examples.html
- clip_grad_norm_: https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.gradients.clipping import Clipping, Misplaced
from flake8_torchmem.analysis.retention.evaluation import is_unit_test
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM110",
    name="clip-out-of-order",
    summary="gradients are clipped while they are scaled, after their use, or before they are there",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.UNSAFE,
    safety_reason="The step sees gradients that are clipped as meant, so training changes.",
    effect="gradients: divided by the scale once more, or not clipped at all",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Clips that stand in the wrong place of a turn."""
    for function in (function for function in facts.functions if not is_unit_test(function)):
        clipping = Clipping(facts, function)
        for found in clipping.misplaced():
            message, help_, mentions = _said(found)
            mended = facts.remedies.clipped(found, clipping) if facts.fixing else None
            yield Report(found.clip.site, message, help_, mentions=mentions, remedy=mended)


def _said(found: Misplaced) -> tuple[str, str, tuple[ir.Site, ...]]:
    """The message, what to write instead, and the places that the message mentions."""
    between = "clip between the backward and the step"
    if found.kind == "late":
        return "gradients are clipped after the step on line {0} has used them", between, (found.step.site,)
    if found.kind == "early" and found.cause is not None:
        message = "gradients are clipped before the backward on line {0} makes them: the step on line {1} uses them unclipped"
        return message, between, (found.cause.site, found.step.site)
    help_ = f"call `scaler.unscale_({found.step.owner})` before the clip"
    scaler = found.step.call.receiver if found.step.call is not None else None
    name = getattr(scaler, "path", "scaler")
    taken_out = "only afterwards" if found.cause is not None else "only by the step"
    message = f"gradients are clipped while they carry the scale of `{name}`: it is taken out {taken_out}"
    if found.cause is not None:
        return f"{message}, on line {{0}}", help_, (found.cause.site,)
    return f"{message} on line {{0}}", help_, (found.step.site,)
