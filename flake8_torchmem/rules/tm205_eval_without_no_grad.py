"""TM205 eval-without-no-grad: forwards record graphs that nobody back-propagates

## What it does

Reports the first forward of a loop, or of a method that is called once per batch, which runs a model with gradients on and never
back-propagates: evaluation, prediction, sampling, feature extraction. A helper that runs the model is reported where the loop calls
it. `model.eval()` does not turn gradients off.

## Why it matters

Every operation saves what a backward would need. The graph of a batch dies when its names are bound to the next batch's, so memory
does not grow: the peak is higher, by the graph of the running batch and of the one before. In this rule's fixture (16-64-64-2 network) the
peak of an evaluation of batches of 32 falls from {measured:evaluation.bad_peak} to {measured:evaluation.fixed_peak} bytes, that of a
training with a validation on batches of 256 from {measured:end_of_epoch.bad_peak} to {measured:end_of_epoch.fixed_peak}: the validation
decides whether it fits. Where the losses are kept too, {measured:kept_until_the_end.per_beat_bad} bytes stay per batch (TM201, TM202).

## Example

Reported:

```python
import torch


def evaluate(model, loader, criterion):
    model.eval()
    total = 0.0
    for inputs, targets in loader:
        outputs = model(inputs)
        total += criterion(outputs, targets).item()
    return total / len(loader)
```

Right:

```python
import torch


@torch.no_grad()
def evaluate(model, loader, criterion):
    model.eval()
    total = 0.0
    for inputs, targets in loader:
        outputs = model(inputs)
        total += criterion(outputs, targets).item()
    return total / len(loader)
```

## What it stays silent on

- `no_grad`, `inference_mode` or `set_grad_enabled` as decorator, around the loop, in its body or in every caller
- a project's own decorator that guards
- loops that back-propagate, here or from what they return: training, saliency, adversarial examples, one backward after the loop
- a loop that trains, with an additional forward in it; models that are frozen, or take gradients in their own `forward`
- tests, and hooks of frameworks that turn gradients off by themselves

## Fix safety

SAFE: `@torch.no_grad()` on a function that is given the model, or is named as an evaluation, and in which nothing trains or may train;
else `with torch.no_grad():` around the loop alone. Training is the same to the last bit, and so are the outputs, unless a module runs
another kernel without gradients (`nn.LSTM`, `nn.TransformerEncoder`; seen on torch 2.13, CPU build: 3e-7). UNSAFE where what has a graph
today, or the model, goes to code out of sight, which might back-propagate. None for a `yield` of such tensors, and for coroutines.

## References

- torch.no_grad: https://docs.pytorch.org/docs/stable/generated/torch.no_grad.html
- Locally disabling gradient computation in autograd mechanics: https://docs.pytorch.org/docs/stable/notes/autograd.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flake8_torchmem import torchapi
from flake8_torchmem.analysis import ir, paths
from flake8_torchmem.analysis.retention.evaluation import (
    evaluates,
    evaluates_alone,
    forwards,
    goes_over_data,
    may_evaluate_alone,
    mode_before,
    model_takes_gradients,
    proves_no_grad,
    runs,
)
from flake8_torchmem.model import Safety, Severity
from flake8_torchmem.rules.base import Report, Rule

if TYPE_CHECKING:
    from flake8_torchmem.analysis.facts import FileFacts

RULE = Rule(
    code="TM205",
    name="eval-without-no-grad",
    summary="forwards record graphs that nobody back-propagates",
    severity=Severity.WARNING,
    default=True,
    since="0.1.0",
    safety=Safety.SAFE,
    safety_reason="Only the recording stops: nothing in the guarded part, nor what is made of it, back-propagates.",
    effect="peak: higher by what the graphs of one or two batches save; no growth unless something keeps them",
)


def check(facts: FileFacts) -> Iterator[Report]:
    """The first forward of every loop that evaluates with gradients on."""
    # Names tell most functions off; what is a model or has a graph is asked of the others alone.
    seen = {function: _loops(facts, function) for function in facts.functions if function.grad is ir.Grad.ON}
    asked = {function: loops for function, loops in seen.items() if loops or may_evaluate_alone(facts, function)}
    for function, loops in asked.items() if asked and not model_takes_gradients(facts) else ():
        if facts.guarded_by_callers(function) or facts.needs_gradients(function) or proves_no_grad(facts, function):
            continue
        reported: set[ir.Loop | None] = set()
        direct = set(forwards(facts, function))
        for forward in runs(facts, function):
            loop = _evaluation_loop(facts, function, forward, loops, direct=forward in direct)
            alone = loop is None and not reported and forward in direct and evaluates_alone(facts, function, forward)
            if (loop is not None or alone) and loop not in reported:
                reported.add(loop)
                where = "in a loop" if loop is not None else "in an evaluation"
                yield Report(
                    forward.site,
                    f"forward with gradients on {where} that never back-propagates: the activations of each batch are kept for nothing",
                    "put the loop under `with torch.no_grad():`, or decorate the function with `@torch.no_grad()`",
                    remedy=facts.remedies.guarded(function, loop, forward) if facts.fixing else None,
                )


def _loops(facts: FileFacts, function: ir.Function) -> list[ir.Loop]:
    """The loops of a function that evaluate and train nothing."""
    return [loop for loop in function.loops if not facts.effect_in(loop, function, "backward") and evaluates(facts, loop, function)]


def _evaluation_loop(facts: FileFacts, function: ir.Function, forward: ir.Invoke, loops: list[ir.Loop], direct: bool) -> ir.Loop | None:
    """The outermost of the loops that is around a forward and goes over data; for what a helper runs, by its iterable."""
    for loop in forward.ctx.loops:
        if loop not in loops:
            continue
        over_data = goes_over_data(facts, loop, function)
        one_model_per_turn = paths.root(forward.call.path or "") in loop.assigned
        if (loop.kind in ("comp", "while") and not direct) or ((loop.kind == "comp" or one_model_per_turn) and not over_data):
            continue
        if over_data or (direct and (mode_before(function, loop) or torchapi.EVAL_NAME.search(function.name))):
            return loop
    return None
