"""TM207 create-graph-cycle: gradients with a graph and their parameters keep each other alive

## What it does

Reports `backward(create_graph=True)` that a loop in sight repeats, where the gradients that it leaves behind are not let go: nothing
in sight clears them, or they belong to a tensor or a model that is new in each turn and goes out of use uncleared.

## Why it matters

Such a gradient carries a graph, the graph refers to the parameter, and the parameter to its gradient. Reference counting never
frees that cycle, and Python's garbage collector cannot see into the graph. Setting the gradient to None or detaching it breaks the
cycle; `zero_grad()` does, `parameter.grad.zero_()` does not. In this rule's fixture (16-64-16 network, batch 32) gradients
zeroed in place keep {measured:zeroed_in_place.per_beat_bad} bytes more with every step, a learner built for each task
{measured:learner_per_task.per_beat_bad} bytes with each of its steps, and inputs whose `.grad` is read
{measured:slope_at_the_inputs.per_beat_bad} bytes per step. Mended, all three keep nothing. With a `zero_grad()` in every
turn nothing grows either.

## Example

Reported:

```python
def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        inputs.requires_grad_(True)
        outputs = model(inputs)
        outputs.sum().backward(create_graph=True)
        loss = criterion(outputs, targets) + inputs.grad.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
```

Right:

```python
import torch


def train(model, loader, optimizer, criterion):
    for inputs, targets in loader:
        inputs.requires_grad_(True)
        outputs = model(inputs)
        (slopes,) = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
        loss = criterion(outputs, targets) + slopes.pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
```

## What it stays silent on

- a clear anywhere in the turn, by `zero_grad()` with either argument, `p.grad = None` or `p.grad.detach_()`, here, in a caller,
  or in another method: a second-order optimizer's ordinary loop
- `torch.autograd.grad(..., create_graph=True)`, which stores nothing in `.grad`
- an argument that is passed through (`create_graph=second_order`)
- a helper that no loop in sight calls, in this file or in its callers' files: once is no growth
- one backward at the top level of a script; a loss that callers elsewhere hand in; engines that clear by themselves

## Fix safety

DISPLAY: taking gradients with `autograd.grad`, or clearing after their last use, depends on what they are used for.

## References

- Tensor.backward: https://docs.pytorch.org/docs/stable/generated/torch.Tensor.backward.html
- torch.autograd.grad: https://docs.pytorch.org/docs/stable/generated/torch.autograd.grad.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem.analysis import ir
from flake8_torchmem.analysis.gradients.cycles import cleared_somewhere, creates_graph, fresh_model, handed_in, leaf_inputs, repeated
from flake8_torchmem.analysis.retention.evaluation import is_unit_test
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM207",
    name="create-graph-cycle",
    summary="gradients with a graph and their parameters keep each other alive",
    severity=Severity.ERROR,
    default=True,
    since="0.1.0",
    safety=Safety.DISPLAY,
    safety_reason="What to write instead depends on what the gradients are used for.",
    effect="grows: the graph of every turn, with the parameters or inputs that it belongs to",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """Backwards that create a graph of gradients which nothing lets go of."""
    for function in facts.functions:
        for event in function.events() if not is_unit_test(function) else ():
            if isinstance(event, ir.Backward) and creates_graph(facts, function, event.call):
                report = _kept(facts, function, event)
                if report is not None:
                    yield report._replace(tentative=not repeated(facts, function, event))


def _kept(facts: FileFacts, function: ir.Function, backward: ir.Backward) -> Report | None:
    each = "turn" if backward.ctx.loops else "call"
    for place in leaf_inputs(facts, function, backward):
        message = f"`{place}` and `{place}.grad` refer to each other through the graph: those of every {each} stay in memory"
        help_ = f"take the gradient with `torch.autograd.grad(..., {place}, create_graph=True)`, or set `{place}.grad = None` after use"
        return Report(backward.site, message, help_)
    if (function.name == "<module>" and not backward.ctx.loops) or handed_in(facts, function, backward):
        return None
    if not cleared_somewhere(facts, function):
        message = (
            f"gradients and parameters refer to each other through the graph, and nothing sets `.grad` to None: each {each} keeps its own"
        )
        return Report(backward.site, message, "take gradients with `torch.autograd.grad`, or set each `.grad` to None after its last use")
    model = fresh_model(facts, function, backward)
    if model is None:
        return None
    message = (
        f"gradients and `{model.place}`, which is new in each turn on line {{0}}, refer to each other through the graph: none is freed"
    )
    return Report(backward.site, message, "clear its gradients after their last use: `zero_grad()`", mentions=(model.site,))
