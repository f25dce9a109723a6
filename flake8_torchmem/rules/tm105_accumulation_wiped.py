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

UNSAFE: it moves the clear under the condition of the step, right after it; where several steps end windows of their own, each gets a
clear, and where one is there already, the wrong one goes. The training changes, and the gradients get longer; the learning rate may
need another look. Left to people where gradients are read later, or another optimizer's backward would add to what was cleared.

## References

- Automatic mixed precision examples (gradient accumulation): https://docs.pytorch.org/docs/stable/notes/amp_examples.html
- Optimizer.zero_grad: https://docs.pytorch.org/docs/stable/generated/torch.optim.Optimizer.zero_grad.html
- torch.optim: https://docs.pytorch.org/docs/stable/optim.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.conditions import spelled
from flake8_torchmem.analysis.gradients.owners import spoken
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule, report_at

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts
    from flake8_torchmem.analysis.gradients.observations import Observations, Wipe

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
        for zero, wipes in _wipes(facts, seen).items():
            waiting = wipes[0][1][0]
            message = (
                f"the gradients of {spoken(waiting)} are cleared with every micro-batch, but the step (line {{0}}) runs only once per"
                " window: all micro-batches but the last are lost"
            )
            found = facts.remedies.clears(seen).wiped(wipes) if facts.fixing else None
            yield report_at(seen, zero, message, "clear only after the step, under the same condition", (waiting.site,), found)


def _wipes(facts: FileFacts, seen: Observations) -> dict[ir.Zero, list[tuple[Wipe, list[ir.Step]]]]:
    """The clears that are wrong, with all that each wipes and the steps that wait for it."""
    found: dict[ir.Zero, list[tuple[Wipe, list[ir.Step]]]] = {}
    for wipe in seen.wiped_in_order if seen.wiped and not _reads_gradients(seen.function) else ():
        if wipe.owner in seen.claims.get(wipe.backward, ()) and _every_micro_batch(seen, wipe):
            steps = [step for step, name in seen.steps_in_order if name == wipe.owner]
            waiting = [step for step in steps if _waits(facts, seen, step, wipe, steps)]
            if waiting and _together(seen, waiting[0], wipe):
                found.setdefault(wipe.zero, []).append((wipe, waiting))
    return found


def _every_micro_batch(seen: Observations, wipe: Wipe) -> bool:
    """Whether the clear runs whenever the backward does: under no condition that the backward is not under."""
    clear, backward = wipe.frame.around(wipe.zero.ctx), seen.context(wipe.backward)
    shared = tuple(loop for loop in clear.loops if loop in backward.loops)
    # A micro-batch beside the loop of the others is the first one, written out.
    others = (seen.context(other).loops for other, owners in seen.claims.items() if wipe.owner in owners)
    first = backward.loops == shared and any(loops[: len(shared)] == shared != loops for loops in others)
    return not clear.handler and not first and spelled(clear.conds) <= spelled(backward.conds)


def _waits(facts: FileFacts, seen: Observations, step: ir.Step, wipe: Wipe, steps: list[ir.Step]) -> bool:
    """Whether the step runs less often than the clear: under a window's condition, or outside of their loop."""
    clear, backward, at_step = wipe.frame.around(wipe.zero.ctx), seen.context(wipe.backward), seen.context(step)
    loop = next((loop for loop in reversed(clear.loops) if loop in backward.loops), None)
    if backward.accumulate or clear.accumulate:
        return False
    if loop is not None and loop not in at_step.loops:
        inside = any(loop in seen.context(other).loops for other in steps)
        return loop.kind != "comp" and not inside and all(outer in clear.loops for outer in at_step.loops)
    shared = {(ir.text(cond), arm) for cond, arm in clear.conds_inside(loop)}
    own = (cond for cond, arm in seen.deciding(step, loop) if (ir.text(cond), arm) not in shared)
    return any(facts.is_window(cond, function) for cond in own for function in seen.functions(step))


def _together(seen: Observations, waiting: ir.Step, wipe: Wipe) -> bool:
    """Whether all owners that the backward feeds wait for the same window: one that steps more often uses the gradients."""
    conds = spelled(seen.context(waiting).conds)
    fed = seen.claims[wipe.backward] - {wipe.owner}
    return all(spelled(seen.context(step).conds) == conds for step, other in seen.steps if other in fed)


def _reads_gradients(function: ir.Function) -> bool:
    """Whether gradients are collected by hand before they are cleared: then nothing is lost."""
    expressions = (event.value for event in function.events() if isinstance(event, (ir.Bind, ir.Store)))
    return any(path.endswith(".grad") or ".grad." in path for expr in expressions for path in ir.names(expr))
