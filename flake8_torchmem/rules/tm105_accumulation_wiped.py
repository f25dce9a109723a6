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

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.owners import spoken
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule, report_at

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.gradient_paths import Observations

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


def check(facts: FileFacts) -> Iterator[Report]:
    """Clears that run with every micro-batch while the step waits for a window to fill."""
    for seen in facts.gradients:
        for zero, backward, owner in seen.wiped:
            if owner not in seen.claims.get(backward, ()) or not _every_micro_batch(zero, backward):
                continue
            steps = [step for step, name in seen.steps if name == owner]
            waiting = next((step for step in steps if _waits(facts, seen.function, step, zero, backward)), None)
            if waiting is not None and not _reads_gradients(seen.function) and _together(seen, backward, waiting, owner):
                yield report_at(
                    seen,
                    zero,
                    f"the gradients of {spoken(waiting)} are cleared with every micro-batch, but the step (line {{0}}) runs only once per"
                    " window: all micro-batches but the last are lost",
                    "clear only after the step, under the same condition",
                    mentions=(waiting.site,),
                )


def _every_micro_batch(zero: ir.Zero, backward: ir.Backward) -> bool:
    """Whether the clear runs whenever the backward does: under no condition that the backward is not under."""
    shared = {(ir.text(cond), arm) for cond, arm, _ in backward.ctx.conds}
    return not zero.ctx.handler and all((ir.text(cond), arm) in shared for cond, arm, _ in zero.ctx.conds)


def _waits(facts: FileFacts, function: ir.Function, step: ir.Step, zero: ir.Zero, backward: ir.Backward) -> bool:
    """Whether the step runs less often than the clear: under a window's condition, or in an outer loop."""
    loop = next((loop for loop in reversed(zero.ctx.loops) if loop in backward.ctx.loops), None)
    if backward.ctx.accumulate or zero.ctx.accumulate:
        return False
    if loop is not None and loop not in step.ctx.loops:
        return loop.kind != "comp" and all(outer in zero.ctx.loops for outer in step.ctx.loops) and bool(step.ctx.loops)
    shared = {(ir.text(cond), arm) for cond, arm in zero.ctx.conds_inside(loop)}
    own = [cond for cond, arm in step.ctx.conds_inside(loop) if (ir.text(cond), arm) not in shared]
    return any(facts.is_window(cond, function) for cond in (*own, *(loop.skips if loop else ())))


def _together(seen: Observations, backward: ir.Backward, waiting: ir.Step, owner: str) -> bool:
    """Whether all owners that the backward feeds wait for the same window: one that steps more often uses the gradients."""
    conds = _spelled(waiting)
    return all(_spelled(step) == conds for step, other in seen.steps if other != owner and other in seen.claims[backward])


def _spelled(step: ir.Step) -> set[tuple[str, bool]]:
    return {(ir.text(cond), arm) for cond, arm, _ in step.ctx.conds}


def _reads_gradients(function: ir.Function) -> bool:
    """Whether gradients are collected by hand before they are cleared: then nothing is lost."""
    expressions = (event.value for event in function.events() if isinstance(event, (ir.Bind, ir.Store)))
    return any(path.endswith(".grad") or ".grad." in path for expr in expressions for path in ir.names(expr))
